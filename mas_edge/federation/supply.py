"""What each device gets: a program to train with, a model to answer with. Pure.

A group begins with a program for each engine of the job, at the job's batch size. What a device needs beside it is
*wanted*: it is made before the round that needs it opens, and kept in the group's state. What cannot be made is
remembered with its reason until the orchestrator starts again; the devices that need it are left out, and the job goes
on with the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.selection import deployable, eligible, why_not
from mas_edge.job import Job
from mas_edge.protocol.memory import fitting_batch
from mas_edge.protocol.messages import Birth
from mas_edge.protocol.models import ENGINE_OF, format_for

Kind = Literal["memory", "program", "model"]


class Wanted(NamedTuple):
    """Something of a group that is to be made.

    ``memory``: what its programs take at every batch size; ``program``: the one called ``name``, see ``program_name``;
    ``model``: that of the format ``name``.
    """

    group: str
    kind: Kind
    name: str = ""


class Supply:
    """Who gets what, for one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._refused: dict[Wanted, str] = {}
        self.kept_out: Mapping[str, str] = {}  # devices that neither train nor measure, with the reason

    def refuse(self, wanted: Wanted, reason: str) -> None:
        """It cannot be made."""
        self._refused[wanted] = reason

    def served(self, work: RoundWork, group: GroupState, births: Mapping[str, Birth]) -> dict[str, str]:
        """The devices that can take part in a round, with what each gets: a program's name or a model's format."""
        given = self._given(work, group, births)
        return {name: wanted.name for name, wanted in given.items() if self._can(wanted) and wanted.kind != "memory"}

    def lacking(self, work: RoundWork, group: GroupState, births: Mapping[str, Birth]) -> list[Wanted]:
        """What is to be made before the round can open for everybody; no programs before their memory is known."""
        wanted = {wanted for wanted in self._given(work, group, births).values() if self._can(wanted)}
        made = {"memory": {}, "program": group.programs, "model": group.models}
        lacking = sorted(each for each in wanted if each.name not in made[each.kind])
        return [each for each in lacking if each.kind == "memory"] or lacking

    def why_not(self, birth: Birth, groups: Iterable[GroupState]) -> str:
        """Why this device serves none of these groups, in words for the operator; empty if it does, or may."""
        if birth.sender in self.kept_out:
            return self.kept_out[birth.sender]
        reasons = [
            why_not(birth, self._job, group.tasks, group.memory) or self._why_no(birth, group) for group in groups
        ]
        tasks = [task.name for task in self._job.tasks]
        return "" if "" in reasons else next(iter(reasons), why_not(birth, self._job, tasks))

    def _why_no(self, birth: Birth, group: GroupState) -> str:
        wanted = self._program(birth, group)
        what = f"it needs the program {wanted.name}" if wanted.kind == "program" else "it needs a smaller program"
        return f"{what}, which cannot be made: {self._refused[wanted]}" if wanted in self._refused else ""

    def why_no_model(self, birth: Birth, groups: Iterable[GroupState]) -> str:
        """Why this device will get no model of one of these groups, in words for the operator; empty if it will."""
        found = model_format(birth)
        if not found:
            held = ", ".join(birth.engines) or "no engine"
            return f"it has {held}, which runs no deployed model: install one of {', '.join(ENGINE_OF.values())}"
        reasons = (self._refused.get(Wanted(group.name, "model", found)) for group in groups)
        return next((f"it needs the model as .{found}, which cannot be made: {why}" for why in reasons if why), "")

    def _given(self, work: RoundWork, group: GroupState, births: Mapping[str, Birth]) -> dict[str, Wanted]:
        """What each device that may take part needs, whether or not it is made."""
        if work.kind == "deploy":
            formats = {name: model_format(births[name]) for name in deployable(births, self._job)}
            wanted = {name: Wanted(group.name, "model", found) for name, found in formats.items() if found}
        else:
            there = eligible(births, self._job, group.tasks, group.memory)
            wanted = {name: self._program(births[name], group) for name in there if name not in self.kept_out}
        return {name: want for name, want in wanted.items() if group.only in ("", name)}

    def _program(self, birth: Birth, group: GroupState) -> Wanted:
        """The program for a device that can serve the group, or what has to be known before it can be said."""
        if birth.step_memory_bytes == 0:
            return Wanted(group.name, "program", birth.engine)
        if birth.engine not in group.memory:
            return Wanted(group.name, "memory")
        batch = fitting_batch(group.memory[birth.engine], birth.step_memory_bytes)
        return Wanted(group.name, "program", program_name(birth.engine, batch or 0, self._job))

    def _can(self, wanted: Wanted) -> bool:
        return wanted not in self._refused


def model_format(birth: Birth) -> str:
    """The format of the models for a device; empty if it can run none."""
    return format_for(birth.engine, birth.engines)


def program_name(engine: str, batch: int, job: Job) -> str:
    """What the program of a batch size is called: ``torch``, or ``torch@4`` for another one than the job's."""
    return engine if batch == job.federation.batch_size else f"{engine}@{batch}"


def program_called(name: str, job: Job) -> tuple[str, int]:
    """The engine and the batch size of the program called ``name``."""
    engine, _, batch = name.partition("@")
    return engine, int(batch) if batch else job.federation.batch_size


def halves(batch: int) -> list[int]:
    """``batch``, half of it, and so on down to 1."""
    return [batch >> n for n in range(batch.bit_length())]
