"""Carrying out plans: within a memory limit, when memory runs out, and when training leaves the finite numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.engines.base import Runner
from device_runtime.host import Host
from device_runtime.last_words import LastWords
from device_runtime.memory import resident_bytes
from device_runtime.power.estimate import Estimate
from device_runtime.power.meter import Meter
from device_runtime.work import Bench, Programs
from mas_edge.export.gate import released
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.export.trace import trace_program
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError, MessageError
from mas_edge.protocol.memory import memory_needed
from mas_edge.protocol.messages import HealthCheck, Plan, Training, Weights
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import pack
from tests.device_runtime.boards import write
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = tiny_job()
TRAINING = Training(learning_rate=0.1, momentum=0.9, weight_decay=0.0, local_epochs=1, seed=0, task_weights={})


@pytest.fixture(scope="module")
def program() -> Program:
    return program_format.load(released(trace_program(JOB, "merged", TASKS), "torch", JOB, None).program)


class Place:
    """A bench with its store, and plans for it."""

    def __init__(self, directory: Path, program: Program) -> None:
        self.store = ArtifactStore(directory / "artifacts")
        self.deployed = directory / "deployed"
        self.programs = Programs("torch")
        self.data = tiny_data(directory / "data")
        self.bench = Bench(self.data, self.store, self.programs, self.deployed)
        self.program = program
        network = build(JOB, TASKS)
        self.vector, self.layout = vector_of(network), layout_of(network)

    def plan(self, **changes: Any) -> Plan:
        fields: dict[str, Any] = {
            **ORCHESTRATOR, "job": "j", "round_id": "merged-0000", "kind": "train", "group": "merged", "tasks": TASKS,
            "deadline_s": 100.0, "program": self.store.put(program_format.dump(self.program)), "training": TRAINING,
            "weights": Weights(manifest=self.store.put(pack(self.layout, self.vector))),
        }  # fmt: skip
        return Plan(**{**fields, **changes})

    def deployment(self, **changes: Any) -> Plan:
        model = self.store.put(export_inference(JOB, TASKS, self.vector))
        golden = self.store.put(golden_of(JOB, TASKS, self.vector, seed=1))
        health = HealthCheck(golden=golden, tolerance=1e-3, max_latency_s=1e6)
        fields: dict[str, Any] = {"kind": "deploy", "program": model, "health": health, "group": "group-0"}
        return self.plan(**{**fields, **changes})

    def run_out(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        """From now on the engine has not enough memory for a training step."""
        engine = self.programs.engine
        load = engine.load

        class Starved:
            def __init__(self, runner: Runner) -> None:
                self._runner = runner

            def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                if method == "train_step":
                    raise error
                return self._runner.run(method, feeds)

        monkeypatch.setattr(engine, "load", lambda program: Starved(load(program)))


def go_on() -> bool:
    return False


@pytest.fixture
def place(tmp_path: Path, program: Program) -> Place:
    return Place(tmp_path, program)


def test_the_report_says_which_batch_was_trained(place: Place) -> None:
    outcome = place.bench.carry_out(place.plan(), go_on)
    assert (outcome.report.batch_size, outcome.report.engine) == (JOB.federation.batch_size, "torch")


def test_the_report_says_the_joules_of_each_activity_and_what_they_are_made_of(place: Place) -> None:
    meter = Meter([], Estimate(2.0, 0.5, "a test"))
    bench = Bench(place.data, place.store, place.programs, place.deployed, meter)
    training = replace(TRAINING, affinity_period=1)
    report = bench.carry_out(place.plan(training=training), go_on).report
    assert report.energy is not None
    assert (report.energy.quality, report.energy.error) == ("estimated", 0.5)
    assert min(report.energy.joules[activity] for activity in ("train", "affinity", "other")) > 0
    assert report.energy.joules["affinity"] == pytest.approx(2.0 * report.affinity_cpu_seconds, rel=0.2)
    # The whole is more: reading the data belongs to no activity, and on a busy machine it is a third.
    assert sum(report.energy.joules[activity] for activity in ("train", "affinity")) <= 2.0 * report.cpu_seconds
    assert bench.carry_out(place.plan(kind="evaluate"), go_on).report.energy.joules["evaluate"] > 0  # type: ignore[union-attr]


def test_a_limit_leaves_to_programs_what_the_process_with_its_engine_does_not_hold(place: Place) -> None:
    place.bench.limit(4 * 1024**3)
    assert place.bench.step_memory == pytest.approx(4 * 1024**3 - resident_bytes(), abs=32 * 1024**2)


def test_a_limit_that_the_engine_alone_exceeds_is_refused_with_what_to_do(place: Place) -> None:
    with pytest.raises(
        DeviceError, match=r"--memory 10M is not enough: with the engine torch loaded .* smaller engine"
    ):
        place.bench.limit(10 * 1024**2)


OUT_OF_MEMORY = [
    MemoryError(),
    DeviceError("method 'train_step' failed in the torch engine: DefaultCPUAllocator: can't allocate memory: 9 GB"),
    DeviceError("method 'train_step' of program 'merged' failed in ONNX Runtime: std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_device_that_runs_out_of_memory_says_so_and_allows_less_than_that_program_takes(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    place.run_out(monkeypatch, error)
    with pytest.raises(DeviceError, match="not enough memory for batches of 4 samples: a smaller one is asked for"):
        place.bench.carry_out(place.plan(), go_on)
    assert place.bench.step_memory == memory_needed(place.program) - 1
    evaluated = place.bench.carry_out(place.plan(kind="evaluate", training=None), go_on)  # the bench works on
    assert evaluated.report.samples["mean"] == 6


def test_a_limit_never_grows_when_memory_runs_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.bench.step_memory = 1000
    place.run_out(monkeypatch, MemoryError())
    for _ in range(2):
        before = place.bench.step_memory
        with pytest.raises(DeviceError):
            place.bench.carry_out(place.plan(), go_on)
        assert 0 < place.bench.step_memory < before


@pytest.mark.parametrize("batch", [1, 4])
def test_a_program_that_does_not_say_what_it_takes_or_cannot_be_smaller_changes_no_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    if batch == 4:
        methods = {name: replace(method, memory_bytes=0) for name, method in place.program.methods.items()}
        place.program = replace(place.program, methods=methods)
    else:
        place.program = replace(place.program, batch_size=1)
    place.run_out(monkeypatch, MemoryError())
    with pytest.raises(DeviceError, match="give this device more memory"):
        place.bench.carry_out(place.plan(), go_on)
    assert (place.bench.step_memory == 0) == (batch == 4)


def test_another_error_of_the_engine_is_passed_on_and_changes_no_limit(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run_out(monkeypatch, DeviceError("the engine is tired"))
    with pytest.raises(DeviceError, match="the engine is tired"):
        place.bench.carry_out(place.plan(), go_on)
    assert place.bench.step_memory == 0


def test_an_update_that_is_not_finite_is_never_offered(place: Place) -> None:
    wild = replace(TRAINING, learning_rate=1e30, local_epochs=3)
    with pytest.raises(DeviceError, match=r"not finite|no longer finite"):
        place.bench.carry_out(place.plan(training=wild), go_on)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_make_no_update(place: Place, value: float) -> None:
    place.vector = place.vector.copy()
    place.vector[0] = value
    with pytest.raises(DeviceError, match="no longer finite"):
        place.bench.carry_out(place.plan(), go_on)


def test_a_healthy_model_is_put_in_its_place_and_the_engine_that_ran_it_is_told(place: Place) -> None:
    plan = place.deployment()
    report = place.bench.carry_out(plan, go_on).report
    assert (report.healthy, report.health_reason, report.engine) == (True, "", "onnxruntime")
    active = place.deployed / "group-0" / "active.onnx"
    assert active.read_bytes() == place.store.read(plan.program.artifact)


@pytest.mark.parametrize(
    "damage", [b"", b"no model", b"\x08\x00\x00\x00ET12" + b"\x00" * 64, b"    TFL3" + b"\xff" * 64]
)
def test_a_file_that_is_no_model_is_an_answer_and_leaves_the_old_model(place: Place, damage: bytes) -> None:
    place.bench.carry_out(place.deployment(), go_on)
    good = (place.deployed / "group-0" / "active.onnx").read_bytes()
    report = place.bench.carry_out(place.deployment(program=place.store.put(damage)), go_on).report
    assert report.healthy is False
    assert report.health_reason != ""
    assert sorted(path.name for path in (place.deployed / "group-0").iterdir()) == ["active.onnx", "slots.json"]
    assert (place.deployed / "group-0" / "active.onnx").read_bytes() == good


def test_a_format_from_the_future_is_refused_with_those_that_are_known(place: Place) -> None:
    with pytest.raises(DeviceError, match="format 'coreml'; known here: onnx, pte, tflite"):
        place.bench.carry_out(place.deployment(format="coreml"), go_on)


def test_a_group_whose_name_leads_elsewhere_is_refused(place: Place, tmp_path: Path) -> None:
    with pytest.raises(MessageError):
        place.bench.carry_out(place.deployment(group="../../elsewhere"), go_on)
    assert not (tmp_path / "elsewhere").exists()


def test_a_process_that_the_kernel_kills_for_memory_leaves_the_next_one_a_lower_limit(
    place: Place, tmp_path: Path
) -> None:
    write(tmp_path, "/proc/sys/kernel/random/boot_id", "one")
    write(tmp_path, "/proc/vmstat", "oom_kill 3")
    note, machine = tmp_path / "last-words.json", Host(tmp_path)

    def new_process() -> Bench:
        bench = Bench(
            place.data, place.store, Programs("torch"), place.deployed, last_words=LastWords(note, machine)
        )  # fmt: skip
        bench.learn()
        return bench

    class Killed(BaseException):
        """Stands for the kernel's kill: what is on the disk at this moment is all that is left."""

    left = b""

    def die() -> bool:
        nonlocal left
        left = note.read_bytes()
        raise Killed

    with pytest.raises(Killed):
        new_process().carry_out(place.plan(), die)
    note.write_bytes(left)
    write(tmp_path, "/proc/vmstat", "oom_kill 4")
    assert new_process().step_memory == memory_needed(place.program) - 1
    assert place.bench.step_memory == 0
    fine = new_process()
    fine.carry_out(place.plan(), go_on)
    assert new_process().step_memory == memory_needed(place.program) - 1
