"""A training that is interrupted anywhere and gone on with ends where an undisturbed one does, to the bit."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runtime import session
from device_runtime.checkpoint import ENDING, INTERVAL_S, MAX_FILES, MAX_SHARE, Checkpoint, Position, checkpoint_name
from device_runtime.data import DataFolder
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.engines import open_engine
from device_runtime.engines.base import Runner
from device_runtime.outcome import Stopped
from device_runtime.work import Bench, Programs
from mas_edge.export.gate import released
from mas_edge.export.trace import trace_program
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.protocol import program as program_format
from mas_edge.protocol.messages import Balance, Plan, Report, Training, Weights
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Vector, pack
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

EPOCHS, BATCHES = 3, 3  # 10 samples in batches of 4
TRAINING = Training(
    learning_rate=0.1, momentum=0.9, weight_decay=0.01, local_epochs=EPOCHS, seed=3, task_weights={}, affinity_period=2,
    proximal_mu=0.1,
)  # fmt: skip
JOB = tiny_job(proximal_mu=0.1)
POSITION = Position(
    epoch=1, batches=2, steps=5, weights=4, task_weights=[1.0], first_losses=[float("nan")], samples={"a": 3},
    places={"a": 3}, sums={"losses": {"a": 0.1}}, affinity_sums=[[0.5]], affinity_counts=[[1]],
    affinity_measurements=1, seconds={"train": 0.3}, cpu_seconds={}, total_cpu_seconds=0.25,
)  # fmt: skip


class Clock:
    """A time that passes by itself: ``step_s`` at every look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(engine: str) -> Program:
    job = replace(JOB, method=replace(JOB.method, balance="gradnorm"))
    return program_format.load(released(trace_program(job, "merged", TASKS), engine, job, None).program)


@pytest.fixture(scope="module")
def runner(engine: str, program: Program) -> Runner:
    return open_engine(engine).load(program)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return tiny_data(tmp_path_factory.mktemp("data"))


def always(directory: Path) -> Checkpoint:
    """One that is due after every step."""
    return Checkpoint(directory, "plan", Clock(INTERVAL_S * 1e6))


def stopping_after(steps: int) -> Callable[[], bool]:
    looks = iter(range(steps))
    return lambda: next(looks, None) is None


def without_times(report: Report) -> Report:
    return replace(report, seconds={}, cpu_seconds=0.0, affinity_cpu_seconds=0.0)


WAYS = {"plain": TRAINING, "balanced": replace(TRAINING, balance=Balance(alpha=1.5, rate=0.05))}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_stopped_after_every_step_in_turn_ends_as_if_it_had_not_been(
    way: str, runner: Runner, program: Program, data: DataFolder, tmp_path: Path
) -> None:
    start, training = vector_of(build(JOB, TASKS)), WAYS[way]
    expected, report = session.train(runner, program, start, data, training, stop=lambda: False)
    for _ in range(EPOCHS * BATCHES - 1):
        with pytest.raises(Stopped):
            session.train(runner, program, start, data, training, stop=stopping_after(1), checkpoint=always(tmp_path))
    # What is left is one step: the training was gone on with, and not begun anew.
    trained, again = session.train(
        runner, program, start, data, training, stop=stopping_after(1), checkpoint=always(tmp_path)
    )
    assert trained.tobytes() == expected.tobytes()
    assert without_times(again) == without_times(report)
    assert again.seconds["train"] > 0


def test_a_checkpoint_holds_what_was_saved(tmp_path: Path) -> None:
    weights, momentum = np.arange(4, dtype=np.float32), np.full(3, np.pi, np.float32)
    always(tmp_path).save(POSITION, weights, momentum)
    saved = always(tmp_path).load()
    assert saved is not None
    assert repr(saved.position) == repr(POSITION)  # nan is not equal to itself
    np.testing.assert_array_equal(saved.weights, weights)
    np.testing.assert_array_equal(saved.momentum, momentum)


