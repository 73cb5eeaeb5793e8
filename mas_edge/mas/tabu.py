"""A good partition of many tasks into exactly N groups: tabu search over moves and swaps; not a proof.

Each step takes the best of all moves of one task to another group and of all exchanges of two tasks, even if it is for
the worse; a task may not come back to the group it left for some steps, which leads out of local optima (Glover 1989).
Several starts: groups merged greedily, random ones, and the best so far with two groups merged and one cut in two.
The same seed gives the same partition. Where groups have limits, one that is over counts as a loss greater than any
difference of values, so that partitions that fit are always preferred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mas_edge.mas.limits import ROUNDING
from mas_edge.mas.subsets import Flags, Floats

Labels = NDArray[np.int64]  # shape (n,): the group of each task, 0 to N - 1, none empty
STARTS = 12
STEPS_PER_TASK = 5  # the patience of a start
TENURE, TENURE_SPREAD = 4, 7  # steps that a task may not return: TENURE and some more at random, so that no cycle lasts


@dataclass(frozen=True)
class Problem:
    """What is to be partitioned.

    both_ways: S + S^T with a zero diagonal, shape (n, n). alone: the score of each task in a group of its own, (n,).
    loads: what each task adds to the load of its group, shape (resources, n); a group may carry 1 of each.
    """

    both_ways: Floats
    alone: Floats
    loads: Floats

    def value(self, labels: Labels) -> float:
        """Return the sum of the tasks' scores; less a penalty for each group that is over a limit."""
        return float(_State(self, labels).gains.sum())

    def fits(self, labels: Labels) -> bool:
        """Say whether no group is over a limit."""
        return not _excess(self.loads @ _one_hot(labels)).any()

    @property
    def range(self) -> float:
        """More than two values can differ by."""
        return 4 * len(self.alone) * float(np.abs(self.both_ways).max(initial=0.0)) + 1e-300


def search(problem: Problem, groups: int, seed: int, starts: int = STARTS, known: Labels | None = None) -> Labels:
    """Return the best partition found, from ``known`` too if it is given; over a limit if none was found that fits."""
    n, rng = len(problem.alone), np.random.default_rng([seed, groups])
    best = climb(problem, merged_greedily(problem, groups), rng)
    if known is not None:
        best = max(best, climb(problem, known, rng), key=problem.value)
    for start in range(1, starts):
        labels = _random(n, groups, rng) if start % 2 else _shaken(best, rng)
        best = max(best, climb(problem, labels, rng), key=problem.value)
    return best


def climb(problem: Problem, labels: Labels, rng: np.random.Generator, patience: int = 0) -> Labels:
    """Return the best partition on the way from one; the way ends ``patience`` steps after the last better one."""
    n, groups = len(labels), int(labels.max()) + 1
    if groups in (1, n):
        return labels
    patience = patience or STEPS_PER_TASK * n
    tabu_until, rounding = np.zeros((n, groups), np.int64), 1e-12 * problem.range
    best, best_value, now, last_better = labels, problem.value(labels), 0, 0
    while now - last_better < patience:
        state, now = _State(problem, labels), now + 1
        moved, value = state.best_change(tabu_until > now, best_value + rounding)
        left = np.flatnonzero(moved != labels)
        tabu_until[left, labels[left]] = now + TENURE + rng.integers(TENURE_SPREAD, size=len(left))
        labels = moved
        if value > best_value + rounding:
            best, best_value, last_better = labels, value, now
    return best


def best_neighbour(problem: Problem, labels: Labels) -> Labels:
    """Return the best partition that is one move or one swap away; ``labels`` itself if there is none."""
    state = _State(problem, labels)
    return state.best_change(np.zeros_like(state.ties, dtype=np.bool_), np.inf)[0]


def merged_greedily(problem: Problem, groups: int) -> Labels:
    """Return the partition that comes from merging, from all alone on, the two groups that it is best to merge."""
    labels = np.arange(len(problem.alone))
    while (count := int(labels.max()) + 1) > groups:
        state, one_hot = _State(problem, labels), _one_hot(labels)
        pairs = state.pairs[:, None] + state.pairs + one_hot.T @ state.ties
        merged = pairs / (state.sizes[:, None] + state.sizes - 1)
        merged -= problem.range * _excess(state.carried[:, :, None] + state.carried[:, None, :])
        gain = merged - state.gains[:, None] - state.gains
        gain[np.tri(count, dtype=np.bool_)] = -np.inf
        a, b = divmod(int(gain.argmax()), count)
        labels = _renumbered(np.where(labels == b, a, labels))
    return labels


