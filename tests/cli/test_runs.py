"""``mas-edge runs``, ``mas-edge devices`` and ``mas-edge status --watch``: how a person finds a run and looks at it."""

from __future__ import annotations

import io
import json
import os
import pty
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from mas_edge.cli import main
from mas_edge.cli.status_watch import frame
from mas_edge.federation.control import Mode
from mas_edge.federation.flow import Phase
from mas_edge.orchestrator import view
from mas_edge.orchestrator.orders import OrderStore
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import Follower
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting.runs import age
from mas_edge.reporting.standing import standing_of
from tests.e2e.fleet import PATIENCE_S
from tests.orchestrator.small_run import JOB, STATE
from tests.reporting.small_runs import MERGED, REST, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that are done, that stand still, that have not begun, and that an older version wrote."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "older" / "state", MERGED + REST)
    write_run(folder / "newer", MERGED, "merge", replace(JOB, name="n"))
    Store(folder / "empty").close()
    (folder / "ancient").mkdir()
    with sqlite3.connect(folder / "ancient" / "state.db") as db:
        db.execute("CREATE TABLE job (id)")
        db.execute("PRAGMA user_version = 1")
    (folder / "newer" / "artifacts").mkdir()
    write_run(folder / "newer" / "artifacts" / "no-run", [])
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_runs_are_listed_newest_first_with_what_came_of_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads, newer, older, *problems = printed(capsys, "runs", folder).splitlines()
    assert heads.split() == ["RUN", "PHASE", "ROUNDS", "DEVICES", "AGE", "LOSS", "STATE"]
    assert newer.split()[:5] == ["j-1", "merge,", "stopped", "2", "of"]
    assert newer.split()[-2:] == ["-", f"{folder}/newer"]
    assert older.split()[:5] == ["j-1", "done", "5", "of", "6"]
    assert f"-78 %  {folder}/older/state" in older
    assert sorted(line.partition(": ")[0] for line in problems) == [f"{folder}/ancient", f"{folder}/empty"]
    assert any("was written by version 1 of the store" in line for line in problems)


def test_as_json_a_run_that_is_served_says_so_and_each_run_is_there_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(folder / "newer")
    found: list[dict[str, Any]] = json.loads(printed(capsys, "runs", folder, folder / "newer", "--json"))
    store.close()
    assert [(each["job"], each["phase"], each["served"]) for each in found[:2]] == [
        ("n", "merge", True), ("j", "done", False),
    ]  # fmt: skip
    assert (found[1]["rounds"], found[1]["devices"], found[1]["devices_online"]) == (5, 2, 1)
    assert found[1]["loss_change"] == pytest.approx((-0.8 - 0.75) / 2)
    assert [bool(each["problem"]) for each in found] == [False, False, True, True]


def test_a_folder_without_runs_and_one_that_is_not_there_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "runs", tmp_path) == f"no run below {tmp_path}\n"
    assert main(["runs", str(tmp_path / "nowhere")]) == 6
    assert "is no folder" in capsys.readouterr().err


def test_an_age_is_told_in_its_largest_unit() -> None:
    assert [age(1000.0, 1000.0 + s) for s in (-5, 59, 61, 7300, 200000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert age(None) == "-"


def test_devices_have_a_row_each_and_the_same_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads, one, two = printed(capsys, "devices", folder / "older").splitlines()
    assert heads.split() == ["DEVICE", "STATE", "ENGINE", "REPORTS", "REFUSED", "CPU", "ENERGY", "SEEN", "PROBLEM"]
    assert " ".join(one.split()) == "pi-1 online torch 5 of 10 0 7.5 s 5.0 J -"
    assert " ".join(two.split()) == "pi-2 away onnxruntime 5 of 10 1 7.5 s 10.0 J - its input differs"
    found = json.loads(printed(capsys, "devices", folder / "older", "--json"))
    assert [(each["name"], each["refused"]) for each in found] == [("pi-1", 0), ("pi-2", 1)]


# ---------------------------------------------------------------------- how a job stands


def told_to(state: Path, mode: Mode) -> None:
    store = OrderStore(state)
    store.begin(mode)
    store.close()


@pytest.mark.parametrize(("mode", "word"), [("held", "start"), ("paused", "resume")])
def test_a_job_that_is_held_up_says_so_and_what_lets_it_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: Mode, word: str
) -> None:
    told_to(write_run(tmp_path, MERGED, "merge"), mode)
    store = Store(tmp_path)  # it is served
    _, phase, job, rounds, *_ = printed(capsys, "status", "--state", tmp_path).splitlines()
    assert (phase, rounds.split()[0]) == ("phase    merge", "rounds")
    assert job.startswith(f"job      {mode}: ")
    assert f"mas-edge job RUN {word}" in job
    assert f"merge, {mode}, served" in printed(capsys, "runs", tmp_path)
    assert printed(capsys, "job", tmp_path) == f"the job is {mode}\n"
    said = json.loads(printed(capsys, "status", "--state", tmp_path, "--json"))
    assert (said["control"], said["served"]) == (mode, True)
    store.close()


def test_a_job_that_nobody_serves_says_so_and_which_orders_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, MERGED, "merge")
    assert "server   nobody serves this run" in printed(capsys, "status", "--state", tmp_path)
    assert printed(capsys, "job", tmp_path) == "nobody serves the job now\n"
    assert printed(capsys, "job", tmp_path, "pause").endswith("nobody serves the job now; orders that wait: pause\n")


