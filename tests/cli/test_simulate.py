"""``mas-edge simulate``: what a person sees, what is written, and what a wrong command says."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from mas_edge.cli import main, simulate
from mas_edge.federation.flow import JobState
from mas_edge.federation.methods import names
from tests.orchestrator.small_run import group_state
from tests.simulation.tiny import write_data, write_job


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job, and the data of three devices."""
    directory = tmp_path_factory.mktemp("place")
    write_job(directory)
    write_data(directory / "data", 3)
    return directory


def words(place: Path, *more: str | Path) -> list[str]:
    return ["simulate", str(place / "job.toml"), "--data", str(place / "data"), *map(str, more)]


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit code and the one line that a wrong command ends with."""
    code = main(argv)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return code, said.err


def test_the_page_has_every_task_its_cost_and_the_groups_and_the_json_the_same_numbers(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "mas-2.json"
    assert main(words(place, "--method", "mas-2", "--seed", "3", "--json", out)) == 0
    said = capsys.readouterr()
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    outcome = result["outcome"]
    assert (result["job"]["seed"], result["job"]["federation"]["groups"]) == (3, 2)
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line}
    for name, task in outcome["tasks"].items():
        numbers = [task["loss"], task["normalised"], task["raw"], task["metric"]]
        assert rows[name] == [f"{number:.4f}" for number in numbers]
    assert f"total: normalised {outcome['normalised_total']:.4f}" in said.out
    assert f"groups: {' | '.join(', '.join(group) for group in outcome['groups'])}" in said.out
    assert "device CPU: " in said.out
    assert "J (estimated: CPU seconds" in said.out
    phases = ["initial evaluation", "merge", "merged evaluation", "split", "groups", "group evaluation", "export"]
    assert [line for line in said.err.splitlines() if line in phases] == phases
    assert not list(out.parent.glob("*.tmp"))


def test_quiet_says_nothing_but_the_page_and_a_kept_run_is_not_run_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = words(place, "--method", "all-in-one", "--state", tmp_path / "state", "--quiet")
    command += ["--tensorboard", str(tmp_path / "board")]
    assert main(command) == 0
    ((events,),) = [list(folder.glob("events.*")) for folder in (tmp_path / "board").iterdir() if folder.is_dir()]
    assert b"train_loss/level" in events.read_bytes()
    first = capsys.readouterr()
    assert first.err == ""
    assert main(command) == 0
    assert capsys.readouterr().out == first.out


def test_a_number_of_groups_is_given_beside_the_method_and_auto_says_why(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "auto.json"
    assert main(words(place, "--groups", "auto", "--json", out, "--quiet")) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["job"]["federation"]["groups"] == "auto"
    assert [row["groups"] for row in result["split"]["candidates"]] == [1, 2, 3]
    assert f"why: {result['split']['reason']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--method", "mas"], 3, "method 'mas' is not known; allowed: one-by-one"),
        (["--method", "mas-9"], 3, "method mas-9: federation.groups is 9; allowed: 'auto', or 1 to"),
        (["--method", "all-in-one", "--groups", "2"], 3, "--groups 2 does not go with the method 'all-in-one'"),
        (["--seed", "-1"], 3, "seed is -1"),
        (["--data", "nowhere"], 4, "nowhere holds no data folder: expected DIR/DEVICE/data.toml"),
    ],
)
def test_a_wrong_choice_is_one_clear_error(
    place: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, said: str
) -> None:
    got, line = refused(capsys, *words(place, *more))
    assert got == code
    assert said in line


def test_a_job_file_that_is_not_there_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "simulate", "nowhere.toml", "--data", str(place / "data"))
    assert (code, "nowhere.toml: cannot be read" in said) == (3, True)


def test_devices_that_cannot_serve_are_one_clear_error(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_job(tmp_path, ("input_shape = [2, 16]", "input_shape = [2, 32]"))
    command = ["simulate", str(tmp_path / "job.toml"), "--data", str(place / "data"), "--quiet"]
    code, said = refused(capsys, *command, "--method", "standalone")
    assert code == 6
    assert "the virtual devices cannot serve this job" in said
    assert "[2, 16]" in said
    assert "[2, 32]" in said


def test_a_result_that_cannot_be_written_is_one_clear_error(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    command = words(place, "--method", "standalone", "--quiet", "--json", tmp_path / "file" / "out.json")
    code, said = refused(capsys, *command)
    assert code == 6
    assert "cannot write" in said
    assert "out.json: File exists: check" in said


class Terminal(io.StringIO):
    """A screen that keeps what was written."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_rounds_are_counted_by_the_network_that_is_furthest_behind() -> None:
    screen = Terminal()
    shown = simulate.progress_on(screen)
    merged = group_state(next_round=1, end_round=2)
    ahead, behind = (group_state(name, next_round=at, end_round=5) for name, at in (("group-0", 4), ("group-1", 3)))
    shown(JobState(run_id="j", phase="merge", merged=merged))
    shown(JobState(run_id="j", phase="split", merged=merged))
    shown(JobState(run_id="j", phase="groups", merged=merged, groups=[ahead, behind]))
    lines = [line.strip() for line in screen.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    assert lines == ["merge: round 1 of 2", "split", "groups: round 3 of 5"]


def test_the_help_names_every_method() -> None:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers()
    simulate.add_parser(verbs)
    help_text = " ".join(verbs.choices["simulate"].format_help().split())
    assert all(name in help_text for name in names())
