"""Staged deployment on a real broker, with devices as processes: to everybody, halted by a bad model, rolled back."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.slots import models_in_use
from mas_edge.cli import main
from mas_edge.federation.flow import JobState
from mas_edge.federation.rollout import place_of
from mas_edge.orchestrator.rollout_store import Remembered, remembered
from mas_edge.orchestrator.store import open_database
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.weights import Entry, Layout, pack, unpack
from tests.brokers import Running
from tests.e2e.fleet import PATIENCE_S, Fleet, job_text, kill, until

NAMES = sorted(["pi-1", "pi-2", "pi-3"], key=lambda name: place_of(0, name))  # in the order of their draw
STAGES = ["--to", "1%", "--then", "50%", "--then", "100%", "--soak", "0.5"]

Models = dict[str, str]  # digests by group


class Runs:
    """Two runs of one fleet, one after the other, on the same devices."""

    def __init__(self, url: str, directory: Path) -> None:
        text = job_text(rounds=2, merge_rounds=1, per_round=2, min_devices=len(NAMES))
        self.fleet, self._job = Fleet(url, directory, text), text
        self.processes = {name: self.fleet.device_process(name, engine="onnxruntime") for name in NAMES}

    def begin(self, name: str, seed: int) -> None:
        """Another run: its orchestrator stays when the job is done."""
        self.fleet.state = self.fleet.directory / name
        self.fleet.job_file.write_text(f"seed = {seed}\n{self._job}")
        self.go_on()

    def go_on(self) -> None:
        self.serving = self.fleet.serve("--stay")

    def stop(self) -> None:
        self.serving.send_signal(signal.SIGINT)
        self.serving.wait(PATIENCE_S)

    def order(self, *words: str) -> int:
        """``mas-edge rollout`` as an operator types it."""
        return main(["rollout", str(self.fleet.state), *words])

    def reaches(self, mode: str) -> Remembered:
        until(lambda: self.stored().state.mode == mode, f"a rollout that is {mode}")
        return self.stored()

    def stored(self) -> Remembered:
        found = remembered(self.fleet.state)
        assert found is not None
        return found

    def phase(self) -> str:
        return self.fleet.snapshot().phase

    def made(self) -> Models:
        """The models of the run."""
        return {group.name: group.models["onnx"].artifact for group in self.job_state().groups}

    def in_use(self) -> dict[str, Models]:
        """What the devices answer with."""
        return {name: models_in_use(self.fleet.device_state(name) / "deployed") for name in NAMES}

    def job_state(self) -> JobState:
        db = open_database(self.fleet.state)
        try:
            return msgspec.json.decode(db.execute("SELECT state FROM job").fetchone()[0], type=JobState)
        finally:
            db.close()

    def promise(self, golden: Manifest) -> Manifest:
        """Have the run promise other outputs of its first group's model than before; returns what it had promised."""
        state = self.job_state()
        first = state.groups[0]
        groups = [msgspec.structs.replace(first, golden=golden), *state.groups[1:]]
        db = open_database(self.fleet.state)
        db.execute("UPDATE job SET state = ?", (msgspec.json.encode(msgspec.structs.replace(state, groups=groups)),))
        db.close()
        assert first.golden is not None
        return first.golden

    def wrong_golden(self) -> Manifest:
        """Golden samples as if the model had been spoiled between its verification and its release."""
        golden = self.job_state().groups[0].golden
        assert golden is not None
        artifacts = ArtifactStore(self.fleet.state / "artifacts")
        tensors = {name: tensor + (name != "x") for name, tensor in unpack(artifacts.read(golden.artifact)).items()}
        layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
        return artifacts.put(pack(layout, np.concatenate([tensor.ravel() for tensor in tensors.values()])))


@pytest.fixture
def runs(running_broker: Running, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(running_broker.url, tmp_path)
    with runs.fleet:
        yield runs


def test_good_models_reach_everybody_and_a_bad_one_nobody(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    # A good one, asked for before it is there; the orchestrator is killed on the way.
    runs.begin("one", seed=0)
    until(lambda: runs.phase() != "prepare", "the beginning of the job")
    assert runs.order(*STAGES, "--max-regression", "100000%") == 0  # each device compares with the model of all tasks
    until(lambda: runs.stored().standings != {}, "the first device")
    kill(runs.serving)
    assert set(runs.stored().standings) <= set(NAMES[:2])
    runs.go_on()
    runs.reaches("complete")
    first = runs.made()
    until(lambda: runs.phase() == "done", "the end of the job")
    assert (runs.fleet.state / "models" / "merged.onnx").is_file()
    assert runs.in_use() == dict.fromkeys(NAMES, first)
    capsys.readouterr()
    assert runs.order("status", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"]["mode"] == "complete"
    assert runs.order("pause") == ServerError.exit_code
    assert "rollout 1 is complete: it cannot pause" in capsys.readouterr().err
    runs.stop()

    # The next run's first model does not do what was promised: the first device finds out, and nobody else is told.
    runs.begin("two", seed=1)
    until(lambda: runs.phase() != "prepare", "the beginning of the job")
    assert runs.order(*STAGES) == 0
    assert runs.order("pause") == 0
    until(lambda: runs.phase() == "deploy", "the models")
    runs.stop()
    promised = runs.promise(runs.wrong_golden())
    runs.go_on()
    assert runs.order("resume") == 0
    halted = runs.reaches("halted")
    assert set(halted.standings) == {NAMES[0]}
    assert "differ from the golden ones" in halted.state.reason
    second = runs.made()
    assert set(first.values()).isdisjoint(second.values())
    runs.stop()
    assert runs.in_use()[NAMES[0]]["group-0"] == first["group-0"]
    assert {name: runs.in_use()[name] for name in NAMES[1:]} == dict.fromkeys(NAMES[1:], first)

    # The mistake was the promise. Who refused the model never tries it again; an operator goes on without this device.
    runs.promise(promised)
    runs.go_on()
    assert runs.order("rollback") == 0
    runs.reaches("rolled_back")
    assert runs.in_use() == dict.fromkeys(NAMES, first)
    assert runs.order(*STAGES) == 0
    again = runs.reaches("halted")
    assert "refused before: outputs differ" in again.state.reason
    assert runs.order("resume") == 0
    runs.reaches("complete")
    assert {name: runs.in_use()[name] for name in NAMES[1:]} == dict.fromkeys(NAMES[1:], second)

    # And back, with one device away meanwhile.
    kill(runs.processes[NAMES[2]])
    assert runs.order("rollback") == 0
    until(lambda: runs.in_use()[NAMES[1]] == first, "the rollback of who is there")
    assert runs.stored().state.mode == "rolling_back"
    runs.fleet.device_process(NAMES[2], engine="onnxruntime")
    runs.reaches("rolled_back")
    assert runs.in_use() == dict.fromkeys(NAMES, first)
    runs.stop()
    assert "Traceback" not in runs.fleet.log("serve.log")
