"""One plan's work on the device's own data: train for some epochs, or evaluate; what was found goes into a report.

Knows programs, runners and batches. Does not know where they come from (broker, slots) nor what runs them (the engine
that made the runner). The momentum starts at zero in every round, because a device is not selected in every round and
an old momentum would belong to weights that are gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.balance import TaskWeights
from device_runtime.checkpoint import Checkpoint, Position, Saved
from device_runtime.engines.base import Runner
from device_runtime.outcome import Stopped
from device_runtime.power.meter import Meter
from mas_edge.protocol.errors import DataError, DeviceError, ProgramError, WeightsError
from mas_edge.protocol.messages import Report, Training
from mas_edge.protocol.program import Program, TargetSpec
from mas_edge.protocol.weights import Vector

Feeds = Mapping[str, NDArray[Any]]
Stop = Callable[[], bool]


class Batches(Protocol):
    """Where the mini-batches come from; ``device_runtime.data.DataFolder`` is one."""

    def feeds(
        self, program: Program, split: Literal["train", "test"], seed: int | None
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield ``x`` [B, *input_shape] and ``y.<task>``, ``mask.<task>`` of every task; B is the program's batch."""
        ...


def train(
    runner: Runner,
    program: Program,
    weights: Vector,
    data: Batches,
    training: Training,
    *,
    stop: Stop,
    meter: Meter | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Vector, Report]:
    """Train ``weights``, shape (layout.size,), for ``training.local_epochs`` epochs; return the new ones and a report.

    Epoch e takes its mini-batches in the order of the seed ``training.seed + e``. Steps count from 0 over all epochs;
    the affinity is measured before every step that is a multiple of ``affinity_period``, so that a device with fewer
    steps than one period still measures once. Losses are the means of the last epoch. A task weight not given is 1;
    with ``training.balance`` the weights move after every step, and the report says where to.

    With a ``checkpoint`` the training goes on where that was saved last, and is saved in it whenever it is due: the
    weights and the report, but for its times, are those of a training that nothing interrupted.

    ``Report.samples`` are the labelled train samples of each task. A task with 0 of them has no loss and has zeros in
    its row and column of ``affinity``: whoever averages must leave these pairs out, not count them as zero.

    Raises:
        Stopped: ``stop()`` returned True before a step.
        DeviceError: losses, weights or affinities stopped being finite.
        DataError: no train sample is labelled for any of the program's tasks.
        WeightsError: ``weights`` does not have the length of the program's layout.
        ProgramError: the tasks are to be balanced, and the program does not give the gradient norms for it.
    """
    _check_length(program, weights)
    _check_balance(program, training)
    clock, cpu_start = _Clock(meter), time.process_time()  # of the whole process: the engine's own threads do the work
    course, means = _Course(runner, program, weights, training, clock), _Means(program)
    saved = checkpoint.load() if checkpoint else None
    first, done = _go_on(saved, course, means, clock) if saved else (0, 0)
    cpu_start -= saved.position.total_cpu_seconds if saved else 0.0
    for epoch in range(first, training.local_epochs):
        if done == 0:
            means = _Means(program)
        batches = islice(data.feeds(program, "train", training.seed + epoch), done, None)
        for batch in clock.timed("train", batches):
            if stop():
                raise Stopped
            means.add(batch, losses=course.step(batch))
            done += 1
            if checkpoint and checkpoint.due:
                position = _position(epoch, done, course, means, clock, time.process_time() - cpu_start)
                checkpoint.save(position, course.weights, course.momentum)
        done = 0
    if not means.labelled():
        message = (
            f"this device holds no labelled train sample for {', '.join(program.tasks)}: "
            "add labels, or start it without these tasks"
        )
        raise DataError(message)
    report = Report(
        samples=means.samples,
        losses=means.of("losses"),
        affinity=course.affinities.mean(),
        affinity_measurements=course.affinities.measurements,
        task_weights=course.task_weights.moved(),
        steps=course.steps,
        batch_size=program.batch_size,
        seconds=clock.seconds,
        cpu_seconds=time.process_time() - cpu_start,
        affinity_cpu_seconds=clock.cpu_seconds.get("affinity", 0.0),
    )
    return np.array(course.weights, np.float32), report


