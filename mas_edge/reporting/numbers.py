"""Every number of a report, in one value: the page shows it, ``--json`` prints it, and nothing is computed elsewhere.

Times are seconds since the epoch, durations seconds of the wall unless they say CPU, energies joules above idle,
sizes bytes of payload and topic.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mas_edge.protocol.messages import Quality

Joules = dict[Quality, float]  # what was measured is never added to what was estimated


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One task's means over all test samples that were evaluated."""

    loss: float
    metric: float
    samples: int
    of_constant: float | None = None  # the loss as a share of the best constant predictor's; None: not known


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A task's training loss in one round."""

    round: int  # counted from 1, through the split
    group: str
    loss: float


class TaskNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one task."""

    name: str
    kind: str
    loss: str  # the name of what is minimised
    metric: str
    group: str  # that answers for it; empty before the split
    train_samples: int  # labelled ones on the fleet
    constant_loss: float | None
    stages: dict[str, Measured]  # of "untrained", "merged", "split" those that there were
    change: float | None  # of the loss from untrained to the last stage, relatively; below 0: it fell
    curve: list[Point]


class AffinityRound(msgspec.Struct, frozen=True, kw_only=True):
    """The mean over the devices that measured in one merged round."""

    round: int
    matrix: list[list[float | None]]  # None: no device measured this pair


class AffinityNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """How a step on the row's task helps the column's: the relative drop of its loss, divided by the step size."""

    tasks: list[str]
    mean: list[list[float | None]] | None  # over the rounds; None before the split
    spread: list[list[float | None]] | None  # standard error of the mean
    devices: list[list[int]] | None  # how many measurements of devices stand behind each pair
    rounds: list[AffinityRound]


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """What a task gets from the others, on average: from those of its group, and from those that it was parted from."""

    task: str
    within: float | None
    across: float | None


class SplitNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The groups, and what they were decided on."""

    groups: dict[str, list[str]]
    serves: dict[str, list[str]]  # the tasks that each group answers for
    value: float | None
    bound: float | None  # what no split that was allowed exceeds
    runner_up: list[list[str]] | None
    runner_up_value: float | None
    reason: str
    candidates: list[dict[str, Any]]  # the numbers of groups that were weighed
    received: list[Recipient]


class PhaseNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What one phase took; the time between its rounds belongs to it."""

    name: str
    began: float
    ended: float | None  # None: it goes on
    rounds: int
    abandoned: int
    device_seconds: dict[str, float]  # by activity, summed over devices
    device_cpu_seconds: float
    affinity_cpu_seconds: float
    multiply_accumulates: int
    sent_bytes: int
    received_bytes: int
    traffic: dict[str, int]  # by kind
    joules: Joules


class EnergySource(msgspec.Struct, frozen=True, kw_only=True):
    """Who says how many joules it took."""

    source: str
    quality: Quality
    error: float  # of an estimate, relative
    devices: list[str]


class EnergyNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """What the work of all devices took."""

    total: Joules
    by_activity: dict[Quality, dict[str, float]]
    sources: list[EnergySource]
    silent: int  # reports without any joules


class DeviceNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part in the run."""

    name: str
    engine: str
    machine: str
    runtime: str  # the version of its agent
    online: bool
    last_seen: float
    selected: int  # rounds that it was told
    reports: int  # that counted, late ones too
    refused: int  # rounds that it could not do, or whose report was refused
    train_samples: dict[str, int]
    cpu_seconds: float
    received_bytes: int
    joules: Joules
    problem: str


class RoundNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One closed round."""

    name: str
    phase: str
    outcome: str
    opened: float
    seconds: float
    selected: int
    reports: int
    late: int


class EventNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the log that is worth a look."""

    time: float
    level: str
    text: str


class RunNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One run, finished or not."""

    run: str
    job_name: str
    fleet: str
    method: str
    phase: str
    done: bool
    written: float  # when these numbers were taken
    started: float
    finished: float | None
    seconds: float  # from the start to the end; of a run that is not done to the last sign of life
    merged_rounds: int
    planned_merged_rounds: int
    split_rounds: int
    planned_split_rounds: int
    abandoned_rounds: int
    tasks: list[TaskNumbers]
    affinity: AffinityNumbers | None
    split: SplitNumbers | None
    phases: list[PhaseNumbers]
    rounds: list[RoundNumbers]
    sent_bytes: int
    received_bytes: int
    energy: EnergyNumbers
    devices: list[DeviceNumbers]
    deployment: dict[str, Any] | None
    events: list[EventNumbers]
    versions: dict[str, str]
    job: dict[str, Any]
    job_file: str  # the job as TOML, every setting written out
