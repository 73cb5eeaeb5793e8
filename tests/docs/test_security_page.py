"""The guide to a fleet's identity does what it says, and the threat model names the topics of the code."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from mas_edge.protocol.topics import Topics
from tests.docs.pages import ROOT, blocks, in_ticks, prose, rows, section

GUIDE, MODEL = ROOT / "docs" / "guides" / "security.md", ROOT / "docs" / "threat-model.md"


def test_the_commands_of_the_guide_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done: list[str] = []
    for block in blocks(GUIDE):
        for line in block.text.splitlines():
            words = shlex.split(line)
            assert words[0] == "mas-edge"
            if words[1] == "serve":  # it would serve for ever
                mas_edge.cli.build_parser().parse_args(words[1:])
            else:
                assert mas_edge.cli.main(words[1:]) == 0, line
                done.append(words[2])
    assert done == ["init", "invite", "list", "revoke"]


def test_the_commands_in_the_text_of_the_guide_can_be_typed() -> None:
    for text in in_ticks(prose(GUIDE)):
        words = shlex.split(text)
        if words[0] == "mas-edge-device" and len(words) > 1:
            device_runtime.cli.build_parser().parse_args(words[1:])
        elif words[0] == "mas-edge" and len(words) > 1:
            mas_edge.cli.build_parser().parse_args(words[1:])


def test_the_threat_model_says_what_a_device_may() -> None:
    (device,) = (row for row in rows(section(MODEL, "Who may do what")) if row[0] == "device")
    topics = Topics("f")
    own = [topics.birth("d"), topics.status("d"), topics.response("d"), topics.upload("d")]
    own += [topics.command("d"), topics.chunk("d")]
    assert in_ticks(device[2]) == [topic.rpartition("/")[2] for topic in own]


@pytest.mark.parametrize("page", [GUIDE, MODEL, ROOT / "SECURITY.md"])
def test_no_line_promises_a_file_that_is_not_there(page: Path) -> None:
    for text in in_ticks(page.read_text()):
        if text.startswith(("tools/", "docs/", "broker/", "tests/", "mas_edge/")):
            assert (ROOT / text).exists(), text


def test_every_test_that_the_threat_model_names_is_there() -> None:
    for _, tests, _ in rows(section(MODEL, "The tests that try it")):
        code = "".join((ROOT / name).read_text() for name in in_ticks(tests) if name.startswith("tests/"))
        for name in in_ticks(tests):
            if name.isidentifier():
                assert any(name in line for line in code.splitlines() if line.startswith("def test_")), name
