from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mas_edge.cli import data, main
from mas_edge.job import load_job


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


def test_rooms_are_rendered_once_and_the_job_and_the_sheet_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["rooms", "--out", str(tmp_path / "rooms"), "--devices", "2", "--samples", "2", "--test-samples", "3"]
    assert command(*options) == 0
    first = capsys.readouterr().out
    assert "2 device folders, rendered in" in first
    assert "4 training and 6 test samples; no room that is tested on is trained on" in first
    assert f"job file: {tmp_path / 'rooms' / 'job.toml'}" in first
    assert f"contact sheet: {tmp_path / 'rooms' / 'contact-sheet.png'}" in first
    assert command(*options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["created"] is False
    assert printed["devices"] == {f"building-0{i}": {"train": 2, "test": 3} for i in (1, 2)}
    assert load_job(Path(printed["job"])).federation.min_devices == 2
    assert Path(printed["sheet"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["rooms", "--size", "48"], "--size is 48; allowed: one of 32, 64, 128"),
        (["rooms", "--tasks", "xyz"], "--tasks is 'xyz'; allowed: letters out of sdnkterca, each once"),
        (["rooms", "--devices", "0"], "--devices is 0"),
        (["fashion", "--alpha", "0"], "--alpha is 0.0"),
        (["fashion", "--source", "nowhere"], "apt install dataset-fashion-mnist"),
    ],
)
def test_what_cannot_be_made_ends_with_4_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert main(["data", argv[0], "--out", str(tmp_path / "out"), *argv[1:]]) == 4
    printed = capsys.readouterr().err
    assert words in printed
    assert printed.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [[], ["watch"], ["phone", "--out", "x"], ["rooms"], ["fashion", "--alpha", "few"]])
def test_a_wrong_command_line_ends_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(*argv)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
