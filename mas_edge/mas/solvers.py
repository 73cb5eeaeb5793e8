"""Two ways to find the best partition, with the same three methods: the exact one, and one for many tasks.

Partitions are positions of tasks here; names, and what to say when nothing fits, are the concern of ``split``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mas_edge.mas import tabu
from mas_edge.mas.bound import Relaxation, upper_bound
from mas_edge.mas.exact import ExactSearch
from mas_edge.mas.limits import Positions, fitting_sets, largest_groups, packed, surely_needed
from mas_edge.mas.subsets import group_gains, members
from mas_edge.mas.tabu import Labels, Problem

# The exact search is taken for as many steps: 2.5 s on one server core. That is 20 tasks for one number of groups, and
# 18 for all numbers at once.
EXACT_STEPS = 1.2e9
EXACT_TASKS = 20  # tables of all sets: 8 MB each
SEARCHES = 36  # starts of the tabu search, shared among the numbers of groups that are asked for


class Solver(Protocol):
    """Finds partitions into any of the numbers of groups that it was made for."""

    exact: bool

    def best(self, counts: Sequence[int]) -> Positions:
        """Return the best partition into one of these numbers of groups; () if none fits."""

    def runner_up(self, counts: Sequence[int]) -> Positions:
        """Return the best other one; () if there is none."""

    def bound(self, counts: Sequence[int], reached: float) -> float:
        """Return what no partition exceeds (sum of scores); ``reached``: the sum of the best that was found."""


def solver(problem: Problem, counts: Sequence[int], seed: int) -> Solver:
    """Return the exact solver where it is quick enough, else the other; both have solved every sub-problem."""
    return ExactSolver(problem, counts) if is_exact(len(problem.alone), counts) else TabuSolver(problem, counts, seed)


def is_exact(n: int, counts: Sequence[int]) -> bool:
    """Say whether the exact solver is taken for n tasks and these numbers of groups."""
    layers = 1.5 if len(counts) == 1 else max(counts) - 1
    return n <= EXACT_TASKS and (max(counts) <= 2 or layers * 3 ** (n - 1) / 2 <= EXACT_STEPS)


def rounding_of(problem: Problem) -> float:
    """Return twice a bound on the rounding error of a sum of gains.

    A group of m tasks sums up to m^2 values of both ways in 2 m steps, divides by m - 1, and the groups' m add up to n.
    """
    most = float(np.abs(problem.both_ways).max(initial=0.0))
    return 4 * len(problem.alone) ** 2 * float(np.finfo(np.float64).eps) * most


class ExactSolver:
    """Every sub-problem solved: what it returns is the maximum."""

    exact = True

    def __init__(self, problem: Problem, counts: Sequence[int]) -> None:
        gains = group_gains(problem.both_ways, problem.alone)
        gains[~fitting_sets(problem.loads)] = -np.inf
        self._search = ExactSearch(gains, counts, rounding_of(problem))

    def best(self, counts: Sequence[int]) -> Positions:
        """Return the best partition into one of these numbers of groups; () if none fits."""
        return tuple(map(members, self._search.best(counts)))

    def runner_up(self, counts: Sequence[int]) -> Positions:
        """Return the best other one; () if there is none."""
        return tuple(map(members, self._search.runner_up(counts)))

    def bound(self, counts: Sequence[int], reached: float) -> float:
        """Return ``reached``: nothing is better than the best."""
        del counts
        return reached


class TabuSolver:
    """Good partitions and a proven bound: for more tasks than the exact solver can take."""

    exact = False

    def __init__(self, problem: Problem, counts: Sequence[int], seed: int) -> None:
        self._problem = problem
        home = packed(problem.loads, seed)
        starts = max(1, min(tabu.STARTS, SEARCHES // len(counts)))
        enough = [count for count in counts if count >= surely_needed(problem.loads)]
        found = {count: tabu.search(problem, count, seed, starts, _cut(home, count)) for count in enough}
        self._found = {count: labels for count, labels in found.items() if problem.fits(labels)}

    def best(self, counts: Sequence[int]) -> Positions:
        """Return the best partition that was found into one of these numbers of groups; () if none fits."""
        found = self._best(counts)
        return _positions(found[1]) if found else ()

    def runner_up(self, counts: Sequence[int]) -> Positions:
        """Return the best other one: of another number of groups, or one move or swap away; () if there is none."""
        found = self._best(counts)
        if not found:
            return ()
        near = tabu.best_neighbour(self._problem, found[1])
        others = [self._found[count] for count in counts if count in self._found and count != found[0]]
        others += [near] if (near != found[1]).any() and self._problem.fits(near) else []
        return _positions(max(others, key=self._problem.value)) if others else ()

    def bound(self, counts: Sequence[int], reached: float) -> float:
        """Return what no partition into one of these numbers of groups exceeds."""
        n = len(self._problem.alone)
        if len(counts) == 1 and counts[0] in (1, n):
            return reached  # there is only one
        largest = np.minimum(largest_groups(self._problem.loads), n - min(counts) + 1)
        relaxed = Relaxation(
            self._problem.both_ways, self._problem.alone, largest, max(counts), at_most=len(counts) > 1
        )
        return upper_bound(relaxed, reached)

    def _best(self, counts: Sequence[int]) -> tuple[int, Labels] | None:
        """Return the best that was found, of equal ones that of the fewest groups, and its number of groups."""
        found = [(count, self._found[count]) for count in sorted(counts) if count in self._found]
        return max(found, key=lambda entry: self._problem.value(entry[1])) if found else None


def _cut(groups: Positions, count: int) -> Labels | None:
    """Return a partition into so many groups by taking single tasks out of larger groups; None if there are more."""
    if len(groups) > count or len(groups) == 1:
        return None
    labels = np.empty(sum(map(len, groups)), np.int64)
    for number, group in enumerate(groups):
        labels[list(group)] = number
    spare = [task for group in groups for task in group[1:]]
    labels[spare[: count - len(groups)]] = np.arange(len(groups), count)
    return labels


def _positions(labels: Labels) -> Positions:
    groups = [tuple(np.flatnonzero(labels == group).tolist()) for group in range(int(labels.max()) + 1)]
    return tuple(sorted(groups))