def evaluate(
    runner: Runner,
    program: Program,
    weights: Vector,
    data: Batches,
    *,
    stop: Stop = lambda: False,
    meter: Meter | None = None,
) -> Report:
    """Return the means of losses and metrics over the test samples, the same at every batch size but for rounding.

    A task without labelled test samples has 0 in ``samples`` and is absent from ``losses`` and ``metrics``.

    Raises:
        Stopped: ``stop()`` returned True before a batch.
        DeviceError: a loss or a metric is not finite.
        WeightsError: ``weights`` does not have the length of the program's layout.
    """
    _check_length(program, weights)
    clock, means, step = _Clock(meter), _Means(program), 0
    cpu_start = time.process_time()  # of the whole process: the engine's own threads do the work
    for batch in clock.timed("evaluate", data.feeds(program, "test", None)):
        if stop():
            raise Stopped
        with clock.running("evaluate"):
            results = runner.run("evaluate", {**batch, "weights": weights})
        if not all(np.isfinite(values).all() for values in results.values()):
            message = (
                f"evaluation batch {step}: a loss or metric is not finite (NaN or infinity): "
                "look for huge values in the test samples with `mas-edge-device check`"
            )
            raise DeviceError(message)
        means.add(batch, losses=results["losses"], metrics=results["metrics"])
        step += 1
    return Report(
        samples=means.samples,
        losses=means.of("losses"),
        metrics=means.of("metrics"),
        steps=step,
        batch_size=program.batch_size,
        seconds=clock.seconds,
        cpu_seconds=time.process_time() - cpu_start,
    )


class _Course:
    """The state of one round's steps: weights, momentum, task weights, and the affinities measured on the way."""

    def __init__(self, runner: Runner, program: Program, weights: Vector, training: Training, clock: _Clock) -> None:
        self.weights, self.steps, self.affinities = weights, 0, _Affinities(program)
        self._runner, self._training, self._clock = runner, training, clock
        self.momentum = np.zeros(program.layout.trainable, np.float32)
        rates = [training.learning_rate, training.momentum, training.weight_decay, training.proximal_mu]
        self.task_weights = TaskWeights(program.tasks, training)
        self._given: Feeds = {
            "anchor": weights[: program.layout.trainable],  # what a FedProx program pulls towards
            "hyper": np.array(rates, np.float32),
        }

    def step(self, batch: Feeds) -> NDArray[Any]:
        """Measure the affinity if it is due, then take one step; return the losses, shape (n,)."""
        period = self._training.affinity_period
        feeds: Feeds = {
            **self._given, **batch, "weights": self.weights, "momentum": self.momentum,
            "task_weights": self.task_weights.vector,
        }  # fmt: skip
        if period and self.steps % period == 0:
            with self._clock.running("affinity"):
                measured = self._runner.run("affinity", feeds)["affinity"]
                self._require_finite("affinities", measured)
                self.affinities.add(measured, batch)
        with self._clock.running("train"):
            results = self._runner.run("train_step", feeds)
            self._require_finite("losses", results["losses"])
            self._require_finite("weights", results["weights"])
        self.weights, self.momentum = results["weights"], results["momentum"]
        self.task_weights.move(results)
        self.steps += 1
        return results["losses"]

    def _require_finite(self, what: str, values: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            message = (
                f"training diverged at step {self.steps}: the {what} are no longer finite (NaN or infinity) at "
                f"learning rate {self._training.learning_rate:g}: lower optimizer.learning_rate, set "
                "optimizer.clip_norm, and look for huge values in this device's samples with `mas-edge-device check`"
            )
            raise DeviceError(message)


def _position(epoch: int, batches: int, course: _Course, means: _Means, clock: _Clock, cpu_seconds: float) -> Position:
    task_weights, first_losses = course.task_weights.state()
    affinities = course.affinities
    return Position(
        epoch=epoch, batches=batches, steps=course.steps, weights=course.weights.size,
        task_weights=task_weights, first_losses=first_losses,
        samples=means.samples, places=means.places, sums=means.sums,
        affinity_sums=affinities.sums.tolist(), affinity_counts=affinities.counts.tolist(),
        affinity_measurements=affinities.measurements,
        seconds=clock.seconds, cpu_seconds=clock.cpu_seconds, total_cpu_seconds=cpu_seconds,
    )  # fmt: skip


def _go_on(saved: Saved, course: _Course, means: _Means, clock: _Clock) -> tuple[int, int]:
    """Put everything back; returns the epoch and how many of its batches are done."""
    at = saved.position
    course.weights, course.momentum, course.steps = saved.weights, saved.momentum, at.steps
    course.task_weights.restore(at.task_weights, at.first_losses)
    course.affinities.sums, course.affinities.counts = np.array(at.affinity_sums), np.array(at.affinity_counts)
    course.affinities.measurements = at.affinity_measurements
    means.samples, means.places, means.sums = dict(at.samples), dict(at.places), at.sums
    clock.seconds, clock.cpu_seconds = dict(at.seconds), dict(at.cpu_seconds)
    return at.epoch, at.batches


def _check_length(program: Program, weights: Vector) -> None:
    if weights.shape != (program.layout.size,):
        message = f"expected weights of shape ({program.layout.size},) for this program, got {weights.shape}"
        raise WeightsError(message)


def _check_balance(program: Program, training: Training) -> None:
    method = program.methods.get("train_step")
    given = [value.name for value in method.outputs] if method else []
    if training.balance and "norms" not in given:
        message = (
            f"the plan balances the tasks of {program.group!r} by GradNorm, but the program's train_step gives no "
            "gradient norms: export it from a job with method.balance = 'gradnorm'"
        )
        raise ProgramError(message)


def _valid(batch: Feeds, task: str) -> NDArray[np.bool_]:
    """Which samples of a batch carry a label of ``task``, shape (B,): any place of the sample's mask is set."""
    mask = batch[f"mask.{task}"]
    labelled: NDArray[np.bool_] = np.any(mask.reshape(len(mask), -1) > 0, axis=1)
    return labelled


def _places(batch: Feeds, task: str, spec: TargetSpec) -> int:
    """How many numbers of a batch's target count: a loss is their mean, so that this is what the batch counts for."""
    y, mask = batch[f"y.{task}"], batch[f"mask.{task}"] > 0
    counted = np.broadcast_to(mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim)), y.shape)
    return int(np.count_nonzero(counted & (y != spec.ignore_index) if spec.dtype == "int64" else counted))


