"""The groups of a job: all tasks merged into one, then one group for each part of the split, and what they inherit.

This module does not know what a network is: a part is a name, ``encoder`` or a task (its head), as in the layouts of
``mas_edge.protocol.weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mas_edge.mas.split import Split
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import ENCODER

MERGED = "merged"


@dataclass(frozen=True)
class Group:
    """Tasks that are trained in one network.

    Raises:
        JobError: there is no task, or one is named twice.
    """

    name: str
    tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            message = f"group {self.name!r}: expected at least one task and every task once, got {self.tasks}"
            raise JobError(message)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the group's network: the encoder, then the head of each task."""
        return (ENCODER, *self.tasks)


def all_in_one(tasks: Sequence[str]) -> Group:
    """Return the group that holds every task: the first R0 rounds train it."""
    return Group(MERGED, tuple(tasks))


def groups_of(split: Split) -> tuple[Group, ...]:
    """Return the groups of a split, named ``group-0``, ``group-1``, ... in its order."""
    return tuple(Group(f"group-{number}", tasks) for number, tasks in enumerate(split.groups))


def inheritance(merged: Group, groups: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    """Return, by group name, the parts of the merged network that a group starts from.

    Every group gets a copy of the one encoder; each head goes to the one group that holds its task. Nothing starts
    from random weights (MAS, ICCV 2023).

    Raises:
        JobError: a name is used twice, or the groups are not a partition of the merged group's tasks.
    """
    named = [task for group in groups for task in group.tasks]
    names = [group.name for group in groups]
    if sorted(named) != sorted(merged.tasks) or len(set(names)) != len(names):
        message = f"expected each of the tasks {merged.tasks} in exactly one group of its own name, got {list(groups)}"
        raise JobError(message)
    return {group.name: group.parts for group in groups}
