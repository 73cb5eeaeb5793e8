"""What a group of tasks costs, and the limits that a group has to keep.

A cost is a sum: that of the encoder, which every group has of its own, and that of the head of each of its tasks. It
may be anything that adds up so, or is bounded by such a sum: parameters, multiply-accumulates, bytes of memory at the
peak, seconds of a step on the weakest device. Nothing here knows where the numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mas_edge.mas.exact import ExactSearch
from mas_edge.mas.subsets import Flags, Floats, Sizes, subset_sums
from mas_edge.protocol.errors import JobError

Positions = tuple[tuple[int, ...], ...]  # the groups of a partition, each with the positions of its tasks
ROUNDING = 1e-12  # of what is allowed: a sum that is over by no more, fits
TRIES = 40  # random orders of first fit, where the first order takes more groups than are surely needed


@dataclass(frozen=True)
class Costs:
    """What a group costs: ``encoder`` + the sum of ``heads`` over its tasks, all in one unit.

    Raises:
        JobError: a cost is negative or not finite.
    """

    encoder: float
    heads: Mapping[str, float]

    def __post_init__(self) -> None:
        for part, cost in (("the encoder", self.encoder), *self.heads.items()):
            if not 0 <= cost < math.inf:
                message = f"cost of {part} is {cost}: expected a finite number of at least 0"
                raise JobError(message)

    def of(self, tasks: Sequence[str]) -> float:
        """Return the cost of one group."""
        return self.encoder + float(self.of_heads(tasks).sum())

    def of_heads(self, tasks: Sequence[str]) -> Floats:
        """Return the cost of each task's head, shape (n,).

        Raises:
            JobError: a task has no cost.
        """
        if missing := [task for task in tasks if task not in self.heads]:
            message = f"no cost for the head of {', '.join(map(repr, missing))}: expected one for every task"
            raise JobError(message)
        return np.array([self.heads[task] for task in tasks], dtype=np.float64)


@dataclass(frozen=True)
class GroupLimit:
    """The most that one group may take of one resource, in the unit of its costs.

    Raises:
        JobError: the limit is not a positive number.
    """

    resource: str
    costs: Costs
    allowed: float

    def __post_init__(self) -> None:
        if not self.allowed > 0:
            message = f"limit of {self.resource} is {self.allowed}: expected a number above 0; leave it out for none"
            raise JobError(message)

    def loads(self, tasks: Sequence[str]) -> Floats:
        """Return what each task takes of the room beside the encoder, shape (n,): a group fits up to a sum of 1.

        Raises:
            JobError: a task has no cost, or does not fit even alone.
        """
        heads, room = self.costs.of_heads(tasks), self.allowed - self.costs.encoder
        most = room + ROUNDING * self.allowed
        for task, head in zip(tasks, heads, strict=True):
            if head > most:
                message = (
                    f"task {task!r} alone takes {self.costs.encoder + head:.6g} {self.resource} "
                    f"({self.costs.encoder:.6g} of them for the encoder), and a group may take {self.allowed:.6g}: "
                    "raise the limit, or make the network smaller"
                )
                raise JobError(message)
        loads: Floats = heads / most if most > 0 else np.zeros(len(tasks))
        return loads


def loads_of(limits: Sequence[GroupLimit], tasks: Sequence[str]) -> Floats:
    """Return what each task takes of each resource, shape (resources, n). Raises JobError as ``GroupLimit.loads``."""
    return np.array([limit.loads(tasks) for limit in limits], dtype=np.float64).reshape(len(limits), len(tasks))


def fitting_sets(loads: Floats) -> Flags:
    """Return whether each set of tasks fits, shape (2^n,), by mask."""
    fitting = np.ones(2 ** loads.shape[1], dtype=np.bool_)
    for row in loads:
        fitting &= subset_sums(row) <= 1 + ROUNDING
    return fitting


def fits(loads: Floats, group: Sequence[int]) -> bool:
    """Say whether a group, given by the positions of its tasks, keeps every limit."""
    return bool((loads[:, list(group)].sum(axis=1) <= 1 + ROUNDING).all())


def surely_needed(loads: Floats) -> int:
    """Return a number of groups below which none fit: all tasks together take more than that many groups may."""
    return max(1, math.ceil(float(loads.sum(axis=1).max(initial=0.0)) * (1 - ROUNDING)))


def packed(loads: Floats, seed: int = 0) -> Positions:
    """Return groups that fit, as few as first fit finds: the largest tasks first, then in random orders."""
    n, rng = loads.shape[1], np.random.default_rng(seed)
    best: Positions = tuple((task,) for task in range(n))
    orders = [np.argsort(-loads.max(axis=0, initial=0.0), kind="stable"), *(rng.permutation(n) for _ in range(TRIES))]
    for order in orders:
        if len(best) == surely_needed(loads):
            break
        best = min(best, _first_fit(loads, order.tolist()), key=len)
    return best


def _first_fit(loads: Floats, order: Sequence[int]) -> Positions:
    groups: list[list[int]] = []
    for task in order:
        home = next((group for group in groups if fits(loads, [*group, task])), None)
        if home is None:
            groups.append(home := [])
        home.append(task)
    return tuple(map(tuple, groups))


def fewest_groups(loads: Floats, exactly: bool) -> int:
    """Return the smallest number of groups that fit; as many as first fit takes, if not ``exactly``.

    As a part of a group that fits, fits too, every larger number of groups up to n does as well. To find it exactly
    takes up to that many searches over all sets of tasks.
    """
    enough = len(packed(loads))
    if not exactly:
        return enough
    gains = np.where(fitting_sets(loads), 0.0, -np.inf)
    return next((k for k in range(surely_needed(loads), enough) if ExactSearch(gains, [k]).best()), enough)


def largest_groups(loads: Floats) -> Sizes:
    """Return a number of tasks that no group with each task may exceed, shape (n,): each resource by itself."""
    n = loads.shape[1]
    largest = np.full(n, n, np.int64)
    for row in loads:
        for task in range(n):
            cheapest = np.cumsum(np.sort(np.delete(row, task)))
            largest[task] = min(largest[task], 1 + int((row[task] + cheapest <= 1 + 2 * ROUNDING).sum()))
    return largest


def why_none_fits(limits: Sequence[GroupLimit], tasks: Sequence[str], groups: int, exactly: bool) -> str:
    """Say which resource does not let the tasks into so few groups, and how many do.

    ``exactly``: find the smallest number of groups by trying all, not by first fit.
    """
    needed = fewest_groups(loads_of(limits, tasks), exactly)
    alone = {limit.resource: fewest_groups(loads_of([limit], tasks), exactly) for limit in limits}
    guilty = [limit for limit in limits if alone[limit.resource] > groups] or list(limits)
    named = " and ".join(f"{limit.resource} (at most {limit.allowed:.6g} a group)" for limit in guilty)
    fewest = "the smallest number that fits is" if exactly else "a number that fits is"
    return (
        f"cannot split {len(tasks)} tasks into {groups} group{'s' if groups > 1 else ''} within the limit of {named}: "
        f"{fewest} {needed}; ask for {needed} groups or more, or raise the limit"
    )
