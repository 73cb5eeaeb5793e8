"""The best partition of tasks into groups, by their affinities: exact with a proof, or good with a bound.

Objective of MAS (ICCV 2023), as in its released code: the mean over all tasks of the score of the task in its group,

    S(j|G) = mean_{i in G, i != j} S_ij   if |G| > 1,   else the self-affinity S_jj,

so that a group adds V(G) = sum_{i != j in G} S_ij / (|G| - 1) to the sum. Up to 20 tasks the result is the maximum
(``exact``); beyond, a search finds a good one (``tabu``) and a relaxation says what none exceeds (``bound``).

Values that are equal up to rounding are a tie. In the exact search the tie goes to the fewest groups, then to the split
that comes first in lexicographic order of its task positions: ((a), (b, c)) before ((a, b), (c)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mas_edge.mas.affinity import AffinityMatrix, self_affinities
from mas_edge.mas.limits import GroupLimit, Positions, loads_of, why_none_fits
from mas_edge.mas.solvers import is_exact, rounding_of, solver
from mas_edge.mas.tabu import Problem
from mas_edge.protocol.errors import JobError

MAX_TASKS = 64  # the search beyond the exact one is held to tests up to here


@dataclass(frozen=True)
class Split:
    """A partition of tasks into groups and its value, the mean score of a task (of the matrix's unit).

    Tasks stand in the matrix's order in each group, and groups in the order of their first task. ``bound`` is what the
    value of no split that was allowed exceeds; None of a split that no search found. Two splits are equal if their
    values and groups are.
    """

    value: float
    groups: tuple[tuple[str, ...], ...]
    bound: float | None = field(default=None, compare=False)

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no split that was allowed is better."""
        return self.bound is not None and self.value >= self.bound


def best_split(
    matrix: AffinityMatrix, groups: int, at_most: bool = False, limits: Sequence[GroupLimit] = (), seed: int = 0
) -> Split:
    """Return the best split into exactly ``groups`` groups, or into at most that many, none of them over a limit.

    Raises:
        JobError: ``groups`` is not between 1 and the number of tasks, there are more than MAX_TASKS tasks, or no split
            keeps the limits.
    """
    return SplitSearch(matrix, groups, at_most, limits, seed).best()


def splits_by_number(matrix: AffinityMatrix, limits: Sequence[GroupLimit] = (), seed: int = 0) -> tuple[Split, ...]:
    """Return the best split into exactly N groups for every N, from the smallest that keeps the limits up to n.

    The splits of a search that is not exact have no bound: it takes a relaxation for each.

    Raises:
        JobError: there are more than MAX_TASKS tasks, or one does not fit even alone.
    """
    n = _checked(matrix, 1)
    problem, counts = _problem(matrix, limits), range(1, n + 1)
    solved = solver(problem, counts, seed)
    found = [_named(matrix, positions) for count in counts if (positions := solved.best([count]))]
    return tuple(Split(split.value, split.groups, split.value) if solved.exact else split for split in found)


def value_of(matrix: AffinityMatrix, groups: Sequence[Sequence[str]]) -> float:
    """Return the objective of any split of the matrix's tasks.

    Raises:
        JobError: the groups are not a partition of the matrix's tasks.
    """
    named = [task for group in groups for task in group]
    if sorted(named) != sorted(matrix.tasks) or not all(groups):
        message = f"expected each task of {matrix.tasks} in exactly one group and no empty group, got {groups}"
        raise JobError(message)
    alone, values, total = self_affinities(matrix), matrix.off_diagonal, 0.0
    for group in groups:
        members = [matrix.tasks.index(task) for task in group]
        if len(members) == 1:
            total += alone[members[0]]
        else:
            total += values[np.ix_(members, members)].sum() / (len(members) - 1)
    return float(total / len(matrix.tasks))


def partitions(n: int, k: int) -> Iterator[Positions]:
    """Yield every partition of range(n) into exactly ``k`` groups once; groups in the order of their first member.

    There are S(n, k) of them (Stirling numbers of the second kind): 7770 for n = 9 and k = 4.
    """
    if n == 0:
        if k == 0:
            yield ()
        return
    last = n - 1
    for groups in partitions(last, k) if k <= last else ():
        for place in range(k):
            yield (*groups[:place], (*groups[place], last), *groups[place + 1 :])
    for groups in partitions(last, k - 1) if k >= 1 else ():
        yield (*groups, (last,))


class SplitSearch:
    """One search, and the splits that can be read off it."""

    def __init__(
        self,
        matrix: AffinityMatrix,
        groups: int,
        at_most: bool = False,
        limits: Sequence[GroupLimit] = (),
        seed: int = 0,
    ) -> None:
        """Search; raises JobError as ``best_split`` does. ``seed`` changes nothing where the search is exact."""
        n = _checked(matrix, groups)
        self._matrix, self._problem = matrix, _problem(matrix, limits)
        self._counts = range(1 if at_most else groups, groups + 1)
        self._solver = solver(self._problem, self._counts, seed)
        self._best = self._solver.best(self._counts)
        if not self._best:
            raise JobError(why_none_fits(limits, matrix.tasks, groups, is_exact(n, self._counts)))

    def best(self) -> Split:
        """Return the best split, with its bound."""
        split = _named(self._matrix, self._best)
        n = len(self._matrix.tasks)
        bound = self._solver.bound(self._counts, split.value * n) / n
        proven = bound <= split.value + rounding_of(self._problem)
        return Split(split.value, split.groups, split.value if proven else bound)

    def runner_up(self) -> Split | None:
        """Return the best of all other splits; None if there is no other. Where nothing is proven: of those seen."""
        positions = self._solver.runner_up(self._counts)
        return _named(self._matrix, positions) if positions else None


def require_groups(n: int, groups: int) -> None:
    """Raise JobError if ``n`` tasks cannot be in as many groups."""
    if not 1 <= groups <= n:
        message = f"cannot split {n} tasks into {groups} groups: expected a number of groups from 1 to {n}"
        raise JobError(message)


def _checked(matrix: AffinityMatrix, groups: int) -> int:
    """Return the number of tasks. Raises JobError if there are too many, or cannot be as many groups."""
    n = len(matrix.tasks)
    require_groups(n, groups)
    if n > MAX_TASKS:
        message = f"affinity matrix has {n} tasks: the search handles at most {MAX_TASKS}; leave some out"
        raise JobError(message)
    return n


def _problem(matrix: AffinityMatrix, limits: Sequence[GroupLimit]) -> Problem:
    values = matrix.off_diagonal
    return Problem(values + values.T, self_affinities(matrix), loads_of(limits, matrix.tasks))


def _named(matrix: AffinityMatrix, positions: Positions) -> Split:
    groups = tuple(tuple(matrix.tasks[i] for i in group) for group in positions)
    return Split(value_of(matrix, groups), groups)
