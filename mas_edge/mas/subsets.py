"""Sets of tasks as bit masks (task i is bit i), and tables over all of them.

Arrays of shape (2^n,) are indexed by the mask. This module knows numbers only: no task names, no objective but the
gain of a group, and no search.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Masks = NDArray[np.int64]
Sizes = NDArray[np.int64]
_Number = TypeVar("_Number", np.int64, np.float64)

# Below this many tasks one gather covers a whole sub-problem: 3^9 numbers stay in the cache of any processor.
LEAF_TASKS = 9


def members(mask: int) -> tuple[int, ...]:
    """Return the positions of the tasks of a set, ascending."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def subset_sums(numbers: NDArray[_Number]) -> NDArray[_Number]:
    """Return the sum of every subset of m numbers, shape (2^m,), by mask."""
    sums = np.zeros(1, numbers.dtype)
    for number in numbers:
        sums = np.concatenate([sums, sums + number])
    return sums


def subsets_with_first(mask: int) -> Masks:
    """Return every subset of a set that holds its first task, shape (2^(m - 1),)."""
    first, *others = members(mask)
    sets: Masks = 2**first + subset_sums(np.array([2**i for i in others], dtype=np.int64))
    return sets


def group_gains(both_ways: Floats, alone: Floats) -> Floats:
    """Return V(G) of every set of tasks, shape (2^n,): the sum of its tasks' scores; 0 of the empty set.

    V(G) = sum_{i < j in G} both_ways_ij / (|G| - 1), and alone_j of a single task. ``both_ways`` is S + S^T with a zero
    diagonal, shape (n, n).
    """
    pairs, sizes = np.zeros(1), np.zeros(1)
    for i in range(len(alone)):  # the sets whose last task is i follow from those without it
        pairs = np.concatenate([pairs, pairs + subset_sums(both_ways[i, :i])])
        sizes = np.concatenate([sizes, sizes + 1])
    gains = pairs / np.maximum(sizes - 1, 1)
    gains[2 ** np.arange(len(alone))] = alone
    return gains


def best_halves(first: Floats, second: Floats) -> Floats:
    """Return max over H in B of first(H) + second(B - H) for every set B, shape (2^p,) as both arguments: 3^p steps.

    The sets with the last task follow from two problems of half the size, those without it from a third.
    """
    half = len(first) // 2
    if half < 2**LEAF_TASKS:
        chosen, left, starts = _pairs(len(first).bit_length() - 1)
        best: Floats = np.maximum.reduceat(first[chosen] + second[left], starts)
        return best
    without = best_halves(first[:half], second[:half])
    taken, remaining = best_halves(first[half:], second[:half]), best_halves(first[:half], second[half:])
    return np.concatenate([without, np.maximum(taken, remaining)])


@lru_cache(maxsize=LEAF_TASKS + 1)
def _pairs(p: int) -> tuple[Masks, Masks, Masks]:
    """Return H, B - H for all H in B and all sets B of p tasks, shape (3^p,), and where each B begins, shape (2^p,)."""
    chosen = [subset_sums(np.array([2**i for i in members(whole)], dtype=np.int64)) for whole in range(2**p)]
    left = [whole - sets for whole, sets in enumerate(chosen)]
    sizes = [len(sets) for sets in chosen]
    return np.concatenate(chosen), np.concatenate(left), np.cumsum([0, *sizes[:-1]])
