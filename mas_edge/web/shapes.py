"""What the API answers with. Times are seconds since the epoch, durations seconds, sizes bytes, energy joules."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mas_edge.federation.quarantine import Standing
from mas_edge.federation.rollout import RolloutState, Verb
from mas_edge.federation.rollout import Standing as ModelStanding
from mas_edge.orchestrator.records import CandidateRecord
from mas_edge.protocol.messages import Board

PhaseState = Literal["passed_over", "done", "current", "ahead", "aborted"]
OrderState = Literal["waiting", "done", "refused"]
Joules = dict[str, dict[str, float]]  # by quality ("measured", "estimated") and activity
Matrix = list[list[float]]  # row = source, column = recipient, in the order of the tasks


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""


class TaskView(Shape, frozen=True, kw_only=True):
    """A task of the job."""

    name: str
    kind: str
    loss: str
    metric: str


class PhaseView(Shape, frozen=True, kw_only=True):
    """A step of the job. ``passed_over``: this job's method has nothing to do in it; ``aborted``: it ended there."""

    name: str
    state: PhaseState


class Progress(Shape, frozen=True, kw_only=True):
    """Training rounds that are done and that are to be expected; how many groups there will be may be open yet."""

    merged: int
    merged_planned: int
    groups: int
    groups_planned: int
    share: float  # of all of them, 0 to 1


class OpenRoundView(Shape, frozen=True, kw_only=True):
    """A round that is running."""

    number: int
    round_id: str
    kind: str
    group: str
    phase: str
    index: int
    opened: float
    selected: list[str]
    reports: int
    deadline_s: float


class LastLosses(Shape, frozen=True, kw_only=True):
    """The newest training round of a network."""

    group: str
    round_id: str
    index: int
    losses: dict[str, float]


class RunView(Shape, frozen=True, kw_only=True):
    """The run: which job, where it stands, since when."""

    run: str
    name: str
    fleet: str
    method: str
    tasks: list[TaskView]
    phase: str
    phases: list[PhaseView]
    control: str  # "running", "held", "paused", "aborted": what the operator has said last
    served: bool  # whether an orchestrator works on it now
    members: bool  # whether a fleet belongs to it, whose members /api/fleet tells
    started: float
    finished: float | None
    progress: Progress
    open_rounds: list[OpenRoundView]
    last_losses: list[LastLosses]
    devices: int
    online: int
    job: dict[str, Any]  # the whole job file


class RoundView(Shape, frozen=True, kw_only=True):
    """A round in a list. ``number`` grows with every round that is opened; it is the cursor of the list."""

    number: int
    round_id: str
    kind: str
    group: str
    phase: str
    index: int
    tasks: list[str]
    outcome: str  # empty while it is open
    opened: float
    closed: float | None
    wall_seconds: float | None = None
    learning_rate: float = 0.0
    selected: int = 0
    reports: int = 0
    late: int = 0
    refused: int = 0
    losses: dict[str, float] = {}
    metrics: dict[str, float] = {}
    samples: dict[str, int] = {}
    sent_bytes: int = 0
    received_bytes: int = 0
    joules: Joules = {}


class RoundPage(Shape, frozen=True, kw_only=True):
    """Rounds in the order of their opening. ``next``: the ``after`` of the following page; None: this was the last."""

    items: list[RoundView]
    next: int | None
    total: int


class EventView(Shape, frozen=True, kw_only=True):
    """A line of the event log."""

    number: int
    time: float
    level: str
    text: str


class EventPage(Shape, frozen=True, kw_only=True):
    """Lines of the event log, oldest first. ``next`` is what to give as ``after`` for those that come later."""

    items: list[EventView]
    next: int


class LastError(Shape, frozen=True, kw_only=True):
    """Why a device's part in a round came to nothing."""

    round_id: str
    reason: str
    time: float


class DeviceView(Shape, frozen=True, kw_only=True):
    """A device as the orchestrator last saw it, and what it has done in this run."""

    name: str
    online: bool
    engine: str
    machine: str
    runtime: str
    last_seen: float
    tasks: dict[str, int]  # labelled train samples
    problem: str  # why it cannot serve this job; empty: it can
    no_model: str  # why it will get no model; empty: it will
    standing: Standing  # strikes against it, and until when it is in quarantine
    working_on: list[str]  # open rounds that it was drawn for
    selected: int = 0  # rounds it was drawn for
    reports: int = 0  # rounds in which it reported
    last_round: str = ""
    last_error: LastError | None = None
    cpu_seconds: float = 0.0
    received_bytes: int = 0  # of programs, weights and models
    joules: Joules = {}
    energy_source: str = ""
    board: Board | None = None  # battery and heat as it told them last; None: it has not
    models: dict[str, ModelStanding] = {}  # by group, of the last rollout
    membership: str = ""  # in the fleet: invited, waiting, enrolled, expired, revoked; empty: no fleet is served