@pytest.mark.parametrize("phase", ["done", "aborted"])
def test_a_job_that_is_over_waits_for_nobody_and_takes_no_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], phase: Phase
) -> None:
    write_run(tmp_path, MERGED, phase)
    assert "nobody serves" not in printed(capsys, "status", "--state", tmp_path)
    assert f"  {phase}  " in printed(capsys, "runs", tmp_path)
    assert printed(capsys, "job", tmp_path) == f"the job is {phase}\n"
    assert main(["job", str(tmp_path), "pause"]) == ServerError.exit_code
    assert capsys.readouterr().err == f"error: the job is {phase}: there is nothing to pause\n"
    assert json.loads(printed(capsys, "job", tmp_path, "--json"))["orders"] == []


def test_the_folder_of_a_demo_is_a_run_to_those_who_look_at_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed(capsys, "status", "--state", folder / "older").startswith("run      j-1\n")
    assert printed(capsys, "job", folder / "older") == "the job is done\n"


# ---------------------------------------------------------------------- status --watch


def test_a_frame_fits_80_columns_and_shows_who_has_a_problem_first(folder: Path) -> None:
    state = folder / "older" / "state"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(frame(view.read(state), standing_of(state), state))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split()[0] for line in lines if line.startswith("pi-")]
    assert rows == ["pi-2", "pi-1"]
    assert any("its input differs" in line for line in lines)


def finish(state: Path, phase: Phase = "done") -> None:
    """The run goes on, and ends."""
    store = Store(state)
    store.log("warning", "something happened")
    store.save(replace(STATE, phase=phase))
    store.close()


def command(state: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "mas_edge", "status", "--state", str(state), "--watch", *more]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_into_a_pipe_it_is_a_line_for_each_thing_and_ends_with_the_run(tmp_path: Path, more: list[str]) -> None:
    write_run(tmp_path, MERGED, "merge")
    with subprocess.Popen(command(tmp_path, *more), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        finish(tmp_path)
        rest = process.stdout.read()
    assert process.returncode == 0
    if more:
        one, *_, last = [json.loads(line) for line in [first, *rest.splitlines()]]
        assert (one["phase"], len(one["rounds"]), last["phase"], last["rounds"]) == ("merge", 3, "done", [])
        assert "something happened" in rest
    else:
        assert first == "run j-1: merge, 3 rounds closed\n"
        assert "warning something happened\n" in rest


def test_watching_ends_with_a_run_that_is_aborted(tmp_path: Path) -> None:
    write_run(tmp_path, MERGED, "merge")
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        finish(tmp_path, "aborted")
        assert process.wait(PATIENCE_S) == 0


def test_on_a_terminal_it_is_a_picture_that_ends_with_the_run(tmp_path: Path) -> None:
    write_run(tmp_path, MERGED, "merge")
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    with subprocess.Popen(command(tmp_path), stdout=its, stderr=its, env=environment) as process:
        os.close(its)
        seen = b""
        while b"merge" not in seen:
            seen += os.read(ours, 65536)
        finish(tmp_path)
        try:
            while more := os.read(ours, 65536):
                seen += more
        except OSError:  # on Linux the end of a terminal
            pass
    os.close(ours)
    assert process.returncode == 0
    assert b"something happened" in seen
    assert b"done" in seen


def test_a_follower_sees_what_is_new_and_decodes_no_round_twice(tmp_path: Path) -> None:
    follower = Follower(write_run(tmp_path, MERGED, "merge"))
    first = follower.look()
    assert follower.look() is first
    finish(tmp_path)
    last = follower.look()
    follower.close()
    assert (first.phase, last.phase, last.events[-1].text) == ("merge", "done", "something happened")
    assert all(one is other for one, other in zip(first.rounds, last.rounds, strict=True))


def test_watching_what_is_not_there_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(tmp_path), "--watch"]) == 6
    assert "no state in" in capsys.readouterr().err
