"""Every line of the server's log has its job, round and device, for people and as JSON, and the file does not grow."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mas_edge.protocol.errors import ServerError
from mas_edge.reporting import logs
from tests.orchestrator.small_desk import SmallDesk, a_job


class Said(io.StringIO):
    """What reaches stderr of a process whose log is configured."""

    def configure(self, **settings: Any) -> None:
        """As at the start of a process: nobody listens to the root logger yet."""
        logging.getLogger().handlers[:] = []
        with contextlib.redirect_stderr(self):
            logs.configure(logging.INFO, **settings)


@pytest.fixture
def said() -> Iterator[Said]:
    root, output = logging.getLogger(), Said()
    level = root.level
    yield output
    for handler in [each for each in root.handlers if isinstance(each.formatter, (logs.JsonLines, logs.PlainLines))]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def speak() -> None:
    log = logging.getLogger("mas_edge.test")
    log.info("broker: %s", "here")
    log.warning("merged-0003: pi is out", extra={"job": "watch-1", "round": "merged-0003", "device": "pi"})
    log.info("two\nlines “quoted”")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed", extra={"device": "pi"})


def test_as_json_every_line_is_one_object_with_every_field(said: Said) -> None:
    said.configure(as_json=True)
    speak()
    lines = [json.loads(line) for line in said.getvalue().splitlines()]
    fields = ["time", "level", "message", "job", "round", "device", "logger"]
    assert [list(line) for line in lines] == [fields, fields, fields, [*fields, "error"]]
    assert [(line["level"], line["message"], line["job"], line["round"], line["device"]) for line in lines] == [
        ("info", "broker: here", "", "", ""),
        ("warning", "merged-0003: pi is out", "watch-1", "merged-0003", "pi"),
        ("info", "two\nlines “quoted”", "watch-1", "", ""),
        ("error", "failed", "watch-1", "", "pi"),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    assert lines[3]["error"].endswith("ValueError: why")


def test_for_people_the_fields_stand_once_before_the_message(said: Said) -> None:
    said.configure()
    speak()
    lines = [line.partition(",")[2][4:] for line in said.getvalue().splitlines() if re.match(r"\d{4}-", line)]
    assert lines == [
        "INFO broker: here", "WARNING [watch-1 pi] merged-0003: pi is out", "INFO [watch-1] two",
        "ERROR [watch-1 pi] failed",
    ]  # fmt: skip


def test_a_file_has_the_same_lines_and_is_renamed_before_it_is_too_large(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    file = tmp_path / "deep" / "server.log"
    said.configure(as_json=True, file=file)
    for _ in range(30):
        speak()
    files = sorted(file.parent.iterdir())
    assert len(files) == 1 + logs.OLDER_FILES
    assert all(path.stat().st_size <= 2000 for path in files)
    assert said.getvalue().endswith(file.read_text(encoding="utf-8"))


def test_a_file_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerError, match=r"--log-file .*cannot be written"):
        logs.configure(logging.INFO, file=tmp_path / "file" / "server.log")


def test_the_orchestrator_names_run_round_and_device_of_what_it_logs(said: Said, tmp_path: Path) -> None:
    said.configure(as_json=True)
    desk = SmallDesk(tmp_path, a_job(devices_per_round=2, over_selection=1.0))
    desk.arrive("pi-1", "pi-2")
    desk.turn()
    desk.refuse("pi-1")
    desk.report("pi-2")
    desk.turn()
    run = desk.desk.state.run_id
    desk.close()
    lines = {line["message"].partition(",")[0]: line for line in map(json.loads, said.getvalue().splitlines())}
    named = {text: (line["job"], line["round"], line["device"]) for text, line in lines.items()}
    assert named["merged-0000: train on pi-1"] == (run, "merged-0000", "")
    assert named["merged-0000: complete"] == (run, "merged-0000", "")
    [out] = [about for text, about in named.items() if "pi-1 is out" in text]
    assert out == (run, "merged-0000", "pi-1")
