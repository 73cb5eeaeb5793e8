"""What the closed rounds of a run add up to, folded in as they close: reports are decoded once, and not kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec.structs import replace

from mas_edge.orchestrator.records import RoundRecord, Traffic
from mas_edge.protocol.messages import Board, Report
from mas_edge.web.shapes import EnergySource, Joules, LastError, PhaseTraffic, RoundAffinityView, RoundView

_KINDS = Traffic.__struct_fields__


@dataclass
class Work:
    """What a device has done in this run."""

    selected: int = 0
    reports: int = 0
    last_round: str = ""
    last_error: LastError | None = None
    cpu_seconds: float = 0.0
    received_bytes: int = 0
    joules: Joules = field(default_factory=dict)
    energy_source: str = ""
    board: Board | None = None


@dataclass
class Ledger:
    """Everything that is remembered of closed rounds, without their reports."""

    records: dict[int, RoundRecord] = field(default_factory=dict)  # by number; reports are left out
    rounds: dict[int, RoundView] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)  # training rounds that count, by phase
    last_trained: dict[str, RoundView] = field(default_factory=dict)  # that with the greatest index, by group
    work: dict[str, Work] = field(default_factory=dict)
    traffic: dict[str, PhaseTraffic] = field(default_factory=dict)  # by phase
    phase_joules: dict[str, Joules] = field(default_factory=dict)
    group_joules: dict[str, Joules] = field(default_factory=dict)
    affinities: dict[int, RoundAffinityView] = field(default_factory=dict)  # as they were shown, by number
    sources: dict[tuple[str, str], EnergySource] = field(default_factory=dict)
    silent: int = 0

    def add(self, number: int, opened: float, closed: float, record: RoundRecord) -> None:
        """Take in a round that has closed; each number once."""
        self.rounds[number] = view = view_of(number, opened, closed, record)
        if view.kind == "train" and view.outcome != "abandoned":
            self.trained[view.phase] = self.trained.get(view.phase, 0) + 1
            self.last_trained[view.group] = max(
                view, self.last_trained.get(view.group, view), key=lambda each: each.index
            )
        self._costs(record)
        for device in record.selected:
            self._of(device).selected += 1
        for device, report in record.reports.items():
            self._report(device, record.round_id, report, closed)
        for late in record.late:
            self._report(late.device, late.round_id, late.report, closed)
        for device, reason in record.refused.items():
            self._of(device).last_error = LastError(round_id=record.round_id, reason=reason, time=closed)
        self.records[number] = replace(record, reports={}, late=[])

    def _costs(self, record: RoundRecord) -> None:
        joules = {str(quality): activities for quality, activities in record.joules.items()}
        add_joules(self.phase_joules.setdefault(record.phase, {}), joules)
        add_joules(self.group_joules.setdefault(record.group, {}), joules)
        sums = self.traffic.get(record.phase) or PhaseTraffic(
            phase=record.phase,
            rounds=0,
            wall_seconds=0.0,
            sent_bytes=0,
            received_bytes=0,
            kinds=dict.fromkeys(_KINDS, 0),
        )
        self.traffic[record.phase] = replace(
            sums, rounds=sums.rounds + 1, wall_seconds=sums.wall_seconds + record.wall_seconds,
            sent_bytes=sums.sent_bytes + record.traffic.sent,
            received_bytes=sums.received_bytes + record.traffic.received,
            kinds={name: size + getattr(record.traffic, name) for name, size in sums.kinds.items()},
        )  # fmt: skip

    def _of(self, device: str) -> Work:
        return self.work.setdefault(device, Work())

    def _report(self, device: str, round_id: str, report: Report, closed: float) -> None:
        work = self._of(device)
        work.reports += 1
        work.last_round = round_id
        work.cpu_seconds += report.cpu_seconds
        work.received_bytes += report.received_bytes
        work.board = report.board or work.board
        if report.healthy is False:
            work.last_error = LastError(round_id=round_id, reason=report.health_reason, time=closed)
        energy = report.energy
        if energy is None or not energy.joules:
            self.silent += 1
            return
        work.energy_source = energy.source
        add_joules(work.joules, {energy.quality: energy.joules})
        key = (energy.source, energy.quality)
        known = self.sources.get(key) or EnergySource(source=energy.source, quality=energy.quality, error=0, devices=[])
        devices = known.devices if device in known.devices else sorted([*known.devices, device])
        self.sources[key] = replace(known, error=max(known.error, energy.error), devices=devices)


def add_joules(into: Joules, more: dict[str, dict[str, float]] | Joules) -> None:
    """Add up by quality and activity; measured and estimated stay apart."""
    for quality, activities in more.items():
        sums = into.setdefault(quality, {})
        for activity, value in activities.items():
            sums[activity] = sums.get(activity, 0.0) + value


def view_of(number: int, opened: float, closed: float, record: RoundRecord) -> RoundView:
    """A closed round as lists show it."""
    return RoundView(
        number=number, round_id=record.round_id, kind=record.kind, group=record.group, phase=record.phase,
        index=record.index, tasks=record.tasks, outcome=record.outcome, opened=opened, closed=closed,
        wall_seconds=record.wall_seconds, learning_rate=record.learning_rate, selected=len(record.selected),
        reports=len(record.reports), late=len(record.late), refused=len(record.refused), losses=record.losses,
        metrics=record.metrics, samples=record.samples, sent_bytes=record.traffic.sent,
        received_bytes=record.traffic.received,
        joules={str(quality): activities for quality, activities in record.joules.items()},
    )  # fmt: skip
