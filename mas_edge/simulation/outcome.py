"""What a run came to in the numbers that methods are compared by.

Losses three ways, side by side: *raw*, the sum of the test losses in the targets' own units (dominated by the task with
the largest unit); *normalised*, the mean over tasks of the loss divided by that of the best constant predictor (1 = has
learned nothing); and, against another run, the mean relative change per task. Cost is that of training: evaluations are
the same for every method and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

# What a core of a small board draws when it is busy, beside what the board draws idle: 4 cores of a Raspberry Pi 4 draw
# about 3.5 W more under full load. An estimate: ratios between methods are those of the device seconds.
WATTS_PER_CORE = 0.9
ENERGY_SOURCE = f"estimated: CPU seconds of training and affinity x {WATTS_PER_CORE} W a busy core"
NO_ENERGY = "not known: a graphics processor's draw was not measured"
TRAINING = ("merge", "probe", "groups")


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One task's test loss over all devices."""

    loss: float  # as trained
    raw: float  # in the target's own unit
    normalised: float  # as a share of the best constant predictor's
    metric: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    tasks: dict[str, TaskOutcome]
    raw_total: float
    normalised_total: float  # mean over tasks
    groups: list[list[str]]
    train_seconds: float  # CPU seconds on the devices; on a graphics processor wall seconds
    affinity_seconds: float
    multiply_accumulates: int
    affinity_multiply_accumulates: int
    bytes_down: int
    bytes_up: int
    energy_joules: float
    energy_source: str

    @property
    def device_seconds(self) -> float:
        """Training and affinity."""
        return self.train_seconds + self.affinity_seconds


def outcome_of(result: Mapping[str, Any], device: str = "cpu") -> Outcome:
    """The numbers of a run whose groups are trained and evaluated, out of its ``result`` with ``constant_loss``.

    ``device``: ``cpu``, or ``cuda`` for a run on a graphics processor, whose work no CPU second counts.
    """
    units = {task["name"]: float(task["unit"]) for task in result["job"]["tasks"]}
    constants = result["constant_loss"] or {}
    tasks = {
        name: TaskOutcome(
            loss=found["loss"], raw=found["loss"] * units[name], metric=found["metric"],
            normalised=found["loss"] / constants.get(name, 1.0),
        )
        for name, found in result["evaluation"]["split"].items()
    }  # fmt: skip
    phases = [phase for name, phase in result["phases"].items() if name in TRAINING]
    macs = [phase["multiply_accumulates"] for phase in phases]
    affinity, seconds = (
        (_total(phases, "affinity_cpu_seconds"), _total(phases, "device_cpu_seconds"))
        if device == "cpu"
        else (_wall(phases, "affinity"), _wall(phases, "affinity") + _wall(phases, "train"))
    )
    return Outcome(
        tasks=tasks,
        raw_total=sum(task.raw for task in tasks.values()),
        normalised_total=sum(task.normalised for task in tasks.values()) / len(tasks),
        groups=result["split"]["groups"],
        train_seconds=seconds - affinity,
        affinity_seconds=affinity,
        multiply_accumulates=sum(sum(counted.values()) for counted in macs),
        affinity_multiply_accumulates=sum(counted.get("affinity", 0) for counted in macs),
        bytes_down=sum(phase["sent_bytes"] for phase in phases),
        bytes_up=sum(phase["received_bytes"] for phase in phases),
        energy_joules=seconds * WATTS_PER_CORE if device == "cpu" else 0.0,
        energy_source=ENERGY_SOURCE if device == "cpu" else NO_ENERGY,
    )


def _total(phases: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(sum(phase[key] for phase in phases))


def _wall(phases: Sequence[Mapping[str, Any]], activity: str) -> float:
    return float(sum(phase["device_seconds"].get(activity, 0.0) for phase in phases))


def mean_change(run: Outcome, reference: Outcome) -> float:
    """The mean over tasks of how much higher a run's loss is than the reference's, as a share of the latter."""
    changes = [task.loss / reference.tasks[name].loss - 1 for name, task in run.tasks.items()]
    return sum(changes) / len(changes)
