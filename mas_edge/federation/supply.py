"""What each device gets: a program to train with, a model to answer with. Pure.

A group begins with a program for each engine of the job. What a device needs beside it is *wanted*: it is made before
the round that needs it opens, and kept in the group's state. What cannot be made is remembered with its reason until
the orchestrator starts again; the devices that need it are left out, and the job goes on with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.selection import deployable, eligible
from mas_edge.job import Job
from mas_edge.protocol.messages import Birth
from mas_edge.protocol.models import ENGINE_OF, format_for


class Wanted(NamedTuple):
    """Something of a group that is to be made: the model of the format ``name``."""

    group: str
    kind: Literal["model"]
    name: str


class Supply:
    """Who gets what, for one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._refused: dict[Wanted, str] = {}

    def refuse(self, wanted: Wanted, reason: str) -> None:
        """It cannot be made."""
        self._refused[wanted] = reason

    def served(self, work: RoundWork, group: GroupState, births: Mapping[str, Birth]) -> dict[str, str]:
        """The devices that can take part in a round, with what each gets: an engine's program or a model's format."""
        if work.kind != "deploy":
            return {name: births[name].engine for name in eligible(births, self._job, group.tasks)}
        formats = {name: model_format(births[name]) for name in deployable(births, self._job)}
        return {
            name: found for name, found in formats.items() if found and self._can(Wanted(group.name, "model", found))
        }

    def lacking(self, work: RoundWork, group: GroupState, births: Mapping[str, Birth]) -> list[Wanted]:
        """What is to be made before the round can open for everybody."""
        if work.kind != "deploy":
            return []
        needed = set(self.served(work, group, births).values())
        return [Wanted(group.name, "model", name) for name in sorted(needed - group.models.keys())]

    def why_no_model(self, birth: Birth, groups: Iterable[str]) -> str:
        """Why this device will get no model of one of these groups, in words for the operator; empty if it will."""
        found = model_format(birth)
        if not found:
            held = ", ".join(birth.engines) or "no engine"
            return f"it has {held}, which runs no deployed model: install one of {', '.join(ENGINE_OF.values())}"
        reasons = (self._refused.get(Wanted(group, "model", found)) for group in groups)
        return next((f"it needs the model as .{found}, which cannot be made: {why}" for why in reasons if why), "")

    def _can(self, wanted: Wanted) -> bool:
        return wanted not in self._refused


def model_format(birth: Birth) -> str:
    """The format of the models for a device; empty if it can run none."""
    return format_for(birth.engine, birth.engines)
