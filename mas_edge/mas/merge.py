"""The groups of a job: all tasks merged into one, then the groups of the split, and what they inherit.

This module does not know what a network is: a part is a name, ``encoder`` or a task (its head), as in the layouts of
``mas_edge.protocol.weights``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def inheritance(source: Group, groups: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    """Return, by group name, the parts of the network ``source`` that a group starts from.

    Every group gets a copy of the one encoder, and the heads of its tasks; nothing starts from random weights (MAS,
    ICCV 2023).

    Raises:
        JobError: a name is used twice, or a group holds a task that the source does not.
    """
    names = [group.name for group in groups]
    if len(set(names)) != len(names) or any(not set(group.tasks) <= set(source.tasks) for group in groups):
        message = f"expected groups with names of their own, of the tasks {source.tasks}; got {list(groups)}"
        raise JobError(message)
    return {group.name: group.parts for group in groups}
