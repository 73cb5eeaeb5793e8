"""An open round: its machine, its accumulator, and everything that is counted while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from mas_edge.federation.aggregate import Accumulator, weighted_losses
from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.measurements import RoundAffinity, mean_affinity
from mas_edge.federation.rounds import Outcome, Round
from mas_edge.job import Affinity
from mas_edge.orchestrator.records import RoundRecord, Traffic
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Birth, Energy, Offer, Plan, PlanKind, Quality, Report, SampleCount
from mas_edge.protocol.weights import Layout, Vector, gather, require_finite, sent_layout, unpack

# Beyond this a float64 does not hold every whole number, and means would no longer be exact.
MAX_COUNT = 2**53
# Devices compute in float32; sums of what they report stay finite in float64, and JSON has no other numbers.
MAX_NUMBER = float(np.finfo(np.float32).max)
# Activities of a report's energy: train, affinity, evaluate, other, and room for those of later runtimes.
MAX_ACTIVITIES = 16
# Names of sensors and what was wrong with them stand in tables and logs: more is no name, and no control characters.
MAX_TEXT = 500
# Head room over the plain size of the weights: the safetensors header with its tensor names.
HEADER_ALLOWANCE = 1024 * 1024


@dataclass
class ActiveRound:
    """A round between its first plan and its record."""

    work: RoundWork
    machine: Round
    group: GroupState
    phase: str
    plans: dict[str, Plan]  # by what the device gets: a program or a model
    layout: Layout
    costs: Mapping[str, int]  # multiply-accumulates of each method, for one sample
    accumulator: Accumulator | None
    reports: dict[str, Report] = field(default_factory=dict)
    updates: dict[str, str] = field(default_factory=dict)  # by device, the artifact it offers: kept until the close
    traffic: Traffic = field(default_factory=Traffic)
    resumed: bool = False  # it began in an earlier life: its times are not known
    report_seconds: dict[str, float] = field(default_factory=dict)
    unfilled: int = 0  # devices that it misses, and for whom no other was there when one was last looked for
    fill_again: float = 0.0  # when to look again

    def plan_for(self, device: str) -> Plan:
        """What this device is told."""
        return self.plans[self.machine.spec.supplies[device]]

    @property
    def _learning_rate(self) -> float:
        plan = next(iter(self.plans.values()))
        return plan.training.learning_rate if plan.training else 0.0

    @property
    def max_update_bytes(self) -> int:
        """What an update of this round may weigh at most."""
        return 4 * self.layout.size + HEADER_ALLOWANCE

    def time_report(self, device: str, now: float) -> None:
        """Note how long an accepted report took."""
        if not self.resumed:
            self.report_seconds[device] = now - self.machine.opened

    def fold(self, offer: Offer, update: bytes | None) -> None:
        """Check a report and, after training, fold its update.

        Raises:
            WeightsError: tensors, shapes, numbers or counts are not what this round expects; nothing was folded.
        """
        self._check(offer.report)
        if self.accumulator is not None:
            if update is None:
                message = f"a training report of round {self.work.round_id} came without weights"
                raise WeightsError(message)
            self.accumulator.fold(self._vector(update, offer.report), offer.report.samples)
        self.reports[offer.sender] = offer.report

    def _vector(self, update: bytes, report: Report) -> Vector:
        sent = sent_layout(self.layout, report.samples)
        tensors = unpack(update)
        extra = set(tensors) - {entry.name for entry in sent.entries}
        if extra:
            message = f"update holds tensors that were not asked for: {', '.join(sorted(extra))}"
            raise WeightsError(message)
        vector = gather(sent, tensors)
        require_finite(vector, "update")
        return vector

    def _check(self, report: Report) -> None:
        _check_numbers(report)
        tasks, kind = self.group.tasks, self.work.kind
        for name, keys in (("samples", report.samples), ("losses", report.losses), ("metrics", report.metrics)):
            if unknown := sorted(set(keys) - set(tasks)):
                shown = ", ".join(unknown)[:200]
                message = f"report has {name} of tasks that are not in group {self.group.name}: {shown}"
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
        most = len(self.group.tasks)
        if set(weights) != set(self.group.tasks) or not all(0 < weight <= most for weight in weights.values()):
            message = (
                f"report has task weights {str(weights)[:200]}; expected one above 0, up to {most}, for every task"
            )
            raise WeightsError(message)

    def record(self, outcome: Outcome, weights: str, how: Affinity, now: float) -> RoundRecord:
        """What the round came to; ``how``: the affinities are averaged over the devices."""
        reports = self.reports
        affinity = self._affinity(how)
        seconds: Counter[str] = Counter()
        samples: Counter[str] = Counter()
        for report in reports.values():
            seconds.update(report.seconds)
            samples.update(report.samples)
        return RoundRecord(
            round_id=self.work.round_id, kind=self.work.kind, group=self.group.name, phase=self.phase,
            index=self.work.index, tasks=self.group.tasks, outcome=outcome, weights=weights,
            selected=list(self.machine.spec.selected),
            learning_rate=self._learning_rate,
            wall_seconds=now - self.machine.opened,
            losses=weighted_losses([(report.losses, report.samples) for report in reports.values()]),
            metrics=weighted_losses([(report.metrics, report.samples) for report in reports.values()]),
            samples=dict(samples), affinity=affinity.matrix.tolist() if affinity else None,
            affinity_devices=affinity.devices.tolist() if affinity else None,
            device_seconds=dict(seconds), device_cpu_seconds=sum(report.cpu_seconds for report in reports.values()),
            affinity_cpu_seconds=sum(report.affinity_cpu_seconds for report in reports.values()),
            multiply_accumulates=self._multiply_accumulates(), joules=joules_of(reports.values()),
            refused=self.machine.reasons(), traffic=self.traffic, reports=reports,
            report_seconds=self.report_seconds,
        )  # fmt: skip

    def _affinity(self, how: Affinity) -> RoundAffinity | None:
        """The average over the devices that measured; None if none did."""
        reports = [report for report in self.reports.values() if report.affinity is not None]
        if not reports:
            return None
        matrices = [np.array(report.affinity, np.float64) for report in reports]  # None, not measured, becomes NaN
        samples = [max(report.samples.values()) for report in reports]
        weights = samples if how.weighting == "samples" else None
        return mean_affinity(matrices, weights=weights, quorum=how.quorum, average=how.average)

    def _multiply_accumulates(self) -> dict[str, int]:
        """By method, over all reports: the runs that each device counted, on batches of its size."""
        counted: Counter[str] = Counter()
        stepping = {"train": "train_step", "evaluate": "evaluate"}.get(self.work.kind)
        for report in self.reports.values():
            runs = {"affinity": report.affinity_measurements} | ({stepping: report.steps} if stepping else {})
            for method, count in runs.items():
                counted[method] += count * report.batch_size * self.costs.get(method, 0)
        return {method: count for method, count in counted.items() if count}


def joules_of(reports: Iterable[Report]) -> dict[Quality, dict[str, float]]:
    """Joules by quality and activity, summed over devices: what was measured is never added to what was estimated."""
    sums: dict[Quality, dict[str, float]] = {}
    for energy in (report.energy for report in reports):
        if energy is not None and energy.joules:
            into = sums.setdefault(energy.quality, {})
            for activity, joules in energy.joules.items():
                into[activity] = into.get(activity, 0.0) + joules
    return sums


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
