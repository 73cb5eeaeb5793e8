"""A sample of schedules, and that a broken rule is noticed.

``MAS_EDGE_SCHEDULES`` says how many; ``MAS_EDGE_SCHEDULE_SEED`` where to begin.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.agent import Agent
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import gather, pack, unpack
from tests.faults.schedule_nodes import LAYOUT, Server
from tests.faults.schedule_rules import check
from tests.faults.schedules import NO_FAULTS, Schedule, ScheduleError, play, shrink

COUNT = int(os.environ.get("MAS_EDGE_SCHEDULES", "40"))
FIRST = int(os.environ.get("MAS_EDGE_SCHEDULE_SEED", "0"))


@pytest.mark.parametrize("part", range(4))
def test_every_job_ends_with_every_accepted_report_counted_once(part: int) -> None:
    failures = []
    for seed in range(FIRST + part, FIRST + COUNT, 4):
        try:
            play(seed)
        except ScheduleError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


def test_the_same_seed_is_the_same_schedule_in_every_process() -> None:
    """Down to every message: with another order of Python's sets, too."""
    told = [
        subprocess.run(
            [sys.executable, "-m", "tests.faults.schedules", "--seed", "3", "--trace"], check=True,
            capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": hashes},
        ).stdout.splitlines()[:-1]  # the last line tells how fast it was
        for hashes in ("1", "2")
    ]  # fmt: skip
    assert len(told[0]) > 100
    assert told[0] == told[1]


def test_schedules_have_faults() -> None:
    stories = [play(seed) for seed in range(6)]
    assert sum(story.deaths for story in stories) > 0
    assert sum(story.cuts for story in stories) > 0


# ---------------------------------------------------------------------- the rules notice


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Schedule]:
    """A run that is over: its state, and what was said."""
    directory = tmp_path_factory.mktemp("played")
    schedule = Schedule(5, directory)
    schedule.run()
    return directory / Server.NAME, schedule


def changed(source: Path, target: Path, statement: str) -> Path:
    """A copy of the state with something else in it."""
    target.mkdir()
    old, new = sqlite3.connect(source / "state.db"), sqlite3.connect(target / "state.db", isolation_level=None)
    old.backup(new)
    assert new.execute(statement).rowcount > 0
    old.close()
    new.close()
    return target


BROKEN = {
    "a report that was acknowledged is gone": (
        "DELETE FROM updates WHERE rowid = (SELECT MAX(rowid) FROM updates)", "reports are not what was accepted"),
    "a job is not done": (
        "UPDATE job SET state = CAST(replace(CAST(state AS TEXT), '\"phase\":\"done\"', '\"phase\":\"deploy\"')"
        " AS BLOB)",
        "deploy"),
    "a round is missing": ("DELETE FROM rounds WHERE round_id = 'merged-0000'", "missing"),
    "a round is open": ("UPDATE rounds SET closed = NULL WHERE number = 1", "a round is open"),
    "weights of another round": (
        "UPDATE rounds SET record = (SELECT record FROM rounds WHERE round_id = 'merged-0000')"
        " WHERE round_id LIKE 'group-0-%'", "closed twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_noticed(case: str, played: tuple[Path, Schedule], tmp_path: Path) -> None:
    directory, schedule = played
    statement, reason = BROKEN[case]
    broken = changed(directory, tmp_path / "broken", statement)
    with pytest.raises(AssertionError, match=reason):
        check(broken, schedule.accepted, schedule.artifacts)


def test_what_was_acknowledged_and_is_not_known_is_noticed(played: tuple[Path, Schedule]) -> None:
    directory, schedule = played
    with pytest.raises(AssertionError, match="acknowledged"):
        check(directory, schedule.accepted | {("pi-99", "merged-0000")}, schedule.artifacts)


def test_weights_that_are_not_the_mean_are_noticed(played: tuple[Path, Schedule]) -> None:
    directory, schedule = played
    first = schedule.artifacts[0]
    moved = pack(LAYOUT, gather(LAYOUT, unpack(first)) + 1)
    assert digest_of(moved) != digest_of(first)
    with pytest.raises(AssertionError, match="not the mean of the updates"):
        check(directory, schedule.accepted, [moved, *schedule.artifacts[1:]])


MISTAKES = {
    "a report is said to be accepted and is not written down": (Store, "accept", lambda *_: None),
    "a restarted device forgets what it has to offer": (Agent, "_remember", lambda *_: None),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_machines_is_found(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, instead = MISTAKES[case]
    monkeypatch.setattr(owner, method, instead)
    with pytest.raises(ScheduleError, match="see it again"):
        for seed in range(20):
            play(seed)


def test_a_failing_schedule_is_shrunk_to_the_faults_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "accept", lambda *_: None)
    assert shrink(0) == [], "it fails without any fault"
    monkeypatch.undo()
    monkeypatch.setattr(RoundsDesk, "_fold_again", lambda *_: None)
    seed = next(seed for seed in range(100) if _fails(seed))
    needed = shrink(seed)
    assert "server deaths" in needed
    assert len(needed) < len(NO_FAULTS)


def _fails(seed: int) -> bool:
    try:
        play(seed)
    except ScheduleError:
        return True
    return False
