"""The best partition of a set into groups that each have a gain; exact, by dynamic programming over subsets.

The best sum over partitions of a set A into k groups follows from those of its subsets: F_k(A) = max G + F_{k-1}(A - G)
over the groups G that hold the first task of A. Every partition is counted once, so the result is the maximum and not
an estimate. When j groups of a partition are taken in this order, tasks 0 to j - 1 are gone: to cut n tasks into N
groups, F_k is needed on the last n - (N - k) tasks only, and 3^(n-1) * 3/4 steps do whatever N is.

The gain of a group is any number; -inf forbids it. Sums that are equal up to ``tolerance`` are a tie. The tie goes to
the fewest groups, then to the split that comes first in lexicographic order of its positions: ((0), (1, 2)) before
((0, 1), (2)).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mas_edge.mas.subsets import Floats, Masks, best_halves, members, subsets_with_first

Chosen = tuple[int, ...]  # a partition: the masks of its groups in the order of their first task; () = there is none


class ExactSearch:
    """The table of all sub-problems of one search, and the partitions that can be read off it.

    Args:
        gains: the gain of every set of tasks, shape (2^n,), by mask; that of the empty set is not used.
        counts: the numbers of groups that may be asked for, each from 1 to n. One number takes 3^(n-1) * 3/4 steps,
            all of 1 to N up to (N - 1) 3^(n-1) / 2.
        tolerance: sums that differ by no more are equal.
    """

    def __init__(self, gains: Floats, counts: Iterable[int], tolerance: float = 0.0) -> None:
        """Solve every sub-problem."""
        self._gains = gains
        self._counts = tuple(sorted(set(counts)))
        self._everything = len(gains) - 1
        self._tolerance = tolerance
        self._layers: list[tuple[int, Floats]] = []  # of k = 1, 2, ...: the first task it covers, and F_k by mask
        for k in range(1, self._counts[-1]):
            start = min(count - k for count in self._counts if count > k)
            self._layers.append((start, self._layer(start)))

    def best(self, counts: Sequence[int] = ()) -> Chosen:
        """Return the best partition into any of some numbers of groups (all that may be asked for); () if none."""
        found = [chosen for count in counts or self._counts if (chosen := self._complete((), count))]
        return self._first(found) if found else ()

    def runner_up(self, counts: Sequence[int] = ()) -> Chosen:
        """Return the best of all other partitions into any of these numbers of groups; () if there is no other.

        A partition other than the best one keeps its first i groups, for some i, and has another group at place i.
        """
        best = self.best(counts)
        others = [self._complete((), count) for count in counts or self._counts if count != len(best)]
        others += [self._complete(best[:place], len(best) - place, forbidden=group) for place, group in enumerate(best)]
        found = [chosen for chosen in others if chosen]
        return self._first(found) if found else ()

    def _layer(self, start: int) -> Floats:
        """Return F_k on the sets of the tasks from ``start`` on, k = 1 + the number of layers there are."""
        if not self._layers:
            singles = self._gains[:: 2**start].copy()
            singles[0] = -np.inf
            return singles
        before, table = self._layers[-1]
        size = len(self._gains) >> start
        layer = np.full(size, -np.inf)
        for first in range(size.bit_length() - 1):  # the sets whose first task is start + first
            gains = self._gains[2 ** (start + first) :: 2 ** (start + first + 1)]
            rest = table[:: 2 ** (start + first + 1 - before)]
            layer[2**first :: 2 ** (first + 1)] = best_halves(np.ascontiguousarray(gains), np.ascontiguousarray(rest))
        return layer

    def _totals(self, sets: Masks, count: int) -> Floats:
        """Return F_count of some sets."""
        if count == 0:
            return np.where(sets == 0, 0.0, -np.inf)
        start, table = self._layers[count - 1]
        totals: Floats = table[sets >> start]
        return totals

    def _complete(self, prefix: Chosen, count: int, forbidden: int = 0) -> Chosen:
        """Return the best partition that begins with ``prefix`` and has ``count`` more groups; () if there is none.

        The group after the prefix must not be ``forbidden``.
        """
        left = self._everything - sum(prefix)
        firsts = subsets_with_first(left)
        totals = np.where(firsts == forbidden, -np.inf, self._gains[firsts] + self._totals(left - firsts, count - 1))
        if totals.max() == -np.inf:
            return ()
        tied = firsts[totals >= totals.max() - self._tolerance].tolist()
        chosen = (*prefix, min(tied, key=members))
        return self._complete(chosen, count - 1) if sum(chosen) != self._everything else chosen

    def _first(self, found: Sequence[Chosen]) -> Chosen:
        """Return the best of some partitions by the rule for ties."""
        totals = [float(self._gains[list(chosen)].sum()) for chosen in found]
        tied = [chosen for chosen, total in zip(found, totals, strict=True) if total >= max(totals) - self._tolerance]
        return min(tied, key=lambda chosen: (len(chosen), [members(group) for group in chosen]))
