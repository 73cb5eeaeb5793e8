"""An open round: its machine, its accumulator, and everything that is counted while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mas_edge.federation.aggregate import weighted_losses
from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.late import staleness_weight
from mas_edge.federation.measurements import RoundAffinity, mean_affinity
from mas_edge.federation.rounds import Outcome, Round
from mas_edge.job import Affinity
from mas_edge.orchestrator.checks import Expected
from mas_edge.orchestrator.folding import Folding, Origin
from mas_edge.orchestrator.records import LateReport, RoundRecord, Traffic
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.messages import Offer, Plan, Quality, Report
from mas_edge.protocol.weights import ENCODER, Layout

# Head room over the plain size of the weights: the safetensors header with its tensor names.
HEADER_ALLOWANCE = 1024 * 1024


def update_limit(layout: Layout) -> int:
    """The bytes that an update of this network may weigh at most."""
    return 4 * layout.size + HEADER_ALLOWANCE


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
    accumulator: Folding | None
    reports: dict[str, Report] = field(default_factory=dict)
    late: list[LateReport] = field(default_factory=list)
    updates: dict[str, str] = field(default_factory=dict)  # by device, the artifact it offers: kept until the close
    needed: set[str] = field(default_factory=set)  # late updates and what they began from: kept until the close
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
        plan = next(iter(self.plans.values()), None)  # no device was told: only late reports came
        return plan.training.learning_rate if plan and plan.training else 0.0

    @property
    def expected(self) -> Expected:
        """What its reports must fit."""
        return Expected(self.work.round_id, self.work.kind, self.group.name, self.group.tasks, self.layout)

    @property
    def max_update_bytes(self) -> int:
        """What an update of this round may weigh at most."""
        return update_limit(self.layout)

    @property
    def counts_in(self) -> str | None:
        """The round that its reports count in: itself."""
        return self.work.round_id

    def on_offered(self, device: str, artifact: str) -> None:
        """A device has finished; ``artifact``: its update, if there is one."""
        self.machine.on_ack(device)
        if artifact:
            self.updates[device] = artifact

    def on_refused(self, device: str, reason: str) -> None:
        """The device cannot, or its report was refused for good."""
        self.machine.on_refused(device, reason)

    def on_accepted(self, device: str, now: float) -> None:
        """Its report is folded and in the store."""
        self.machine.on_accepted(device)
        if not self.resumed:
            self.report_seconds[device] = now - self.machine.opened

    def fold(self, offer: Offer, update: Buffer | None) -> None:
        """Check a report and, after training, fold its update.

        Raises:
            WeightsError: tensors, shapes, numbers or counts are not what this round expects; nothing was folded.
        """
        self.expected.check(offer.report)
        if self.accumulator is not None:
            vector, artifact = self.expected.vector(update, offer.report), _artifact_of(offer)
            self.accumulator.fold(offer.sender, artifact, vector, offer.report.samples)
        self.reports[offer.sender] = offer.report

    def fold_late(self, offer: Offer, update: Buffer | None, origin: Origin, power: float) -> None:
        """Check a report of an earlier round of this network and fold its update, as it is worth now.

        Raises:
            WeightsError: as ``fold``.
        """
        self.expected.check(offer.report)
        staleness = self.work.index - origin.index
        if self.accumulator is not None:
            vector, scale = self.expected.vector(update, offer.report), staleness_weight(staleness, power)
            self.accumulator.fold_late(_artifact_of(offer), vector, offer.report.samples, origin, scale)
        late = LateReport(device=offer.sender, round_id=offer.round_id, staleness=staleness, report=offer.report)
        self.late.append(late)
        self.machine.on_late()

    def record(self, outcome: Outcome, weights: str, how: Affinity, now: float) -> RoundRecord:
        """What the round came to; ``how``: the affinities are averaged over the devices."""
        reports = [*self.reports.values(), *(late.report for late in self.late)]
        affinity = self._affinity(reports, how)
        seconds: Counter[str] = Counter()
        samples: Counter[str] = Counter()
        for report in reports:
            seconds.update(report.seconds)
            samples.update({task: count for task, count in report.samples.items() if task != ENCODER})
        return RoundRecord(
            round_id=self.work.round_id, kind=self.work.kind, group=self.group.name, phase=self.phase,
            index=self.work.index, tasks=self.group.tasks, outcome=outcome, weights=weights,
            selected=list(self.machine.spec.selected),
            learning_rate=self._learning_rate,
            wall_seconds=now - self.machine.opened,
            losses=weighted_losses([(report.losses, report.samples) for report in reports]),
            metrics=weighted_losses([(report.metrics, report.samples) for report in reports]),
            samples=dict(samples), affinity=affinity.matrix.tolist() if affinity else None,
            affinity_devices=affinity.devices.tolist() if affinity else None,
            device_seconds=dict(seconds), device_cpu_seconds=sum(report.cpu_seconds for report in reports),
            affinity_cpu_seconds=sum(report.affinity_cpu_seconds for report in reports),
            multiply_accumulates=self._multiply_accumulates(reports), joules=joules_of(reports),
            refused=self.machine.reasons(), traffic=self.traffic, reports=self.reports, late=self.late,
            base=self.group.weights.artifact if self.accumulator else "",
            report_seconds=self.report_seconds,
            norms=self.accumulator.norms if self.accumulator else {},
            norm_bound=self.accumulator.bound if self.accumulator else 0.0,
        )  # fmt: skip

    def _affinity(self, every: list[Report], how: Affinity) -> RoundAffinity | None:
        """The average over the devices that measured; None if none did."""
        reports = [report for report in every if report.affinity is not None]
        if not reports:
            return None
        matrices = [np.array(report.affinity, np.float64) for report in reports]  # None, not measured, becomes NaN
        counted = self.accumulator.counted if self.accumulator else dict
        samples = [max(counted(report.samples).values()) for report in reports]
        weights = samples if how.weighting == "samples" else None
        return mean_affinity(matrices, weights=weights, quorum=how.quorum, average=how.average)

    def _multiply_accumulates(self, reports: list[Report]) -> dict[str, int]:
        """By method, over all reports: the runs that each device counted, on batches of its size."""
        counted: Counter[str] = Counter()
        stepping = {"train": "train_step", "evaluate": "evaluate"}.get(self.work.kind)
        for report in reports:
            if report.samples.get(ENCODER) == 0:
                continue  # heads only: its steps are not those of the program that was counted
            runs = {"affinity": report.affinity_measurements} | ({stepping: report.steps} if stepping else {})
            for method, count in runs.items():
                counted[method] += count * report.batch_size * self.costs.get(method, 0)
        return {method: count for method, count in counted.items() if count}


def _artifact_of(offer: Offer) -> str:
    return offer.manifest.artifact if offer.manifest else ""


def joules_of(reports: Iterable[Report]) -> dict[Quality, dict[str, float]]:
    """Joules by quality and activity, summed over devices: what was measured is never added to what was estimated."""
    sums: dict[Quality, dict[str, float]] = {}
    for energy in (report.energy for report in reports):
        if energy is not None and energy.joules:
            into = sums.setdefault(energy.quality, {})
            for activity, joules in energy.joules.items():
                into[activity] = into.get(activity, 0.0) + joules
    return sums
