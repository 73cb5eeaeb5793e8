"""A simulation and a real fleet behind a broker: the same job, seed and devices come to the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.weights import unpack
from mas_edge.simulation.single import simulate_job
from tests.e2e.fleet import TASKS, Fleet, job_text

DEVICES = ["ada", "bob", "cyd", "gus"]  # the data of each is its own: the letters of the names add up differently
PER_ROUND = 2  # of four devices: two groups can train side by side
TOLERANCE = 1e-5  # of the issue: another order of float64 sums, then rounded to float32


@dataclass
class Both:
    """One job, done twice."""

    fleet: Snapshot
    simulated: Snapshot
    result: dict[str, Any]  # of the simulation
    models: Path  # of the fleet
    artifacts: ArtifactStore  # of the simulation
    parallel: bool

    def final_weights(self, group: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of a group, those that the fleet ended with and those of the simulation."""
        last = [record for record in self.simulated.rounds if record.group == group and record.kind == "train"][-1]
        deployed = (self.models / f"{group}.safetensors").read_bytes()
        return unpack(deployed), unpack(self.artifacts.read(last.weights))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("mosquitto", True), marks=pytest.mark.mosquitto, id="side by side, mosquitto"),
        pytest.param(("embedded_broker", False), id="one after another, embedded"),
    ],
)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    fixture, parallel = request.param
    broker: ManagedBroker | EmbeddedBroker = request.getfixturevalue(fixture)
    text = job_text(rounds=4, merge_rounds=2, per_round=PER_ROUND, min_devices=len(DEVICES))
    text = 'engines = ["torch"]\nseed = 5\n' + text
    text = text.replace("groups = 2", f"groups = 2\nparallel_groups = {str(parallel).lower()}")
    directory = tmp_path_factory.mktemp("both")
    with Fleet(broker.url, directory, text) as fleet:
        for name in DEVICES:
            fleet.device_process(name, engine="torch")
        assert fleet.orchestrate().join() is True
        real = fleet.snapshot()
        result = simulate_job(fleet.job, directory / "data", directory / "simulated")
        simulated = view.read(directory / "simulated")
        artifacts = ArtifactStore(directory / "simulated" / "artifacts")
        yield Both(real, simulated, result, fleet.state / "models", artifacts, parallel)


def test_every_group_ends_with_the_same_weights(both: Both) -> None:
    assert both.fleet.split is not None
    for number in range(len(both.fleet.split.groups)):
        real, simulated = both.final_weights(f"group-{number}")
        assert set(real) == set(simulated)
        for name, tensor in real.items():
            np.testing.assert_allclose(simulated[name], tensor, rtol=0, atol=TOLERANCE, err_msg=name)


def test_the_tasks_are_split_alike_by_the_same_affinities(both: Both) -> None:
    real, simulated = both.fleet.split, both.simulated.split
    assert real is not None and simulated is not None
    assert simulated.groups == real.groups
    assert sorted(task for group in real.groups for task in group) == sorted(TASKS)
    assert simulated.affinity_devices == real.affinity_devices
    np.testing.assert_allclose(np.array(simulated.affinity), np.array(real.affinity), rtol=1e-4, atol=1e-6)


def test_every_round_is_trained_by_the_same_devices_to_the_same_losses(both: Both) -> None:
    real = {record.round_id: record for record in both.fleet.rounds if record.kind != "deploy"}
    simulated = {record.round_id: record for record in both.simulated.rounds}
    assert {name: record.selected for name, record in simulated.items()} == {
        name: record.selected for name, record in real.items()
    }
    assert {name for name in real if name.startswith((MERGED, "group"))} == {
        *(f"merged-{index:04d}" for index in (0, 1)),
        *(f"group-{group}-{index:04d}" for group in (0, 1) for index in (2, 3)),
    }
    for name, record in real.items():
        assert simulated[name].losses == pytest.approx(record.losses, abs=TOLERANCE)
        assert simulated[name].samples == record.samples
        assert simulated[name].multiply_accumulates == record.multiply_accumulates


def test_groups_draw_devices_of_their_own_when_they_train_side_by_side(both: Both) -> None:
    selected = {record.round_id: set(record.selected) for record in both.fleet.rounds}
    shared = [selected[f"group-0-{index:04d}"] & selected[f"group-1-{index:04d}"] for index in (2, 3)]
    if both.parallel:
        assert shared == [set(), set()]
    assert all(len(devices) == PER_ROUND for name, devices in selected.items() if name.startswith("group"))


def test_the_simulation_counts_what_the_fleet_sends(both: Both) -> None:
    """Chunks: a device that speaks up late is served alone, so that a fleet may send somewhat more."""
    real = {record.round_id: record.traffic for record in both.fleet.rounds}
    for record in both.simulated.rounds:
        traffic, counted = real[record.round_id], record.traffic
        assert counted.received_update == traffic.received_update
        assert (counted.sent_weights == 0) == (traffic.sent_weights == 0)
        assert counted.sent_weights <= traffic.sent_weights
        assert counted.sent_program <= traffic.sent_program