class _State:
    """A partition and what its changes would gain. ``ties``, shape (n, N): the both-way sums of a task and a group."""

    def __init__(self, problem: Problem, labels: Labels) -> None:
        one_hot = _one_hot(labels)
        self._problem, self._labels = problem, labels
        self.ties: Floats = problem.both_ways @ one_hot
        self.sizes: Floats = one_hot.sum(axis=0)
        self.pairs: Floats = (one_hot * self.ties).sum(axis=0) / 2
        self.carried: Floats = problem.loads @ one_hot
        self.gains = self._gains(self.pairs, self.sizes, problem.alone @ one_hot, self.carried)

    def best_change(self, tabu: Flags, better_than: float) -> tuple[Labels, float]:
        """Return the best move or swap that is not tabu, or that leads to a value above ``better_than``; its value.

        ``tabu``, shape (n, N): the task may not go to the group. The partition stays as it is if nothing is allowed.
        """
        value, labels = float(self.gains.sum()), self._labels.copy()
        moves, swaps = self._moves(), self._swaps()
        back = tabu[:, labels]
        moves[tabu & (value + moves <= better_than)] = -np.inf
        swaps[(back | back.T) & (value + swaps <= better_than)] = -np.inf
        best_move, best_swap = float(moves.max()), float(swaps.max())
        if max(best_move, best_swap) == -np.inf:
            return labels, value
        if best_move >= best_swap:
            task, group = divmod(int(moves.argmax()), moves.shape[1])
            labels[task] = group
        else:
            one, other = divmod(int(swaps.argmax()), len(labels))
            labels[[one, other]] = labels[[other, one]]
        return labels, value + max(best_move, best_swap)

    def _moves(self) -> Floats:
        """Return what it gains to move a task to a group, shape (n, N); -inf if it would leave its own empty."""
        problem, own, tasks = self._problem, self._labels, np.arange(len(self._labels))
        remaining = problem.alone @ _one_hot(own)
        left = self._gains(
            self.pairs[own] - self.ties[tasks, own], self.sizes[own] - 1, remaining[own] - problem.alone,
            self.carried[:, own] - problem.loads,
        )  # fmt: skip
        joined = self._gains(
            self.pairs + self.ties, self.sizes + np.ones((len(own), 1)), remaining,
            self.carried[:, None, :] + problem.loads[:, :, None],
        )  # fmt: skip
        gained: Floats = left[:, None] + joined - self.gains[own][:, None] - self.gains
        gained[tasks, own] = -np.inf
        gained[self.sizes[own] == 1] = -np.inf
        return gained

    def _swaps(self) -> Floats:
        """Return what it gains to exchange two tasks, shape (n, n); -inf where that changes nothing."""
        problem, own = self._problem, self._labels
        tasks = np.arange(len(own))
        incoming = self.ties[:, own].T  # of task k to the group of task j, at (j, k)
        pairs = (self.pairs[own] - self.ties[tasks, own])[:, None] + incoming - problem.both_ways
        carried = self.carried[:, own, None] - problem.loads[:, :, None] + problem.loads[:, None, :]
        after = self._gains(pairs, self.sizes[own][:, None], problem.alone[None, :], carried)
        before = self.gains[own]
        gained: Floats = after + after.T - before[:, None] - before
        single = self.sizes[own] == 1
        gained[(own[:, None] == own) | (single[:, None] & single)] = -np.inf
        return gained

    def _gains(self, pairs: Floats, sizes: Floats, alone: Floats, carried: Floats) -> Floats:
        """Return the sum of scores of groups of these sizes, pair sums and, if single, self-affinities."""
        gains: Floats = np.where(sizes > 1, pairs / np.maximum(sizes - 1, 1), alone)
        return gains - self._problem.range * _excess(carried)


def _excess(carried: Floats) -> Floats:
    """Return by how much groups are over their limits, and 1 for each limit that one is over; sums over axis 0."""
    excess: Floats = np.where(carried > 1 + ROUNDING, carried, 0.0).sum(axis=0)
    return excess


def _one_hot(labels: Labels) -> Floats:
    one_hot: Floats = (labels[:, None] == np.arange(int(labels.max()) + 1)).astype(np.float64)
    return one_hot


def _renumbered(labels: Labels) -> Labels:
    renumbered: Labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return renumbered


def _random(n: int, groups: int, rng: np.random.Generator) -> Labels:
    """Return a random partition: one task for each group, the others anywhere."""
    labels = np.concatenate([np.arange(groups), rng.integers(groups, size=n - groups)])
    return rng.permutation(labels)


def _shaken(labels: Labels, rng: np.random.Generator) -> Labels:
    """Return the partition with two groups merged, and one of the groups then cut in two at random."""
    groups = int(labels.max()) + 1
    if groups == 1:
        return labels
    one, other = rng.choice(groups, size=2, replace=False)
    merged = np.where(labels == other, one, labels)
    large = [group for group in range(groups) if (merged == group).sum() > 1]
    tasks = rng.permutation(np.flatnonzero(merged == rng.choice(large)))
    merged[tasks[: int(rng.integers(1, len(tasks)))]] = other
    return merged
