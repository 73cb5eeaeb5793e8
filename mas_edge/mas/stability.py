"""How sure the best split is: the same choice on resampled rounds and devices (bootstrap, Efron 1979).

A resample draws as many rounds as there are, with replacement, and in each drawn round as many of its devices. Its
matrix is the mean over its rounds of the means over their devices, as the orchestrator averages; a pair that none of
them measured keeps its mean over everything. What is asked is for which share of the resamples the best split of all
measurements is still the best. To draw devices too is on the safe side: their differences are in those between rounds
already, but three rounds alone give only ten different resamples.

Standard errors come from the rounds alone, whose differences hold everything that varies, times sqrt(R / (R - 1)): that
makes the bootstrap's variance of a mean of R rounds the unbiased one.

The value of a split is linear in the affinities: one table of all splits, made once, serves every resample. Where there
are too many splits, a short search from the best one stands in, which may overlook a better one: the share is then too
large rather than too small.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mas_edge.mas import tabu
from mas_edge.mas.affinity import AffinityMatrix, self_affinities
from mas_edge.mas.controls import stirling
from mas_edge.mas.limits import GroupLimit, fitting_sets, loads_of
from mas_edge.mas.solvers import rounding_of
from mas_edge.mas.split import Split, best_split, partitions
from mas_edge.mas.subsets import Flags, Floats, Masks, group_gains
from mas_edge.mas.tabu import Problem
from mas_edge.protocol.errors import JobError

RESAMPLES = 200
MOST_IN_TABLE = 20_000  # splits: 7770 of 9 tasks into 4, 9330 of 10 into 3, 2047 of 12 into 2
TABLE_TASKS = 15  # a table of all sets for each resample
PATIENCE = 10  # steps of the short search without a better split


@dataclass(frozen=True, eq=False)
class Stability:
    """What resampling says. ``share``: of the resamples, those in which ``split``, the best of all, is the best.

    ``errors``, shape (n, n): the standard error of each affinity, row = source; of a single round it cannot be known,
    and is 0. ``rounds``: how many were measured.
    """

    split: Split
    share: float
    errors: Floats
    rounds: int


def stability(
    rounds: Sequence[Sequence[Floats]],
    groups: int,
    *,
    tasks: Sequence[str] = (),
    limits: Sequence[GroupLimit] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Stability:
    """Resample the measured affinities of each round and device, arrays of shape (n, n) with NaN where unmeasured.

    ``groups``: N, exactly. ``tasks``: the names that limits and the split use; the positions as text if there are none.

    Raises:
        JobError: nothing was measured, the arrays are not of one square shape, ``groups`` or ``resamples`` cannot be,
            or no split keeps the limits.
    """
    if resamples < 2:
        message = f"bootstrap with {resamples} resamples: expected at least 2"
        raise JobError(message)
    measured = _measured(rounds)
    n, rng = measured[0][0].shape[1], np.random.default_rng(seed)
    names = tuple(tasks) or tuple(map(str, range(n)))
    per_round = [_mean(values, seen, np.ones(len(values))) for values, seen in measured]
    overall, _ = _mean_of(per_round, range(len(per_round)))
    split = best_split(AffinityMatrix(names, overall), groups, limits=limits, seed=seed)
    drawn = [_resample(measured, overall, rng) for _ in range(resamples)]
    best = _are_best(names, drawn, split, loads_of(limits, names))
    return Stability(split, sum(best) / resamples, _errors(per_round, overall, resamples, rng), len(measured))


def is_stable(
    rounds: Sequence[Sequence[Floats]],
    groups: int,
    *,
    tasks: Sequence[str] = (),
    limits: Sequence[GroupLimit] = (),
    resamples: int = RESAMPLES,
    share: float = 0.9,
    at_least_rounds: int = 3,
    seed: int = 0,
) -> bool:
    """Say whether the best split is so in at least ``share`` of the resamples, after ``at_least_rounds`` rounds.

    Arguments and errors as ``stability``; rounds in which no device measured anything do not count.
    """
    measured = [devices for devices in rounds if any(np.isfinite(matrix).any() for matrix in devices)]
    if len(measured) < at_least_rounds:
        return False
    found = stability(measured, groups, tasks=tasks, limits=limits, resamples=resamples, seed=seed)
    return found.share >= share


def _measured(rounds: Sequence[Sequence[Floats]]) -> list[tuple[Floats, Floats]]:
    """Return, of every round, its devices' matrices with 0 for NaN, and where they are measured (1 or 0)."""
    shapes = {matrix.shape for devices in rounds for matrix in devices}
    if len(shapes) != 1 or any(len(shape) != 2 or shape[0] != shape[1] for shape in shapes):
        message = f"affinities of rounds and devices: expected arrays of one shape (n, n), got {sorted(shapes)}"
        raise JobError(message)
    stacked = [np.array(devices, dtype=np.float64) for devices in rounds if devices]
    found = [(np.where(np.isfinite(values), values, 0.0), np.isfinite(values).astype(np.float64)) for values in stacked]
    if not any(seen.any() for _, seen in found):
        message = "affinities of rounds and devices: no pair of tasks was measured; measure more often, or train longer"
        raise JobError(message)
    return found


