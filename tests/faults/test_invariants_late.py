"""Invariants of jobs that fold late updates or train through a buffer: they hold, and what breaks them is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mas_edge.chaos.fleet import Ground, MortalFleet
from mas_edge.chaos.harness import PATIENCE_S, Reaper, draw_kills
from mas_edge.chaos.invariants import check_run
from mas_edge.chaos.nursery import Nursery
from mas_edge.chaos.witness import Witness
from mas_edge.orchestrator.broker import ManagedBroker
from tests.faults.tiny import DEVICES, write_folder, write_job

ROUNDS, MERGED = 8, 7  # a round takes as long as the quick ones: enough of them until the slow one has come, too
JOBS = {
    "late updates are folded": 'over_selection = 1.5\nlate_updates = "fold"\nstaleness_power = 1.0\nmax_staleness = 5',
    "a buffer": 'mode = "buffered"\nconcurrency = 3\nmax_staleness = 5',
}
KILLS = 3
FIRST = 1  # seed 0 kills a quick device so early that the rounds wait for the slow one
TRIES = 5  # who is late is up to the machine: the job is done with again until somebody was
SLOW = 600  # train samples of the device that is late, where the others have 32
pytestmark = pytest.mark.never


class Finished(NamedTuple):
    fleet: MortalFleet
    witness: Witness
    ground: Ground


@pytest.fixture(scope="module", params=JOBS)
def finished(
    request: pytest.FixtureRequest,
    ground: Ground,
    nursery: Nursery,
    tmp_path_factory: pytest.TempPathFactory,
    mosquitto_is_here: None,
) -> Iterator[Finished]:
    """A run whose processes were killed; of three devices two make a round, so that the slow one is late."""
    base = tmp_path_factory.mktemp("late")
    job = write_job(base / "job.toml", rounds=ROUNDS, merge_rounds=MERGED, deadline_s=10, more=JOBS[request.param])
    for seed, name in enumerate(DEVICES):
        write_folder(base / "data" / name, seed, train=SLOW if name == DEVICES[-1] else 32)
    ground = Ground(job, base / "data", ground.job_file.parent / "prepared")
    for seed in range(FIRST, FIRST + TRIES):
        found = run(ground, nursery, base / f"run-{seed}", seed)
        snapshot = found.fleet.snapshot()
        if snapshot and any(record.late for record in snapshot.rounds if record.outcome != "abandoned"):
            break
    yield found


def run(ground: Ground, nursery: Nursery, directory: Path, seed: int) -> Finished:
    """Work on the job once, with kills."""
    directory.mkdir()
    with (
        ManagedBroker(directory) as broker,
        MortalFleet(ground, nursery, directory, {"": broker.url}) as fleet,
        Witness(broker.url, ground.job.fleet) as witness,
    ):
        ground.furnish(directory)
        fleet.start_all()
        assert Reaper(fleet, broker, witness).work(draw_kills(seed, fleet.names, KILLS), PATIENCE_S) == []
    ground.keep_exports(directory)
    return Finished(fleet, witness, ground)


def test_late_updates_count_once_and_every_round_is_folded_again(finished: Finished) -> None:
    verdict = check_run(finished.fleet, finished.witness)
    assert verdict.problems == []
    assert verdict.late > 0
    assert verdict.retrained > 0
    assert verdict.refolded == MERGED + 2 * (ROUNDS - MERGED)


CASES = {
    "a late update counts with the weight of another staleness": (
        "UPDATE rounds SET record = json_set(record, '$.late[0].staleness', 9) WHERE round_id = ?", "rounds late"),
    "a late update counts in no round": (
        "UPDATE updates SET counts_in = NULL WHERE counts_in = ? AND counts_in <> round_id", "holds late reports of"),
    "a late update was folded, and its round does not say so": (
        "UPDATE rounds SET record = json_set(record, '$.late', json('[]')) WHERE round_id = ?", "its record of []"),
    "a round began from other weights": (
        "UPDATE rounds SET record = json_set(record, '$.base', json_extract(record, '$.weights')) WHERE round_id = ?",
        "not the mean of its accepted updates"),
    "the weights are those of another round": (
        "UPDATE rounds SET record = json_set(record, '$.weights', json_extract(record, '$.base')) WHERE round_id = ?",
        "not the mean of its accepted updates"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_an_invariant_of_late_updates_is_named(case: str, finished: Finished, tmp_path: Path) -> None:
    shutil.copytree(finished.fleet.directory, tmp_path / "run")
    tampered = MortalFleet(finished.ground, finished.fleet._nursery, tmp_path / "run", {})
    statement, words = CASES[case]
    db = sqlite3.connect(tampered.state / "state.db")
    (name,) = db.execute("SELECT counts_in FROM updates WHERE counts_in <> round_id ORDER BY rowid").fetchone()
    with db:
        assert db.execute(statement, (name,)).rowcount >= 1
    db.close()
    problems = check_run(tampered, finished.witness).problems
    assert any(words in problem for problem in problems), problems
