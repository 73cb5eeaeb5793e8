"""The best partition of tasks into groups, by their affinities; exact.

Objective of MAS (ICCV 2023), as in its released code: the mean over all tasks of the score of the task in its group,

    S(j|G) = mean_{i in G, i != j} S_ij   if |G| > 1,   else the self-affinity S_jj,

so that a group adds V(G) = sum_{i != j in G} S_ij / (|G| - 1) to the sum. The best sum over partitions of a set A into
k groups follows from those of its subsets: F_k(A) = max V(G) + F_{k-1}(A - G) over the groups G that hold the first
task of A. Every partition is counted once, so the result is the maximum and not an estimate.
Sets of tasks are bit masks in here: task i is bit i.

Values that are equal up to rounding are a tie. The tie goes to the fewest groups, then to the split that comes first
in lexicographic order of its task positions: ((a), (b, c)) before ((a, b), (c)).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mas_edge.mas.affinity import AffinityMatrix, Floats, self_affinities
from mas_edge.protocol.errors import JobError

Masks = NDArray[np.int64]
Positions = tuple[tuple[int, ...], ...]
_Number = TypeVar("_Number", np.int64, np.float64)

# The search takes 3^(n-1) / 2 steps, whatever the number of groups. Measured on one server core: 0.4 s for 14 tasks,
# 1.7 s for 16, 9 s and 40 MB for 18; each further task takes 2.6 times as long.
MAX_TASKS = 18


@dataclass(frozen=True)
class Split:
    """A partition of tasks into groups and its value, the mean score of a task (of the matrix's unit).

    Tasks stand in the matrix's order in each group, and groups in the order of their first task.
    """

    value: float
    groups: tuple[tuple[str, ...], ...]


def best_split(matrix: AffinityMatrix, groups: int, at_most: bool = False) -> Split:
    """Return the best split into exactly ``groups`` groups, or into at most that many.

    Raises:
        JobError: ``groups`` is not between 1 and the number of tasks, or there are more than MAX_TASKS tasks.
    """
    return SplitSearch(matrix, groups, at_most).best()


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
    """The table of all sub-problems of one search, and the splits that can be read off it."""

    def __init__(self, matrix: AffinityMatrix, groups: int, at_most: bool = False) -> None:
        """Solve every sub-problem; raises JobError as ``best_split`` does."""
        n = len(matrix.tasks)
        if not 1 <= groups <= n:
            message = f"cannot split {n} tasks into {groups} groups: expected a number of groups from 1 to {n}"
            raise JobError(message)
        if n > MAX_TASKS:
            message = f"affinity matrix has {n} tasks: the exact search handles at most {MAX_TASKS}; leave some out"
            raise JobError(message)
        self._matrix = matrix
        self._counts = range(1 if at_most else groups, groups + 1)
        self._everything = 2**n - 1
        self._gain = _group_gains(matrix)
        self._total = _best_totals(self._gain, groups)
        # Twice a bound on the rounding error of a sum of gains: a group of m tasks sums up to m^2 values of both ways
        # in 2 m steps, divides by m - 1, and the groups' m add up to n.
        self._tolerance = 4 * n**2 * float(np.finfo(np.float64).eps * np.abs(matrix.off_diagonal).max())

    def best(self) -> Split:
        """Return the best split."""
        return self._named(self._best())

    def runner_up(self) -> Split | None:
        """Return the best of all other splits; None if there is no other.

        A split other than the best one keeps its first i groups, for some i, and has another group at place i.
        """
        best = self._best()
        others = [self._complete((), count) for count in self._counts if count != len(best)]
        others += [self._complete(best[:place], len(best) - place, forbidden=group) for place, group in enumerate(best)]
        found = [split for split in others if split]
        return self._named(self._first(found)) if found else None

    def _best(self) -> tuple[int, ...]:
        return self._first([split for count in self._counts if (split := self._complete((), count))])

    def _complete(self, prefix: tuple[int, ...], count: int, forbidden: int = 0) -> tuple[int, ...]:
        """Return the best split that begins with ``prefix`` and has ``count`` more groups; () if there is none.

        The group after the prefix must not be ``forbidden``.
        """
        left = self._everything - sum(prefix)
        firsts = _first_groups(left)
        totals = np.where(firsts == forbidden, -np.inf, self._gain[firsts] + self._total[left - firsts, count - 1])
        if totals.max() == -np.inf:
            return ()
        tied = firsts[totals >= totals.max() - self._tolerance].tolist()
        split = (*prefix, min(tied, key=_members))
        return self._complete(split, count - 1) if sum(split) != self._everything else split

    def _first(self, splits: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Return the best of some splits by the rule for ties."""
        totals = [float(self._gain[list(split)].sum()) for split in splits]
        tied = [s for s, total in zip(splits, totals, strict=True) if total >= max(totals) - self._tolerance]
        return min(tied, key=lambda split: (len(split), [_members(group) for group in split]))

    def _named(self, split: tuple[int, ...]) -> Split:
        groups = tuple(tuple(self._matrix.tasks[i] for i in _members(group)) for group in split)
        return Split(value_of(self._matrix, groups), groups)


def _group_gains(matrix: AffinityMatrix) -> Floats:
    """Return V(G) of every set of tasks, shape (2^n,)."""
    values = matrix.off_diagonal
    both_ways = values + values.T
    pairs, sizes = np.zeros(1), np.zeros(1)
    for i in range(len(matrix.tasks)):  # the sets whose last task is i follow from those without it
        pairs = np.concatenate([pairs, pairs + _subset_sums(both_ways[i, :i])])
        sizes = np.concatenate([sizes, sizes + 1])
    gains = pairs / np.maximum(sizes - 1, 1)
    gains[2 ** np.arange(len(matrix.tasks))] = self_affinities(matrix)
    return gains


def _best_totals(gains: Floats, groups: int) -> Floats:
    """Return F_k(A), the best sum of gains of k groups, shape (2^n, groups + 1); -inf where there is no such split.

    Only the rows of the sets that can be left over are filled: the first group holds task 0, so the others do not.
    """
    totals = np.full((len(gains), groups + 1), -np.inf)
    totals[0, 0] = 0.0
    for left in range(2, len(gains), 2):
        firsts = _first_groups(left)
        totals[left, 1:] = (gains[firsts, None] + totals[left - firsts, :-1]).max(axis=0)
    return totals


def _first_groups(left: int) -> Masks:
    """Return every subset of ``left`` that holds its first task, shape (2^(|left| - 1),)."""
    first, *others = _members(left)
    groups: Masks = 2**first + _subset_sums(np.array([2**i for i in others], dtype=np.int64))
    return groups


def _subset_sums(numbers: NDArray[_Number]) -> NDArray[_Number]:
    """Return the sum of every subset of m numbers, shape (2^m,)."""
    sums = np.zeros(1, numbers.dtype)
    for number in numbers:
        sums = np.concatenate([sums, sums + number])
    return sums


def _members(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)