def _mean(values: Floats, seen: Floats, weights: Floats) -> tuple[Floats, Flags]:
    """Return the mean over devices that count ``weights`` times, 0 where nobody measured, and where somebody did."""
    counts = np.tensordot(weights, seen, axes=1)
    return np.tensordot(weights, values, axes=1) / np.maximum(counts, 1), counts > 0


def _mean_of(means: Sequence[tuple[Floats, Flags]], drawn: Iterable[int]) -> tuple[Floats, Flags]:
    """Return the mean over some rounds, each for the pairs that it measured, 0 for none, and what was measured."""
    total, count = np.zeros_like(means[0][0]), np.zeros_like(means[0][0])
    for at in drawn:
        total += means[at][0]
        count += means[at][1]
    return total / np.maximum(count, 1), count > 0


def _resample(measured: Sequence[tuple[Floats, Floats]], overall: Floats, rng: np.random.Generator) -> Floats:
    means = []
    for at in rng.integers(len(measured), size=len(measured)):
        values, seen = measured[at]
        draws = rng.multinomial(len(values), np.full(len(values), 1 / len(values))).astype(np.float64)
        means.append(_mean(values, seen, draws))
    mean, somebody = _mean_of(means, range(len(means)))
    return np.where(somebody, mean, overall)


def _errors(
    per_round: Sequence[tuple[Floats, Flags]], overall: Floats, resamples: int, rng: np.random.Generator
) -> Floats:
    rounds = len(per_round)
    drawn = [_mean_of(per_round, rng.integers(rounds, size=rounds)) for _ in range(resamples)]
    means = np.array([np.where(somebody, mean, overall) for mean, somebody in drawn])
    errors: Floats = means.std(axis=0, ddof=1) * np.sqrt(rounds / max(rounds - 1, 1))
    return errors


def _are_best(tasks: Sequence[str], matrices: Sequence[Floats], split: Split, loads: Floats) -> list[bool]:
    """Say of each matrix whether no other split into as many groups is better than this one."""
    n, labels = len(tasks), np.empty(len(tasks), np.int64)
    for number, group in enumerate(split.groups):
        labels[[tasks.index(task) for task in group]] = number
    splits, rng = len(split.groups), np.random.default_rng(0)
    table = _table(n, splits, loads) if n <= TABLE_TASKS and stirling(n, splits) <= MOST_IN_TABLE else None
    found = []
    for values in matrices:
        matrix = AffinityMatrix(tuple(tasks), values)
        both_ways = matrix.off_diagonal + matrix.off_diagonal.T
        problem = Problem(both_ways, self_affinities(matrix), loads)
        if table is None:
            best = problem.value(tabu.climb(problem, labels, rng, PATIENCE))
        else:
            best = float(group_gains(both_ways, problem.alone)[table].sum(axis=1).max())
        found.append(best <= problem.value(labels) + rounding_of(problem))
    return found


def _table(n: int, groups: int, loads: Floats) -> Masks:
    """Return the groups of every partition that keeps the limits, as masks, shape (partitions, groups)."""
    masks = [[sum(2**task for task in group) for group in partition] for partition in partitions(n, groups)]
    table = np.array(masks, dtype=np.int64)
    kept: Masks = table[fitting_sets(loads)[table].all(axis=1)]
    return kept
