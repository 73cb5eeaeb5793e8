"""What a run has found out: task affinity round by round, and the split with what it was decided on. Pure functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.split import value_of
from mas_edge.orchestrator.decision import measured_affinity
from mas_edge.orchestrator.records import SplitRecord
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.web.answers import measured_rounds, short
from mas_edge.web.mirror import Known
from mas_edge.web.shapes import AffinityView, Alternative, Matrix, MeanAffinityView, RoundAffinityView, SplitView

Groups = list[list[str]]


def affinity_view(known: Known) -> AffinityView:
    """The affinity of every round that measured any, and their mean."""
    shown = known.ledger.affinities
    for number, record in measured_rounds(known):
        if number not in shown:
            shown[number] = RoundAffinityView(
                number=number, round_id=record.round_id, index=record.index, matrix=short(record.affinity or []),
                devices=record.affinity_devices or [],
            )  # fmt: skip
    rounds = [shown[number] for number in sorted(shown)]
    tasks = [task.name for task in known.job.tasks]
    return AffinityView(kind=known.job.affinity.kind, tasks=tasks, rounds=rounds, average=average_of(known))


def average_of(known: Known) -> MeanAffinityView | None:
    """The mean affinity; None: nobody has measured yet."""
    try:
        found = measured_affinity([record for _, record in sorted(known.ledger.records.items())])
    except ServerError:  # nobody has measured yet
        return None
    spread = [[None if math.isnan(value) else float(f"{value:.6g}") for value in row] for row in found.spread.tolist()]
    return MeanAffinityView(
        matrix=short(found.matrix), devices=found.devices.tolist(), rounds=found.rounds.tolist(), spread=spread
    )


def split_view(known: Known) -> SplitView:
    """The groups and why; before the decision only which tasks there are."""
    tasks, split = [task.name for task in known.job.tasks], known.split
    if split is None:
        return SplitView(decided=False, method=known.job.method.name, tasks=tasks)
    within, across = contrast(split)
    return SplitView(
        decided=True, method=known.job.method.name, tasks=split.tasks, groups=split.groups, serves=split.serves,
        value=split.value, bound=split.bound, reason=split.reason, within=within, across=across,
        affinity=split.affinity, spread=split.affinity_spread, alternatives=_alternatives(split),
        candidates=split.candidates,
    )  # fmt: skip


def contrast(split: SplitRecord) -> tuple[float | None, float | None]:
    """Mean affinity of the pairs of tasks in one group, and of those in no common one; None where there are none."""
    if split.affinity is None:
        return None, None
    matrix, pairs = np.array(split.affinity, np.float64), _together(split.tasks, split.groups)
    apart = ~pairs & ~np.eye(len(split.tasks), dtype=bool)
    return _mean(matrix, pairs), _mean(matrix, apart)


def _together(tasks: list[str], groups: Groups) -> NDArray[np.bool_]:
    pairs = np.zeros((len(tasks), len(tasks)), bool)
    for group in groups:
        places = [tasks.index(task) for task in group]
        pairs[np.ix_(places, places)] = True
    np.fill_diagonal(pairs, val=False)
    return pairs


def _mean(matrix: NDArray[np.float64], where: NDArray[np.bool_]) -> float | None:
    return float(matrix[where].mean()) if where.any() else None


def _alternatives(split: SplitRecord) -> list[Alternative]:
    """The best split that was not chosen, and the two that need no search; only where groups do not overlap."""
    if split.affinity is None or split.value is None:
        return []
    found = [("all tasks together", [split.tasks]), ("each task alone", [[task] for task in split.tasks])]
    alternatives = [(name, groups, _value(split.tasks, split.affinity, groups)) for name, groups in found]
    runner_up = [("runner-up", split.runner_up, split.runner_up_value)] if split.runner_up else []
    return [
        Alternative(name=name, groups=groups, value=value)
        for name, groups, value in [*runner_up, *alternatives]
        if value is not None and _unlike(groups, split.groups)
    ]


def _value(tasks: list[str], matrix: Matrix, groups: Groups) -> float | None:
    try:
        return value_of(AffinityMatrix(tuple(tasks), np.array(matrix, np.float64)), groups)
    except JobError:
        return None


def _unlike(one: Groups, other: Groups) -> bool:
    return {frozenset(group) for group in one} != {frozenset(group) for group in other}
