"""The guide to signing, followed as it is written; what needs a broker only has its arguments parsed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from mas_edge.fleet.signing.ceremony import OFFLINE_LIFE
from mas_edge.fleet.signing.repository import LIVES, Repository
from tests.docs.pages import ROOT, blocks, rows, section

GUIDE = ROOT / "docs" / "guides" / "signing.md"


def test_the_guide_leads_from_keys_to_their_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = 0
    for line in [line for block in blocks(GUIDE) for line in block.text.splitlines()]:
        program, *words = shlex.split(line)
        if "sign" in words[:1]:
            assert mas_edge.cli.main(words) == 0, line
            done += 1
        else:
            (mas_edge if program == "mas-edge" else device_runtime).cli.build_parser().parse_args(words)
    assert done == 7
    assert "2 of anna, keyholder-1, keyholder-3" in capsys.readouterr().out
    assert Repository(tmp_path / "signing").root.signed.version == 4


def test_the_lives_of_signatures_are_those_of_the_code() -> None:
    ends = {row[0]: row[2] for row in rows(section(GUIDE, "What signs what"))}
    days = {role: life.days for role, life in LIVES.items()}
    assert ends["root"] == ends["targets"] == "a year"
    assert OFFLINE_LIFE.days == 365
    assert ends["models"] == f"{days['models']} days"
    assert ends["snapshot, timestamp"] == f"{days['snapshot']} days, {days['timestamp']} day"
