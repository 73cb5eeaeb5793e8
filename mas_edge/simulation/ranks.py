"""Where a split stands among all of its size, when every group of such splits was trained (``every-N``). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import msgspec
import numpy as np

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.controls import Ranked, rank_of, ranked
from mas_edge.mas.split import value_of
from mas_edge.protocol.errors import JobError
from mas_edge.simulation.pairs import Row, spearman

Groups = Sequence[Sequence[str]]
KINDS = ("normalised", "raw")


class RankedSplit(msgspec.Struct, frozen=True, kw_only=True):
    """One of all splits."""

    groups: list[list[str]]
    normalised: float  # total, mean over tasks
    raw: float  # total, sum over tasks
    value: float | None  # what the affinity promised of it


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """All splits into that many groups, from one warm-up; the smallest normalised total first."""

    groups: int
    seed: int
    splits: list[RankedSplit]
    normalised_spearman: float | None  # of the affinity's value and the total; -1 if the affinity orders all rightly
    raw_spearman: float | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one split stands by one total; margins are shares of what it is compared with, positive if it is better."""

    rank: int  # 1: none has a smaller total
    of: int
    total: float
    best: float
    mean: float
    worst: float
    margin_to_mean: float
    margin_to_worst: float


class SplitRank(msgspec.Struct, frozen=True, kw_only=True):
    """The place of the split of one run."""

    method: str
    seed: int
    groups: list[list[str]]
    normalised: Place
    raw: Place


def ranking_of(result: Mapping[str, Any], groups: int, seed: int) -> Ranking:
    """Rank all splits into exactly ``groups`` groups by the result of a run of ``every-N``.

    Raises:
        JobError: a group that occurs in such a split was not evaluated.
    """
    tasks = [task["name"] for task in result["job"]["tasks"]]
    units = {task["name"]: float(task["unit"]) for task in result["job"]["tasks"]}
    constants = result["constant_loss"] or {}
    measured = {frozenset(record["tasks"]): record["losses"] for record in result["rounds"] if _is_evaluation(record)}
    normal = _scaled(measured, {task: 1 / constants.get(task, 1.0) / len(tasks) for task in tasks})
    raw = {_key(split): split.total for split in ranked(tasks, _scaled(measured, units), groups)}
    matrix = _matrix(result)
    splits = [
        RankedSplit(
            groups=[list(group) for group in split.groups], normalised=split.total, raw=raw[_key(split)],
            value=None if matrix is None else value_of(matrix, split.groups),
        )
        for split in ranked(tasks, normal, groups)
    ]  # fmt: skip
    values = [split.value for split in splits if split.value is not None]
    against = [spearman(values, [getattr(split, kind) for split in splits]) if values else None for kind in KINDS]
    return Ranking(
        groups=groups, seed=seed, splits=splits, normalised_spearman=against[0], raw_spearman=against[1]
    )  # fmt: skip


def _is_evaluation(record: Mapping[str, str]) -> bool:
    """Of a group, at the end, by enough devices."""
    return (record["kind"], record["phase"]) == ("evaluate", "group_evaluation") and record["outcome"] != "abandoned"


def _scaled(
    measured: Mapping[frozenset[str], Mapping[str, float]], by: Mapping[str, float]
) -> dict[frozenset[str], dict[str, float]]:
    return {group: {task: loss * by[task] for task, loss in losses.items()} for group, losses in measured.items()}


def _key(split: Ranked) -> frozenset[frozenset[str]]:
    return frozenset(map(frozenset, split.groups))


def _matrix(result: Mapping[str, Any]) -> AffinityMatrix | None:
    found = result["affinity"]
    return None if found is None else AffinityMatrix(tuple(found["tasks"]), np.array(found["matrix"], np.float64))


def split_ranks(rows: Sequence[Row], rankings: Sequence[Ranking]) -> list[SplitRank]:
    """Return the place of every run's split of which all others of its size were trained from the same seed.

    Groups that overlap are no split and have no place.
    """
    found = []
    for row in rows:
        for ranking in rankings:
            if (ranking.seed, ranking.groups) == (row.seed, len(row.groups)):
                found += _places(row, ranking)
    return found


def _places(row: Row, ranking: Ranking) -> list[SplitRank]:
    try:
        normalised, raw = (place_of(row.groups, ranking, kind) for kind in KINDS)
    except JobError:  # groups that overlap
        return []
    return [SplitRank(method=row.method, seed=row.seed, groups=row.groups, normalised=normalised, raw=raw)]


def place_of(groups: Groups, ranking: Ranking, kind: str) -> Place:
    """Return where a split stands by its ``kind`` of total, ``normalised`` or ``raw``.

    Raises:
        JobError: the split is not among them.
    """
    listed = [Ranked(getattr(split, kind), tuple(map(tuple, split.groups))) for split in ranking.splits]
    rank = rank_of(groups, listed)
    totals = sorted(split.total for split in listed)
    own, mean, worst = totals[rank - 1], fmean(totals), totals[-1]
    return Place(
        rank=rank, of=len(totals), total=own, best=totals[0], mean=mean, worst=worst,
        margin_to_mean=1 - own / mean, margin_to_worst=1 - own / worst,
    )  # fmt: skip
