from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mas_edge.cli import data


def command(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers())
    return data.run(parser.parse_args(["data", *argv]))


def test_watch_makes_the_folders_and_a_second_run_says_they_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "watch")
    assert command("watch", "--out", out) == 0
    first = capsys.readouterr().out
    assert "10 device folders, made from the recordings of seglearn 1.2.5 (sha256 checked)" in first
    assert "no window of a test recording is trained on" in first
    assert command("watch", "--out", out) == 0
    assert "already there, whole" in capsys.readouterr().out


def test_json_counts_the_samples_of_each_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("watch", "--out", str(tmp_path), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["created"] is True
    assert printed["devices"]["watch-01"] == {"train": 673, "test": 186}
    assert len(printed["devices"]) == 10


@pytest.mark.parametrize("argv", [[], ["watch"], ["phone", "--out", "x"]])
def test_a_wrong_command_line_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(*argv)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