class DeviceList(Shape, frozen=True, kw_only=True):
    """Every device, by name."""

    items: list[DeviceView]


class RoundAffinityView(Shape, frozen=True, kw_only=True):
    """What the devices measured in one round; ``devices``: how many stand behind each pair, 0: nobody measured it."""

    number: int
    round_id: str
    index: int
    matrix: Matrix
    devices: list[list[int]]


class MeanAffinityView(Shape, frozen=True, kw_only=True):
    """The mean over the rounds; ``spread``: its standard error, None where fewer than two rounds measured the pair."""

    matrix: Matrix
    devices: list[list[int]]
    rounds: list[list[int]]
    spread: list[list[float | None]]


class AffinityView(Shape, frozen=True, kw_only=True):
    """Task affinity: how much a step on one task (row) lowers the loss of another (column), round by round."""

    kind: str
    tasks: list[str]
    rounds: list[RoundAffinityView]
    average: MeanAffinityView | None  # None: nobody has measured yet


class Alternative(Shape, frozen=True, kw_only=True):
    """A split that was not chosen, and what it would have been worth."""

    name: str
    groups: list[list[str]]
    value: float


class SplitView(Shape, frozen=True, kw_only=True):
    """The split and what it was decided on; ``decided`` False: it is still to come, and the rest is empty."""

    decided: bool
    method: str
    tasks: list[str]
    groups: list[list[str]] = []
    serves: list[list[str]] = []
    value: float | None = None
    bound: float | None = None  # what no split that was allowed exceeds
    reason: str = ""
    within: float | None = None  # mean affinity of the pairs inside a group
    across: float | None = None  # ... and of those that it parts
    affinity: Matrix | None = None
    spread: list[list[float | None]] | None = None
    alternatives: list[Alternative] = []
    candidates: list[CandidateRecord] = []  # the numbers of groups that were weighed


class ArtifactView(Shape, frozen=True, kw_only=True):
    """A program, weights, a model or golden outputs of a network. ``engine``: or the model's format."""

    group: str
    kind: Literal["program", "weights", "model", "golden"]
    engine: str
    artifact: str  # sha256
    size: int
    present: bool  # on the server's disk


class ArtifactList(Shape, frozen=True, kw_only=True):
    """The artifacts of every network of the job."""

    items: list[ArtifactView]


class RolloutView(Shape, frozen=True, kw_only=True):
    """A rollout: its stages, how devices stand, and the words that it takes now."""

    state: RolloutState
    standings: dict[str, dict[str, ModelStanding]]  # by device and group
    counts: dict[str, int]  # devices by the least stage of their groups
    verbs: list[Verb]


class RolloutList(Shape, frozen=True, kw_only=True):
    """``current``: the last rollout; None: there was none. ``ready``: the models are there, one can begin."""

    current: RolloutView | None
    ready: bool


class PhaseTraffic(Shape, frozen=True, kw_only=True):
    """Bytes of payload and topic that crossed the broker in one phase."""

    phase: str
    rounds: int
    wall_seconds: float
    sent_bytes: int
    received_bytes: int
    kinds: dict[str, int]  # sent_program, sent_weights, ..., received_update


class TrafficView(Shape, frozen=True, kw_only=True):
    """By phase, in their order, and all together."""

    phases: list[PhaseTraffic]
    sent_bytes: int
    received_bytes: int


class EnergySource(Shape, frozen=True, kw_only=True):
    """A sensor, or what an estimate is made of, and the devices that it speaks for."""

    source: str
    quality: str
    error: float  # of an estimate, relative
    devices: list[str]


class EnergyView(Shape, frozen=True, kw_only=True):
    """Joules above idle of all devices; measured and estimated are never added up."""

    phases: dict[str, Joules]
    groups: dict[str, Joules]
    sources: list[EnergySource]
    silent: int  # reports without any joules


class OrderView(Shape, frozen=True, kw_only=True):
    """What was asked, and what became of it: it waits for the orchestrator, is done, or was refused (``answer``)."""

    id: str
    verb: str
    who: str  # the name of the token that it came with, or whose command line
    placed: float
    taken: float | None = None  # of orders on the job
    state: OrderState
    answer: str


class OrderList(Shape, frozen=True, kw_only=True):
    """Newest first."""

    items: list[OrderView]


class MemberView(Shape, frozen=True, kw_only=True):
    """A name in the fleet; ``key``: the fingerprint to compare before a device that waits is approved."""

    name: str
    state: str
    key: str
    expires: float


class MemberList(Shape, frozen=True, kw_only=True):
    """By name."""

    items: list[MemberView]


class Health(Shape, frozen=True, kw_only=True):
    """Whether the state can be read."""

    status: Literal["ok", "unavailable"]
