"""The device's log: what a line says, for people and for programs, and a file that does not grow."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from device_runtime import logs
from mas_edge.protocol.errors import DeviceError
from tests.device_runtime.tiny_job import tiny_data
from tests.inbox import until

FIELDS = ["time", "level", "message", "job", "round", "device", "logger"]


def lines_of(formatter: logging.Formatter, *, rounds: bool = True) -> list[str]:
    """What two lines look like, the second one within a round if there is one."""
    said: list[str] = []
    context = logs.Context("pi-1")

    def say(text: str) -> None:
        record = logging.LogRecord("device_runtime.work", logging.WARNING, "", 0, text, (), None)
        assert context.filter(record)
        said.append(formatter.format(record))

    say("disconnected")
    if rounds:
        with logs.about("watch-1", "merged-0003"):
            say("paused: too hot")
            say("merged-0003: train of a, b")
        say("connected")
    return said


def test_a_line_of_json_says_when_how_grave_and_about_what() -> None:
    said: list[dict[str, Any]] = [json.loads(line) for line in lines_of(logs.JsonLines())]
    assert [list(line) for line in said] == [FIELDS] * 4
    assert [(line["job"], line["round"]) for line in said] == [
        ("", ""), ("watch-1", "merged-0003"), ("watch-1", "merged-0003"), ("watch-1", ""),
    ]  # fmt: skip
    assert {line["device"] for line in said} == {"pi-1"}
    assert said[0]["time"].endswith("Z")
    assert said[0]["level"] == "warning"


def test_a_line_for_people_names_the_round_once() -> None:
    said = [line.split(" ", 2)[2] for line in lines_of(logs.PlainLines())]
    assert said == [
        "pi-1 WARNING disconnected", "pi-1 WARNING merged-0003: paused: too hot",
        "pi-1 WARNING merged-0003: train of a, b", "pi-1 WARNING connected",
    ]  # fmt: skip


def test_another_threads_round_is_not_ours() -> None:
    said: list[str] = []
    with logs.about("watch-1", "merged-0003"):
        other = threading.Thread(target=lambda: said.extend(lines_of(logs.JsonLines(), rounds=False)))
        other.start()
        other.join()
    assert json.loads(said[0])["round"] == ""


def test_a_traceback_and_a_text_that_is_no_unicode_stay_in_one_line() -> None:
    try:
        raise ValueError("no\nway")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "file \udcff", (), sys.exc_info())
    logs.Context("pi-1").filter(record)
    line = logs.JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == "file ?"
    assert json.loads(line)["error"].endswith("ValueError: no\nway")


SPEAK = """
import logging, sys
from pathlib import Path
from device_runtime import logs
logs.FILE_BYTES = 2000
logs.configure("pi-1", logging.INFO, as_json=True, file=Path(sys.argv[1]))
for number in range(100):
    logging.getLogger("x").info("line %d", number)
"""


def test_a_log_file_begins_anew_and_the_two_before_it_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "pi-1.log"
    subprocess.run([sys.executable, "-c", SPEAK, str(file)], check=True, stderr=subprocess.DEVNULL)
    assert sorted(path.name for path in file.parent.iterdir()) == ["pi-1.log", "pi-1.log.1", "pi-1.log.2"]
    assert all(path.stat().st_size <= 2000 for path in file.parent.iterdir())
    assert json.loads(file.read_text().splitlines()[-1])["message"] == "line 99"


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DeviceError, match=r"--log-file .*taken/log: cannot be written: .*; choose another place"):
        logs.configure("pi-1", logging.INFO, file=tmp_path / "taken" / "log")


def test_a_device_process_logs_json_to_the_file_and_to_stderr(tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    file = tmp_path / "pi-1.log"
    command = [
        sys.executable, "-m", "device_runtime", "run", "--name", "pi-1", "--broker", "mqtt://127.0.0.1:9",
        "--data", str(tmp_path / "data"), "--state", str(tmp_path / "state"), "--engine", "onnxruntime",
        "--log-json", "--log-file", str(file),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: file.exists() and "nothing listens at" in file.read_text())
        finally:
            process.kill()
        assert process.stderr is not None
        heard = process.stderr.read().splitlines()
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [json.loads(line) for line in heard] == kept
    assert all(list(line) == FIELDS and line["device"] == "pi-1" for line in kept)
