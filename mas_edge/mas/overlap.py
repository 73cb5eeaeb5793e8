"""Overlapping groups, as TAG and HOA choose them: at most N groups, each task served by the best group it is in.

A group trains all of its tasks and answers for some of them. Which groups to train is found exactly: give every set of
tasks A the best group that contains it and could serve it,

    w(A) = max over groups G that contain A of  sum_{j in A} score_j(G);

the best selection is then the best partition into at most N sets A by the sum of w(A) (``exact``), because a selection
in which each task has one server is such a partition, and in any selection each task has a best server. 3^n steps.

TAG: Fifty et al. 2021, "Efficiently Identifying Task Groupings for Multi-Task Learning".
HOA: Standley et al. 2020, "Which Tasks Should Be Learned Together in Multi-task Learning?".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.exact import ExactSearch
from mas_edge.mas.split import require_groups
from mas_edge.mas.subsets import Floats, Masks, members, subset_sums
from mas_edge.protocol.errors import JobError

TAG_ALONE = -1e6  # what TAG's code scores a task in a group of its own: it never isolates one
MAX_OVERLAP_TASKS = 14  # measured on one server core: 1 s for 14 tasks, three times as long for each further one
# Of the largest score: sums of selections that differ by less are equal. The selection with fewer and smaller groups
# wins then.
ROUNDING = 1e-13


@dataclass(frozen=True)
class Selection:
    """Groups, which may share tasks, and the tasks that each answers for: every task exactly once, every group some.

    Tasks stand in the order they were given in, groups in the order of the first task that they serve. ``value`` is the
    sum over tasks of what the choice goes by: affinities, to be large (TAG), or predicted losses, to be small (HOA).
    """

    value: float
    groups: tuple[tuple[str, ...], ...]
    serves: tuple[tuple[str, ...], ...]


def tag_groups(matrix: AffinityMatrix, groups: int) -> Selection:
    """Return the groups that TAG trains: at most ``groups``, the largest sum of affinities onto the tasks served.

    score_j(G) = mean_{i in G, i != j} S_ij, and TAG_ALONE of a single task (google-research/tag). The only task of a
    job scores 0.

    Raises:
        JobError: ``groups`` is not from 1 to the number of tasks, or there are over MAX_OVERLAP_TASKS tasks.
    """
    n = len(matrix.tasks)
    _check(matrix.tasks, groups)
    scores, sizes = _member_sums(matrix.off_diagonal), _set_sizes(n)
    scores /= np.maximum(sizes - 1, 1)[:, None]
    scores[2 ** np.arange(n), np.arange(n)] = TAG_ALONE if n > 1 else 0.0
    return _select(matrix.tasks, scores, groups)


def hoa_groups(tasks: Sequence[str], losses: Mapping[frozenset[str], Mapping[str, float]], groups: int) -> Selection:
    """Return the groups that HOA trains: at most ``groups``, the smallest sum of predicted losses.

    ``losses``: by group, the measured loss of each of its tasks, for all single tasks and all pairs. The predicted loss
    of task j in G is the mean of its losses in the pairs {i, j} over i in G, i != j; alone it is what was measured.

    Raises:
        JobError: ``groups`` is not from 1 to the number of tasks, there are over MAX_OVERLAP_TASKS tasks, or a loss is
            missing or not finite.
    """
    n = len(tasks)
    _check(tasks, groups)
    singles = [_loss(losses, (task,), task) for task in tasks]
    pairs = np.zeros((n, n))  # of task j beside task i, at (i, j)
    for i, j in combinations(range(n), 2):
        pairs[i, j], pairs[j, i] = (_loss(losses, (tasks[i], tasks[j]), tasks[at]) for at in (j, i))
    predicted = _member_sums(pairs) / np.maximum(_set_sizes(n) - 1, 1)[:, None]
    predicted[2 ** np.arange(n), np.arange(n)] = singles
    chosen = _select(tasks, -predicted, groups)
    return Selection(-chosen.value, chosen.groups, chosen.serves)


def _member_sums(values: Floats) -> Floats:
    """Return sum_{i in G} values_ij for every set G and every task j, shape (2^n, n)."""
    return np.stack([subset_sums(column) for column in np.ascontiguousarray(values.T)], axis=1)


def _set_sizes(n: int) -> Floats:
    return subset_sums(np.ones(n))


def _select(tasks: Sequence[str], scores: Floats, groups: int) -> Selection:
    """Return the selection with the largest sum of scores; ``scores``: score_j(G) at (G, j), used where j is in G."""
    n = len(tasks)
    worth, server = _best_servers(scores)
    # What is served by fewer groups wins among equals: worth the rounding error of the largest sum.
    tolerance = ROUNDING * n * float(np.abs(worth[1:]).max())
    served = ExactSearch(worth, range(1, groups + 1), tolerance).best()
    chosen = sorted({int(server[mask]) for mask in served})
    offers = np.array([[scores[mask, j] if mask >> j & 1 else -np.inf for j in range(n)] for mask in chosen])
    best = offers.argmax(axis=0)
    order = list(dict.fromkeys(best.tolist()))  # the groups that serve, by the first task that they serve
    return Selection(
        float(offers.max(axis=0).sum()),
        tuple(tuple(tasks[i] for i in members(chosen[group])) for group in order),
        tuple(tuple(tasks[j] for j in range(n) if best[j] == group) for group in order),
    )


def _best_servers(scores: Floats) -> tuple[Floats, Masks]:
    """Return w(A) of every set, shape (2^n,), and the group that reaches it: the smallest of equals, then the first."""
    count = len(scores)
    worth, server = np.full(count, -np.inf), np.zeros(count, np.int64)
    for group in sorted(range(1, count), key=lambda mask: (mask.bit_count(), mask)):
        inside = members(group)
        sets = subset_sums(np.array([2**i for i in inside], dtype=np.int64))
        sums = subset_sums(np.ascontiguousarray(scores[group, list(inside)]))
        better = sums > worth[sets]
        worth[sets[better]], server[sets[better]] = sums[better], group
    return worth, server


def _loss(losses: Mapping[frozenset[str], Mapping[str, float]], group: Sequence[str], task: str) -> float:
    loss = losses.get(frozenset(group), {}).get(task)
    if loss is None or not np.isfinite(loss):
        message = f"loss of task {task!r} in group {list(group)} is {loss}: expected a finite number"
        raise JobError(message)
    return float(loss)


def _check(tasks: Sequence[str], groups: int) -> None:
    n = len(tasks)
    require_groups(n, groups)
    if n > MAX_OVERLAP_TASKS:
        message = f"overlapping groups of {n} tasks: the search handles at most {MAX_OVERLAP_TASKS}; leave some out"
        raise JobError(message)
