from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from device_runtime.cli import check
from tests.device_runtime.folders import N, write


def command(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check", *argv])
    return check.run(args)


def test_a_fine_folder_ends_with_0_and_a_table_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--data", str(write(tmp_path))) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert ["task", "kind", "train", "test"] in rows
    assert ["gait", "class", "6", "3"] in rows
    assert ["all", "samples", "7", "3"] in rows


def test_a_wrong_folder_ends_with_4_and_every_problem_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, {"gait": np.full(N, 9), "x": np.full((N, 2, 4), np.nan, np.float32)})
    assert command("--data", str(folder)) == 4
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line.split()[0] for line in printed.err.splitlines()] == ["error:", "error:"]
    assert "x.npy holds NaN" in printed.err
    assert "gait.npy holds the label 9" in printed.err


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--data", str(write(tmp_path)), "--json") == 0
    fine = json.loads(capsys.readouterr().out)
    assert fine["ok"] is True
    assert fine["samples"] == {"train": 7, "test": 3}
    assert fine["tasks"]["heading"] == {"kind": "direction", "train": 5, "test": 3}
    assert command("--data", str(tmp_path / "nowhere"), "--json") == 4
    wrong = json.loads(capsys.readouterr().out)
    assert wrong["ok"] is False
    assert len(wrong["problems"]) == 1
