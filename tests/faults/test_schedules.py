"""A sample of schedules, and that a broken rule is noticed.

``MAS_EDGE_SCHEDULES`` says how many; ``MAS_EDGE_SCHEDULE_SEED`` where to begin.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from device_runtime.agent import Agent
from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.aggregate import Accumulator
from mas_edge.orchestrator import active
from mas_edge.orchestrator.collection import Collection, _Finished
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import gather, pack, unpack
from tests.faults.schedule_disk import Home
from tests.faults.schedule_faults import NO_FAULTS
from tests.faults.schedule_nodes import LAYOUT
from tests.faults.schedule_rules import check
from tests.faults.schedule_world import KINDS, Schedule, ScheduleError
from tests.faults.schedules import ended, play, shrink

ENOUGH = 100  # schedules in which a mistake has to be found: three seconds' worth
COUNT = int(os.environ.get("MAS_EDGE_SCHEDULES", "40"))
FIRST = int(os.environ.get("MAS_EDGE_SCHEDULE_SEED", "0"))
pytestmark = pytest.mark.never


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


@pytest.mark.parametrize("seed", range(4))
def test_a_schedule_on_a_real_disk_is_the_same_message_by_message(seed: int) -> None:
    """A real disk loses no power here, and dates its files by its own clock."""
    without = ["power cuts", "little room"]
    told: list[list[str]] = [[], []]
    for disk in (False, True):
        play(seed, told[disk].append, without, disk=disk)
    assert len(told[0]) > 100
    assert told[0] == told[1]


def test_schedules_have_faults_of_every_kind() -> None:
    counts = sum((play(seed).counts for seed in range(20)), Counter[str]())
    assert {kind for kind in KINDS if not counts[kind]} == set()


# ---------------------------------------------------------------------- the rules notice


@pytest.fixture(scope="module")
def played() -> Schedule:
    """A run that is over: its state, and what was said."""
    with ended(5) as (schedule, _):
        return schedule


def changed(home: Home, statement: str) -> Home:
    """A copy of the state with something else in it."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    home.open().backup(copy)
    assert copy.execute(statement).rowcount > 0
    return replace(home, database=copy)


BROKEN = {
    "a report that was acknowledged is gone": (
        "DELETE FROM updates WHERE rowid = (SELECT MAX(rowid) FROM updates)", "reports are not what was accepted"),
    "a report counts nowhere": (
        "UPDATE updates SET counts_in = NULL WHERE rowid = 1", "reports are not what was accepted"),
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
def test_a_broken_rule_is_noticed(case: str, played: Schedule) -> None:
    statement, reason = BROKEN[case]
    with pytest.raises(AssertionError, match=reason):
        check(changed(played.home, statement), played.accepted, played.artifacts)


def test_what_was_acknowledged_and_is_not_known_is_noticed(played: Schedule) -> None:
    with pytest.raises(AssertionError, match="acknowledged"):
        check(played.home, played.accepted | {("pi-99", "merged-0000"): 1}, played.artifacts)


def test_weights_that_are_not_the_mean_are_noticed(played: Schedule) -> None:
    last = played.artifacts.index(next(data for data in reversed(played.artifacts) if data[8:9] == b"{"))
    layout = LAYOUT.of_parts({*parts_of(played.artifacts[last])})
    moved = pack(layout, gather(layout, unpack(played.artifacts[last])) + 1)
    name, instead = digest_of(played.artifacts[last]), digest_of(moved)
    home = changed(played.home, f"UPDATE rounds SET record = replace(CAST(record AS TEXT), '{name}', '{instead}')")
    with pytest.raises(AssertionError, match="not the mean of the updates"):
        check(home, played.accepted, [*played.artifacts, moved])


def parts_of(data: bytes) -> set[str]:
    """The parts of a network whose tensors these are."""
    return {entry.part for entry in LAYOUT.entries if entry.name in unpack(data)}


def fold_where_it_was(
    there: Accumulator, update: Any, samples: Any, base: Any, now: Any, scale: float, _: float
) -> None:
    there._fold(update, samples, None, scale, 1.0)


def has_unseen(store: ArtifactStore, digest: str) -> bool:
    if there := store.path(digest).is_file():
        store._trust(store.path(digest))
    return there


def finish_unsynced(there: Collection, upload: Any) -> None:
    upload.part.finish(durable=False)
    there._finished.put(_Finished(upload, None))
    there._on_filed()


def file_regardless(there: Collection, now: float) -> Any:
    while not there._finished.empty():
        yield there._judge(*there._finished.get_nowait(), now)


MISTAKES: dict[str, tuple[object, str, Callable[..., object]]] = {
    "a report is said to be accepted and is not written down": (Store, "accept", lambda *_: None),
    "an update that is offered again is counted again": (Store, "is_accepted", lambda *_: False),
    "a restarted device forgets what it has to offer": (Agent, "_remember", lambda *_: None),
    "an orchestrator that starts again does not fold what it had": (RoundsDesk, "_fold_again", lambda *_: None),
    "a late update counts as much as one in time": (active, "staleness_weight", lambda *_: 1.0),
    "a late update is not moved to what the weights are now": (Accumulator, "fold_late", fold_where_it_was),
    "what a power cut has torn is believed": (ArtifactStore, "has", has_unseen),
    "an update counts before the clerk has synced it": (Collection, "_finish", finish_unsynced),
    "what the clerk finished for a round that is over is still waited for": (Collection, "filed", file_regardless),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_the_machines_is_found(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, instead = MISTAKES[case]
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(ScheduleError, match=r"see it again.*--seed \d+"):
        for seed in range(ENOUGH):
            play(seed)


def test_a_failing_schedule_is_shrunk_to_the_faults_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "accept", lambda *_: None)
    assert shrink(0) == [], "it fails without any fault"
    monkeypatch.undo()
    monkeypatch.setattr(RoundsDesk, "_fold_again", lambda *_: None)
    seed = next(seed for seed in range(ENOUGH) if _fails(seed))
    needed = shrink(seed)
    assert "server deaths" in needed
    assert len(needed) < len(NO_FAULTS)


def _fails(seed: int) -> bool:
    try:
        play(seed)
    except ScheduleError:
        return True
    return False
