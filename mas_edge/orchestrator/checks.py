"""What a device's report must be before it counts: numbers, shapes and counts that spoil no sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mas_edge.orchestrator.lent import Lent
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Birth, Energy, PlanKind, Report, SampleCount
from mas_edge.protocol.weights import ENCODER, Layout, Numbers, flatten, require_finite, sent_layout, unpack

# Beyond this a float64 does not hold every whole number, and means would no longer be exact.
MAX_COUNT = 2**53
# Devices compute in float32; sums of what they report stay finite in float64, and JSON has no other numbers.
MAX_NUMBER = float(np.finfo(np.float32).max)
# Activities of a report's energy: train, affinity, evaluate, other, and room for those of later runtimes.
MAX_ACTIVITIES = 16
# Names of sensors and what was wrong with them stand in tables and logs: more is no name, and no control characters.
MAX_TEXT = 500


@dataclass(frozen=True)
class Expected:
    """What the reports of a round must fit."""

    round_id: str
    kind: PlanKind
    group: str
    tasks: list[str]
    layout: Layout

    def vector(self, update: Buffer | None, report: Report) -> Numbers:
        """The numbers of an update, shape (sent_layout(layout, samples).size,).

        Raises:
            WeightsError: there is none, its tensors or shapes are others, or a number is not finite.
        """
        if update is None:
            message = f"a training report of round {self.round_id} came without weights"
            raise WeightsError(message)
        sent = sent_layout(self.layout, report.samples)
        extra = set(unpack(update)) - {entry.name for entry in sent.entries}
        if extra:
            message = f"update holds tensors that were not asked for: {', '.join(sorted(extra))}"
            raise WeightsError(message)
        vector = Lent(flatten(sent, update), update)
        require_finite(vector, "update")
        return vector

    def check(self, report: Report) -> None:
        """Raise WeightsError if numbers or counts of a report are not what this round expects."""
        _check_numbers(report)
        tasks, kind = self.tasks, self.kind
        for name, keys in (("samples", report.samples), ("losses", report.losses), ("metrics", report.metrics)):
            only_heads = {ENCODER} if name == "samples" and report.samples.get(ENCODER) == 0 else set()
            if unknown := sorted(set(keys) - set(tasks) - only_heads):
                shown = ", ".join(unknown)[:200]
                message = f"report has {name} of tasks that are not in group {self.group}: {shown}"
                raise WeightsError(message)
        if report.task_weights:
            self._check_task_weights(report.task_weights)
        counted = {task for task, count in report.samples.items() if count}
        if kind == "train" and not counted:
            message = "a training report counts no sample"
            raise WeightsError(message)
        expected = {"train": [report.losses], "evaluate": [report.losses, report.metrics], "deploy": []}[kind]
        if any(counted - set(values) for values in expected):
            message = f"a report of kind {kind} lacks a loss or metric of a task it counts samples of: {report.samples}"
            raise WeightsError(message)
        if report.affinity is not None and [len(row) for row in report.affinity] != [len(tasks)] * len(tasks):
            message = f"affinity is not {len(tasks)} x {len(tasks)}, one row and one column a task"
            raise WeightsError(message)

    def _check_task_weights(self, weights: Mapping[str, float]) -> None:
        most = len(self.tasks)
        if set(weights) != set(self.tasks) or not all(0 < weight <= most for weight in weights.values()):
            message = (
                f"report has task weights {str(weights)[:200]}; expected one above 0, up to {most}, for every task"
            )
            raise WeightsError(message)


def check_counts(report: Report, kind: PlanKind, birth: Birth) -> None:
    """Raise WeightsError if a device counts more samples than its birth says: it would outweigh the others."""
    for task, count in report.samples.items():
        held = birth.tasks.get(task, SampleCount(train=0, test=0))
        limit = held.train if kind == "train" else held.test
        if count > limit:
            counted = str(count)[:40]
            message = f"report counts {counted} samples of {task}; the device has {limit} by its birth"
            raise WeightsError(message)


def _check_numbers(report: Report) -> None:
    """Raise WeightsError for a number that would spoil a sum: sums over devices must stay finite and exact."""
    counts = [*report.samples.values(), report.affinity_measurements, report.steps, report.received_bytes]
    for count in counts:
        if not 0 <= count <= MAX_COUNT:
            message = f"report counts {str(count)[:40]} of something; expected 0 to {MAX_COUNT}"
            raise WeightsError(message)
    numbers: list[Iterable[float]] = [report.losses.values(), report.metrics.values(), *_measured(report)]
    seconds = [*report.seconds.values(), report.cpu_seconds, report.affinity_cpu_seconds, report.latency_s]
    for number in chain(seconds, *numbers):
        if not abs(number) <= MAX_NUMBER:  # a NaN compares as false
            message = f"report holds the number {number}; expected finite numbers that fit into a float32"
            raise WeightsError(message)
    if any(second < 0 for second in seconds):
        message = f"report holds a time below zero: {report.seconds}"
        raise WeightsError(message)
    if report.energy is not None:
        _check_energy(report.energy)


def _check_energy(energy: Energy) -> None:
    """Raise WeightsError for joules that no device can have taken: they would spoil the sums of a round."""
    numbers = [*energy.joules.values(), energy.idle_watts or 0.0, energy.error]
    if len(energy.joules) > MAX_ACTIVITIES or not all(0 <= number <= MAX_NUMBER for number in numbers):
        message = (
            f"report holds the energy {str(energy.joules)[:200]}, idle {energy.idle_watts}, error {energy.error}; "
            f"expected numbers from 0 on, of {MAX_ACTIVITIES} activities at most"
        )
        raise WeightsError(message)
    for text in (energy.source, energy.problem, *energy.joules):
        if len(text) > MAX_TEXT or not text.isprintable():
            message = f"report names its energy {text[:40]!r}; expected up to {MAX_TEXT} printable characters"
            raise WeightsError(message)


def _measured(report: Report) -> list[list[float]]:
    """The affinities that were measured, row by row."""
    return [[value for value in row if value is not None] for row in report.affinity or []]