@settings(max_examples=50, deadline=None)
@given(cut=st.integers(0, 400), flip=st.integers(0, 399))
def test_a_damaged_checkpoint_counts_as_none_and_is_removed(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    directory = tmp_path_factory.mktemp("damaged")
    always(directory).save(POSITION, np.zeros(4, np.float32), np.zeros(3, np.float32))
    (path,) = directory.iterdir()
    whole = bytearray(path.read_bytes())
    whole[flip % len(whole)] ^= 1
    path.write_bytes(whole[: cut or None])
    assert always(directory).load() is None
    assert list(directory.iterdir()) == []


def test_saving_is_due_after_an_interval_and_takes_no_more_than_its_share_of_the_time(tmp_path: Path) -> None:
    clock = Clock()
    checkpoint = Checkpoint(tmp_path, "plan", clock)

    def due_at(now: float) -> bool:
        clock.now = now
        return checkpoint.due

    assert [due_at(now) for now in (0.0, 0.99 * INTERVAL_S, INTERVAL_S)] == [False, False, True]
    clock.step_s = 1.0  # a slow card: a save takes a second
    checkpoint.save(POSITION, np.zeros(4, np.float32), np.zeros(3, np.float32))
    clock.step_s, saved = 0.0, clock.now
    assert [due_at(saved + wait) for wait in (0.98 / MAX_SHARE, 1 / MAX_SHARE)] == [False, True]


def test_a_disk_that_is_full_ends_the_saving_and_not_the_training(
    runner: Runner, program: Program, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    start = vector_of(build(JOB, TASKS))
    _, report = session.train(runner, program, start, data, TRAINING, stop=lambda: False, checkpoint=always(tmp_path))
    assert report.steps == EPOCHS * BATCHES
    assert caplog.text.count("the disk is full") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_few_checkpoints_are_kept_and_the_oldest_go(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        Checkpoint(tmp_path, f"plan{number}").save(POSITION, np.zeros(4, np.float32), np.zeros(3, np.float32))
        os.utime(tmp_path / f"plan{number}{ENDING}", (number, number))
    assert {path.name for path in tmp_path.iterdir()} == {f"plan{n}{ENDING}" for n in (MAX_FILES, MAX_FILES + 1)}


class Desk:
    """A bench that saves after every step, and a plan for it."""

    def __init__(self, directory: Path, program: Program, engine: str, vector: Vector) -> None:
        self.store = ArtifactStore(directory / "artifacts")
        self.data = tiny_data(directory / "data")
        self.saves = directory / "checkpoints"
        self.bench = Bench(self.data, self.store, Programs(engine), directory / "deployed", checkpoints=self.saves)
        weights = self.store.put(pack(layout_of(build(JOB, TASKS)), vector))
        fields: dict[str, Any] = {
            **ORCHESTRATOR, "job": "j", "round_id": "merged-0000", "kind": "train", "group": "merged", "tasks": TASKS,
            "deadline_s": 100.0, "program": self.store.put(program_format.dump(program)), "training": TRAINING,
            "weights": Weights(manifest=weights),
        }  # fmt: skip
        self.plan = Plan(**fields)


@pytest.fixture
def desk(tmp_path: Path, program: Program, engine: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("device_runtime.checkpoint.INTERVAL_S", 0.0)
    monkeypatch.setattr("device_runtime.checkpoint.MAX_SHARE", 1e9)
    return Desk(tmp_path, program, engine, vector_of(build(JOB, TASKS)))


def test_a_plan_that_comes_again_goes_on_where_it_was_stopped_and_leaves_nothing_behind(desk: Desk) -> None:
    expected = desk.bench.carry_out(desk.plan, lambda: False).update
    with pytest.raises(Stopped):
        desk.bench.carry_out(desk.plan, stopping_after(5))
    assert len(list(desk.saves.iterdir())) == 1
    outcome = desk.bench.carry_out(desk.plan, stopping_after(EPOCHS * BATCHES - 5))
    assert outcome.update == expected
    assert list(desk.saves.iterdir()) == []


CHANGED: dict[str, Callable[[Desk], Plan]] = {
    "another round": lambda desk: replace(desk.plan, round_id="merged-0001"),
    "another run": lambda desk: replace(desk.plan, job="other"),
    "another learning rate": lambda desk: replace(desk.plan, training=replace(TRAINING, learning_rate=0.2)),
    "other weights": lambda desk: replace(desk.plan, weights=Weights(manifest=desk.plan.program)),
    "another program": lambda desk: replace(desk.plan, program=desk.plan.weights.manifest),  # type: ignore[union-attr]
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_plan_that_differs_begins_anew(change: str, desk: Desk, engine: str) -> None:
    folder = desk.data.directory
    changed = CHANGED[change](desk)
    assert checkpoint_name(changed, engine, folder) != checkpoint_name(desk.plan, engine, folder)


def test_other_data_begin_anew(desk: Desk, engine: str) -> None:
    folder = desk.data.directory
    before = checkpoint_name(desk.plan, engine, folder)
    assert checkpoint_name(desk.plan, engine, folder) == before
    os.utime(folder / "x.npy", ns=(0, 0))
    assert checkpoint_name(desk.plan, engine, folder) != before