class _Means:
    """Means per task, each batch weighted by the places it is a mean over, so that the batch size does not matter.

    Summed in float64. Exact for means over places, which every named loss and metric is but ``l1_all`` and the root of
    the mean square.
    """

    def __init__(self, program: Program) -> None:
        self.samples = dict.fromkeys(program.tasks, 0)
        self._targets = program.targets
        self.places = dict.fromkeys(program.tasks, 0)
        self.sums: dict[str, dict[str, float]] = {}

    def add(self, batch: Feeds, **values: NDArray[Any]) -> None:
        """Fold in one batch's numbers, one array of shape (n,) for each quantity."""
        for i, task in enumerate(self.samples):
            self.samples[task] += int(_valid(batch, task).sum())
            weight = _places(batch, task, self._targets[task])
            self.places[task] += weight
            for quantity, array in values.items():
                sums = self.sums.setdefault(quantity, dict.fromkeys(self.samples, 0.0))
                sums[task] += weight * float(array[i])

    def labelled(self) -> bool:
        """Whether any sample carried any label."""
        return any(self.samples.values())

    def of(self, quantity: str) -> dict[str, float]:
        """The means of the tasks that have labels here."""
        sums = self.sums.get(quantity, {})
        return {task: sums[task] / max(self.places[task], 1) for task, count in self.samples.items() if count}


class _Affinities:
    """The mean of the measured affinity matrices, pair by pair.

    A pair counts in a measurement only if the mini-batch held labels of both tasks: without labels the source has no
    gradient and the recipient no loss, and S_ij = 0 would say "no effect" where nothing was seen.
    """

    def __init__(self, program: Program) -> None:
        n = len(program.tasks)
        self.measurements = 0
        self._tasks = program.tasks
        self.sums, self.counts = np.zeros((n, n)), np.zeros((n, n), np.int64)

    def add(self, measured: NDArray[Any], batch: Feeds) -> None:
        """Fold in one measurement, shape (n, n)."""
        seen = np.array([_valid(batch, task).any() for task in self._tasks])
        pairs = np.outer(seen, seen)
        self.sums += np.where(pairs, measured, 0.0)
        self.counts += pairs
        self.measurements += 1

    def mean(self) -> list[list[float | None]] | None:
        """Row = source, column = recipient, None for a pair that was never seen; None when nothing was measured."""
        if self.measurements == 0:
            return None
        means = self.sums / np.maximum(self.counts, 1)
        return [
            [float(mean) if count else None for mean, count in zip(*row, strict=True)]
            for row in zip(means, self.counts, strict=True)
        ]


class _Clock:
    """Wall and processor seconds by activity. Waiting for the next batch counts for the activity that wants it.

    ``meter`` counts the joules of the same activities.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = meter
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def running(self, activity: str) -> Iterator[None]:
        """Count the seconds inside the block."""
        start, cpu_start = time.perf_counter(), time.process_time()
        try:
            with self._meter.during(activity) if self._meter else nullcontext():
                yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + time.perf_counter() - start
            self.cpu_seconds[activity] = self.cpu_seconds.get(activity, 0.0) + time.process_time() - cpu_start

    def timed(self, activity: str, batches: Iterator[dict[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the batches; the seconds it takes to make each are counted."""
        while True:
            with self.running(activity):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
