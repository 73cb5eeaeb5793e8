"""Two hundred devices on one broker in one process, and a real orchestrator that gives a round to some of them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.cli import main
from mas_edge.federation.flow import GroupState, JobState
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import read
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import BrokerError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import ENCODER, Entry, Layout, pack, unpack
from mas_edge.simulation.swarm import Swarm
from tests.e2e.fleet import Actor, until

DEVICES, SELECTED = 200, 20
LAYOUT = Layout([Entry("encoder.w", [50_000], ENCODER)])  # 200 KB: four chunks
TASKS = ["a", "b"]


def prepared(state: Path, fleet: str) -> Job:
    """A job whose only network is ready for its one round."""
    federation = Federation(
        rounds=1, merge_rounds=1, groups=2, devices_per_round=SELECTED, min_devices=DEVICES, over_selection=1.0,
    )  # fmt: skip
    tasks = [Task(name=name, kind="value") for name in TASKS]
    job = Job(name="load", fleet=fleet, data=Data(input_shape=[1]), tasks=tasks, federation=federation)
    artifacts = ArtifactStore(state / "artifacts")
    group = GroupState(
        name="all", tasks=TASKS,
        programs={"torch": artifacts.put(program_format.dump(Program(1, "all", TASKS, 1, [1], {}, LAYOUT, {})))},
        weights=artifacts.put(pack(LAYOUT, np.zeros(LAYOUT.size, np.float32))), next_round=0, end_round=2, last_round=2,
    )  # fmt: skip
    store = Store(state)
    store.begin(job, JobState(run_id="load-1", phase="groups", groups=[group]))
    store.close()
    return job


@pytest.mark.e2e
def test_a_round_goes_through_a_swarm_and_averages_what_each_device_added(
    mosquitto: ManagedBroker, tmp_path: Path
) -> None:
    job = prepared(tmp_path / "state", f"swarm-{tmp_path.name[-8:]}".replace("_", "-"))
    swarm = Swarm(mosquitto.url, job.fleet, DEVICES, tmp_path / "swarm", tasks=TASKS, input_shape=[1])
    threads = threading.active_count()
    devices = Actor(lambda stop: swarm.run(stop.is_set), "swarm")
    until(lambda: swarm.connected == DEVICES, "all devices are connected")
    assert threading.active_count() <= threads + 1  # not one for each device
    orchestrator = Actor(lambda stop: Orchestrator(job, tmp_path / "state", mosquitto.url).run(stop), "orchestrator")
    until(lambda: bool(read(tmp_path / "state").rounds), "the end of the round")
    orchestrator.stop()
    devices.stop()

    [record, *_] = read(tmp_path / "state").rounds
    assert (record.outcome, len(record.reports)) == ("complete", SELECTED)
    added = [int(name.rpartition("-")[2]) + 1 for name in record.reports]
    after = unpack(ArtifactStore(tmp_path / "state" / "artifacts").read(record.weights))["encoder.w"]
    np.testing.assert_allclose(after, np.mean(added), rtol=1e-6)


def test_a_swarm_leaves_and_the_orchestrator_hears_of_it(mosquitto: ManagedBroker, tmp_path: Path) -> None:
    job = prepared(tmp_path / "state", f"leaving-{tmp_path.name[-8:]}".replace("_", "-"))
    job_state = tmp_path / "state"
    orchestrator = Actor(lambda stop: Orchestrator(job, job_state, mosquitto.url).run(stop), "orchestrator")
    swarm = Swarm(mosquitto.url, job.fleet, 5, tmp_path / "swarm", tasks=TASKS, input_shape=[1], first=7)
    devices = Actor(lambda stop: swarm.run(stop.is_set), "swarm")
    until(lambda: [d.online for d in read(job_state).devices] == [True] * 5, "five devices are there")
    assert sorted(d.name for d in read(job_state).devices)[0] == "swarm-00007"
    devices.stop()
    until(lambda: [d.online for d in read(job_state).devices] == [False] * 5, "five devices are gone")
    orchestrator.stop()


def test_a_swarm_wants_a_broker_and_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BrokerError, match="not valid"):
        Swarm("nowhere", "fleet", 1, tmp_path, tasks=TASKS, input_shape=[1])
    with pytest.raises(SystemExit):
        main(["swarm", "job.toml", "--broker", "mqtt://h", "--devices", "0"])
    assert "expected a number from 1 to 100000" in capsys.readouterr().err
