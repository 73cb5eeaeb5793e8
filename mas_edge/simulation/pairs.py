"""Runs in pairs: each run against the reference method's run of the same seed, then means over the seeds. Pure.

Two runs of one seed begin with the same weights of the encoder and meet the same devices, so their difference is less
noisy than either: changes and ratios are formed seed by seed, and averaged afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import msgspec

from mas_edge.simulation.outcome import Outcome, mean_change


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one run."""

    normalised: float  # test loss as a share of the best constant predictor's
    loss: float  # as trained
    raw: float  # in the target's own unit
    metric: float
    change: float | None  # of the loss against the reference's, as a share of it


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run; a number against the reference is None if the reference has no run of this seed."""

    method: str
    seed: int
    groups: list[list[str]]
    tasks: dict[str, TaskRow]
    normalised_total: float
    normalised_change: float | None  # of the total, as a share of the reference's
    raw_total: float
    raw_change: float | None
    mean_change: float | None  # the mean of the tasks' changes
    device_seconds: float  # CPU seconds of training and affinity, over all devices
    device_seconds_ratio: float | None  # to the reference's
    train_seconds: float
    affinity_seconds: float
    affinity_share: float  # of the seconds of training
    multiply_accumulates: int  # of training and affinity
    multiply_accumulates_ratio: float | None
    affinity_multiply_accumulates: int
    bytes_down: int
    bytes_up: int
    energy_joules: float
    energy_ratio: float | None
    energy_source: str
    wall_seconds: float | None  # of the simulation; None if nobody took the time


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One number over the seeds."""

    mean: float
    deviation: float | None  # of a sample; None for a single seed
    values: list[float]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One method over its seeds: the numbers of its rows by their names, and of its tasks' rows by theirs."""

    method: str
    seeds: list[int]  # whose runs are there, in the order of the values
    missing: list[int]
    numbers: dict[str, Spread]
    tasks: dict[str, dict[str, Spread]]


Outcomes = Mapping[tuple[str, int], Outcome]  # by method and seed


def rows_of(outcomes: Outcomes, reference: str, wall_seconds: Mapping[tuple[str, int], float]) -> list[Row]:
    """Return a row a run, each against the ``reference`` method's run of the same seed."""
    return [
        _row(method, seed, run, outcomes.get((reference, seed)), wall_seconds.get((method, seed)))
        for (method, seed), run in outcomes.items()
    ]


def _row(method: str, seed: int, run: Outcome, other: Outcome | None, wall: float | None) -> Row:
    tasks = {
        name: TaskRow(
            normalised=task.normalised, loss=task.loss, raw=task.raw, metric=task.metric,
            change=None if other is None else _change(task.loss, other.tasks[name].loss),
        )
        for name, task in run.tasks.items()
    }  # fmt: skip
    return Row(
        method=method, seed=seed, groups=run.groups, tasks=tasks,
        normalised_total=run.normalised_total,
        normalised_change=None if other is None else _change(run.normalised_total, other.normalised_total),
        raw_total=run.raw_total,
        raw_change=None if other is None else _change(run.raw_total, other.raw_total),
        mean_change=None if other is None else mean_change(run, other),
        device_seconds=run.device_seconds,
        device_seconds_ratio=None if other is None else _ratio(run.device_seconds, other.device_seconds),
        train_seconds=run.train_seconds,
        affinity_seconds=run.affinity_seconds,
        affinity_share=_ratio(run.affinity_seconds, run.train_seconds) or 0.0,
        multiply_accumulates=run.multiply_accumulates,
        multiply_accumulates_ratio=(
            None if other is None else _ratio(run.multiply_accumulates, other.multiply_accumulates)
        ),
        affinity_multiply_accumulates=run.affinity_multiply_accumulates,
        bytes_down=run.bytes_down, bytes_up=run.bytes_up,
        energy_joules=run.energy_joules,
        energy_ratio=None if other is None else _ratio(run.energy_joules, other.energy_joules),
        energy_source=run.energy_source,
        wall_seconds=wall,
    )  # fmt: skip


def _change(value: float, reference: float) -> float | None:
    ratio = _ratio(value, reference)
    return None if ratio is None else ratio - 1


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference else None


def summaries_of(rows: Sequence[Row], methods: Sequence[str], seeds: Sequence[int]) -> list[Summary]:
    """Return a summary for each of ``methods`` over those of ``seeds`` that have a row; none for a method without."""
    found = []
    for method in methods:
        own = {row.seed: row for row in rows if row.method == method}
        there = [seed for seed in seeds if seed in own]
        if there:
            found.append(_summary(method, there, [seed for seed in seeds if seed not in own], own))
    return found


def _summary(method: str, there: list[int], missing: list[int], own: Mapping[int, Row]) -> Summary:
    rows = [own[seed] for seed in there]
    tasks = {name: _spreads([row.tasks[name] for row in rows]) for name in rows[0].tasks}
    return Summary(method=method, seeds=there, missing=missing, numbers=_spreads(rows), tasks=tasks)


def _spreads(structs: Sequence[Row] | Sequence[TaskRow]) -> dict[str, Spread]:
    """The spread of every field that holds a number in some; over those that hold one."""
    spreads = {}
    for name in structs[0].__struct_fields__:
        if name == "seed":
            continue
        values = [value for each in structs if isinstance(value := getattr(each, name), int | float)]
        if values:
            spreads[name] = spread(values)
    return spreads


def spread(values: Sequence[float]) -> Spread:
    """Return mean and deviation of at least one value."""
    return Spread(mean=fmean(values), deviation=stdev(values) if len(values) > 1 else None, values=list(values))


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their mean rank; None if one of them is constant.

    It is Pearson's correlation of the ranks (Spearman 1904), so 1 says that both order the items alike.
    """
    x, y = ranks_in_order(one), ranks_in_order(other)
    middle = (len(x) + 1) / 2  # the mean rank
    covariance = sum((a - middle) * (b - middle) for a, b in zip(x, y, strict=True))
    scale = math.sqrt(sum((a - middle) ** 2 for a in x) * sum((b - middle) ** 2 for b in y))
    return covariance / scale if scale else None


def ranks_in_order(values: Sequence[float]) -> list[float]:
    """Return the rank of each value, the smallest 1; equal values share the mean of their ranks."""
    below = [sum(other < value for other in values) for value in values]
    equal = [sum(other == value for other in values) for value in values]
    return [less + (same + 1) / 2 for less, same in zip(below, equal, strict=True)]
