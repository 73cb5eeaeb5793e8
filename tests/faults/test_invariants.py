"""The invariants find what they are there for: a run that ended well is tampered with, each way once."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mas_edge.chaos.fleet import Ground, MortalFleet
from mas_edge.chaos.harness import PATIENCE_S, Reaper
from mas_edge.chaos.invariants import check_run
from mas_edge.chaos.nursery import Nursery
from mas_edge.chaos.witness import Witness
from mas_edge.orchestrator.broker import ManagedBroker

TWICE = "INSERT INTO updates SELECT round_id, 'zoe', offer, accepted, counts_in FROM updates LIMIT 1"
Finished = tuple[MortalFleet, Witness]


@pytest.fixture(scope="module")
def finished(
    ground: Ground, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, mosquitto_is_here: None
) -> Iterator[Finished]:
    directory = tmp_path_factory.mktemp("finished")
    with (
        ManagedBroker(directory) as broker,
        MortalFleet(ground, nursery, directory, {"": broker.url}) as fleet,
        Witness(broker.url, ground.job.fleet) as witness,
    ):
        ground.furnish(directory)
        fleet.start_all()
        assert Reaper(fleet, broker, witness).work([], PATIENCE_S) == []
        fleet.kill_all()
        yield fleet, witness


def lose_an_accepted_update(fleet: MortalFleet, ground: Ground) -> None:
    execute(fleet, "DELETE FROM updates WHERE rowid = (SELECT MIN(rowid) FROM updates)")


def count_an_update_for_two_devices(fleet: MortalFleet, ground: Ground) -> None:
    execute(fleet, TWICE)


def replace_the_weights_of_a_round(fleet: MortalFleet, ground: Ground) -> None:
    execute(
        fleet,
        "UPDATE rounds SET record = json_set(record, '$.weights', (SELECT json_extract(record, '$.weights') FROM rounds"
        " WHERE round_id = 'merged-0000')) WHERE round_id = 'merged-0001'",
    )


def train_on_other_data(fleet: MortalFleet, ground: Ground) -> None:
    for folder in ground.folders.values():
        np.save(folder / "x.npy", np.load(folder / "x.npy") + np.float32(0.5))


def stop_before_the_end(fleet: MortalFleet, ground: Ground) -> None:
    execute(fleet, "UPDATE job SET state = json_set(state, '$.phase', 'deploy')")


CASES: dict[str, tuple[Callable[[MortalFleet, Ground], None], str]] = {
    "an accepted update is lost": (lose_an_accepted_update, "was told that its report counts"),
    "an update counts twice": (count_an_update_for_two_devices, "the store holds reports of"),
    "a mean is not that of its updates": (replace_the_weights_of_a_round, "not the mean of its accepted updates"),
    "a device trained differently": (train_on_other_data, "sent other weights"),
    "the job is not done": (stop_before_the_end, "the job is not done: deploy"),
}


def execute(fleet: MortalFleet, statement: str) -> None:
    with sqlite3.connect(fleet.state / "state.db") as db:
        changed = db.execute(statement).rowcount
    db.close()
    assert changed == 1


@pytest.mark.parametrize("case", CASES)
def test_an_invariant_that_is_broken_is_named(case: str, finished: Finished, ground: Ground, tmp_path: Path) -> None:
    fleet, witness = finished
    assert check_run(fleet, witness, retrain=False).problems == []
    shutil.copytree(fleet.directory, tmp_path / "run")
    shutil.copytree(ground.job_file.parent, tmp_path / "ground")
    copy = Ground(tmp_path / "ground" / "job.toml", tmp_path / "ground" / "data", tmp_path / "ground" / "prepared")
    tampered = MortalFleet(copy, fleet._nursery, tmp_path / "run", {})
    tamper, words = CASES[case]
    tamper(tampered, copy)
    assert any(words in problem for problem in check_run(tampered, witness).problems)
