"""What the orchestrator writes down about a round; the same numbers reach ``status``, the result and the plots."""

from __future__ import annotations

from typing import Literal

import msgspec

from mas_edge.federation.quarantine import Standing
from mas_edge.protocol.messages import PlanKind, Quality, Report

ArtifactKind = Literal["program", "weights", "model", "golden", "metadata"]


class Traffic(msgspec.Struct, kw_only=True):
    """Bytes of payload and topic that crossed the broker for one round, by direction and kind."""

    sent_control: int = 0
    sent_program: int = 0
    sent_weights: int = 0
    sent_model: int = 0
    sent_golden: int = 0
    sent_metadata: int = 0  # of signing
    received_control: int = 0
    received_update: int = 0

    def add_sent(self, kind: ArtifactKind, size: int) -> None:
        """Count a chunk."""
        name = f"sent_{kind}"
        setattr(self, name, getattr(self, name) + size)

    @property
    def sent(self) -> int:
        """Everything the orchestrator published."""
        models = self.sent_program + self.sent_weights + self.sent_model + self.sent_golden
        return self.sent_control + models + self.sent_metadata

    @property
    def received(self) -> int:
        """Everything that came from devices."""
        return self.received_control + self.received_update


class LateReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a round that had closed; it counts in the one whose record holds it."""

    device: str
    round_id: str  # that it is of
    staleness: int  # rounds between the two
    report: Report


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A closed round."""

    round_id: str
    kind: PlanKind
    group: str
    phase: str
    index: int
    tasks: list[str]
    outcome: str
    selected: list[str]
    learning_rate: float = 0.0
    wall_seconds: float
    weights: str = ""  # the artifact that came out of a training round
    losses: dict[str, float] = {}
    metrics: dict[str, float] = {}
    samples: dict[str, int] = {}
    affinity: list[list[float]] | None = None
    affinity_devices: list[list[int]] | None = None  # how many devices stand behind each pair
    device_seconds: dict[str, float] = {}  # by activity, summed over devices
    device_cpu_seconds: float = 0.0
    affinity_cpu_seconds: float = 0.0  # of them
    multiply_accumulates: dict[str, int] = {}  # by method, summed over devices; counted from the programs' graphs
    joules: dict[Quality, dict[str, float]] = {}  # by quality and activity, above idle, summed over devices
    refused: dict[str, str] = {}
    traffic: Traffic = msgspec.field(default_factory=Traffic)
    reports: dict[str, Report] = {}
    late: list[LateReport] = []  # reports of earlier rounds that count in this one
    stragglers: list[str] = []  # devices that still worked when it closed, and whose reports are still wanted
    base: str = ""  # the artifact that a training round began from
    report_seconds: dict[str, float] = {}  # from the opening to the report; none after a restart in between
    norms: dict[str, float] = {}  # by device, of what its update changes, where the job bounds it
    norm_bound: float = 0.0  # beyond which they were clipped; 0: none was

    @property
    def every_report(self) -> list[Report]:
        """Those of its own devices and the late ones: what its losses, affinities and weights are means of."""
        return [*self.reports.values(), *(late.report for late in self.late)]


class DeviceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the orchestrator last saw it."""

    name: str
    online: bool
    engine: str = ""
    machine: str = ""
    runtime: str = ""
    last_seen: float = 0.0  # seconds since the epoch
    tasks: dict[str, int] = {}  # labelled train samples
    problem: str = ""  # why it cannot serve this job
    no_model: str = ""  # why it will get no model of this job
    standing: Standing = Standing()  # strikes against it, and until when it is in quarantine


class CandidateRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One number of groups that was weighed (see ``mas_edge.mas.automatic``)."""

    groups: int
    value: float
    gain: float
    noise: float
    cost: float
    chosen: bool


class SplitRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The groups and what they were decided on."""

    tasks: list[str]
    groups: list[list[str]]
    serves: list[list[str]]  # the tasks that each group answers for; where groups overlap, one group a task
    affinity: list[list[float]] | None = None  # mean over the merged rounds
    affinity_devices: list[list[int]] | None = None
    affinity_spread: list[list[float | None]] | None = None  # standard error of the mean over rounds
    value: float | None = None
    bound: float | None = None  # what no split that was allowed exceeds
    runner_up: list[list[str]] | None = None
    runner_up_value: float | None = None
    reason: str = ""  # why this number of groups
    candidates: list[CandidateRecord] = []
