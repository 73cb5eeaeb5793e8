"""Splits to compare the best one with: the worst, a random one, and all of them with what they cost in truth."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.limits import GroupLimit
from mas_edge.mas.split import Split, best_split, partitions, require_groups
from mas_edge.protocol.errors import JobError

MOST_SPLITS = 1_000_000  # that ``ranked`` lists: all of 9 tasks have 21147 together, those of 14 into 3 have 788970


@dataclass(frozen=True)
class Ranked:
    """One split and the sum of its tasks' losses, each in its own group."""

    total: float
    groups: tuple[tuple[str, ...], ...]


def worst_split(matrix: AffinityMatrix, groups: int, limits: Sequence[GroupLimit] = (), seed: int = 0) -> Split:
    """Return the split into exactly ``groups`` groups with the smallest value; exact where ``best_split`` is.

    Its ``bound`` is None, or its value if it is proven to be the worst. Raises JobError as ``best_split`` does.
    """
    split = best_split(AffinityMatrix(matrix.tasks, -matrix.values), groups, limits=limits, seed=seed)
    return Split(-split.value, split.groups, -split.value if split.optimal else None)


def random_split(tasks: Sequence[str], groups: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Return a partition into exactly ``groups`` groups, each of the S(n, N) with the same probability.

    The last task is alone with probability S(n-1, N-1) / S(n, N), or else in any group of the others' partition.

    Raises:
        JobError: ``groups`` is not between 1 and the number of tasks.
    """
    require_groups(len(tasks), groups)
    rng = np.random.default_rng(seed)
    left, alone = groups, []  # from the last task on: whether it opens a group
    for n in range(len(tasks), 0, -1):
        opens = rng.random() < stirling(n - 1, left - 1) / stirling(n, left)
        alone.append(opens)
        left -= opens
    found: list[list[str]] = []
    for task, opens in zip(tasks, reversed(alone), strict=True):
        if opens:
            found.append([task])
        else:
            found[int(rng.integers(len(found)))].append(task)
    return tuple(map(tuple, found))


@cache
def stirling(n: int, k: int) -> int:
    """Return S(n, k), the number of partitions of n tasks into exactly k groups: k S(n-1, k) + S(n-1, k-1)."""
    row = [1, *[0] * k]  # S(0, 0) to S(0, k)
    for _ in range(n):
        row = [0, *(place * row[place] + row[place - 1] for place in range(1, k + 1))]
    return row[k]


def every_group(tasks: Sequence[str], groups: int) -> tuple[tuple[str, ...], ...]:
    """Return all groups that occur in a partition into exactly ``groups`` groups: 30 for 5 tasks and 2 groups.

    Smaller groups come first; tasks stand in the given order in each.

    Raises:
        JobError: ``groups`` is not between 1 and the number of tasks.
    """
    require_groups(len(tasks), groups)
    sizes = range(1, len(tasks) - groups + 2) if groups > 1 else [len(tasks)]
    return tuple(group for size in sizes for group in combinations(tasks, size))


def ranked(
    tasks: Sequence[str], losses: Mapping[frozenset[str], Mapping[str, float]], groups: int
) -> tuple[Ranked, ...]:
    """Return all partitions into exactly ``groups`` groups with their total losses, the smallest first.

    ``losses``: by group, the loss of each of its tasks when the group is trained; of every one of ``every_group``.

    Raises:
        JobError: ``groups`` cannot be, a loss is missing, or there are more than MOST_SPLITS partitions.
    """
    require_groups(len(tasks), groups)
    count = stirling(len(tasks), groups)
    if count > MOST_SPLITS:
        message = f"{len(tasks)} tasks have {count} splits into {groups} groups: expected at most {MOST_SPLITS} to rank"
        raise JobError(message)
    totals = {frozenset(group): _total(group, losses) for group in every_group(tasks, groups)}
    named = [tuple(tuple(tasks[i] for i in group) for group in split) for split in partitions(len(tasks), groups)]
    splits = [Ranked(sum(totals[frozenset(group)] for group in split), split) for split in named]
    return tuple(sorted(splits, key=lambda split: split.total))


def rank_of(groups: Collection[Collection[str]], ranking: Sequence[Ranked]) -> int:
    """Return the place of a split among all of its size: 1 + the number of splits with a smaller total.

    Raises:
        JobError: the split is not among them.
    """
    wanted = {frozenset(group) for group in groups}
    own = next((split.total for split in ranking if set(map(frozenset, split.groups)) == wanted), None)
    if own is None:
        message = f"split {[list(group) for group in groups]} is not among the {len(ranking)} that are ranked"
        raise JobError(message)
    return 1 + sum(split.total < own for split in ranking)


def _total(group: Sequence[str], losses: Mapping[frozenset[str], Mapping[str, float]]) -> float:
    own = losses.get(frozenset(group), {})
    if missing := [task for task in group if task not in own]:
        message = f"no loss of {', '.join(map(repr, missing))} in group {list(group)}: expected one of every task"
        raise JobError(message)
    return float(sum(own[task] for task in group))
