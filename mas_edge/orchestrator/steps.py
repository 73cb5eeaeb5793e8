"""The orchestrator's own steps: prepare the merged program, decide the split and export it, export what is deployed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation import flow
from mas_edge.federation.aggregate import affinity_over_rounds
from mas_edge.federation.flow import GroupState, JobState, Local, Provided, SplitGroup
from mas_edge.federation.supply import Wanted, program_called
from mas_edge.job import Job
from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.merge import MERGED, all_in_one, groups_of, inheritance
from mas_edge.mas.split import Split, SplitSearch
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.weights import derive

FIRST_FORMAT = "onnx"  # made for every group: what a person opens first, whatever the fleet runs


class Steps:
    """Steps that need torch and time, but no broker.

    In ``directory``, that of the run, ``models`` is where a person finds the final models, and ``exports`` keeps what
    was verified, for an orchestrator that is killed between exporting and going on.
    """

    def __init__(self, job: Job, artifacts: ArtifactStore, directory: Path) -> None:
        self._job = job
        self._artifacts = artifacts
        self._models = directory / "models"
        self._exports = directory / "exports"

    def take(self, work: Local, state: JobState, records: list[RoundRecord]) -> tuple[JobState, SplitRecord | None]:
        """Do one step; returns the state after it, and the split if this step decided it.

        Raises:
            JobError, ServerError: it cannot be done; the state stays as it was.
        """
        if work.step == "prepare":
            return self._prepare(state), None
        if work.step == "split":
            return self._split(state, records)
        return self._export(state), None

    def _prepare(self, state: JobState) -> JobState:
        workshop = _workshop()
        merged = all_in_one([task.name for task in self._job.tasks])
        programs = self._put_all(workshop.make_programs(self._job, merged.name, merged.tasks, self._exports))
        weights = self._artifacts.put(workshop.first_weights(self._job, merged.tasks))
        return flow.prepared(state, self._job, programs, weights)

    def _split(self, state: JobState, records: list[RoundRecord]) -> tuple[JobState, SplitRecord]:
        workshop = _workshop()
        if state.merged is None:
            message = "there is no merged network to split"
            raise ServerError(message)
        best, record = decide_split(self._job, records)
        groups = groups_of(best)
        parts = inheritance(all_in_one(state.merged.tasks), groups)
        trained = self._artifacts.read(state.merged.weights.artifact)
        made: list[SplitGroup] = []
        for group in groups:
            programs = workshop.make_programs(self._job, group.name, group.tasks, self._exports)
            layout = program_format.load(next(iter(programs.values()))).layout
            if {entry.part for entry in layout.entries} != set(parts[group.name]):
                message = f"the program of {group.name} does not hold exactly the parts {parts[group.name]}"
                raise ServerError(message)
            inherited = self._artifacts.put(derive(trained, layout))
            made.append((group.name, group.tasks, self._put_all(programs), inherited))
        return flow.split(state, self._job, made), record

    def _put_all(self, programs: dict[str, bytes]) -> dict[str, Manifest]:
        return {engine: self._artifacts.put(program) for engine, program in programs.items()}

    def _export(self, state: JobState) -> JobState:
        workshop = _workshop()
        self._models.mkdir(exist_ok=True)
        models = {}
        for group in state.groups:
            weights = self._artifacts.read(group.weights.artifact)
            golden = self._artifacts.put(workshop.make_golden(self._job, group.tasks, weights))
            models[group.name] = ({FIRST_FORMAT: self._make_model(group, FIRST_FORMAT)}, golden)
            (self._models / f"{group.name}.safetensors").write_bytes(weights)
        return flow.exported(state, models)

    def provide(self, wanted: Wanted, state: JobState) -> Provided:
        """Make what a device needs beside what every group has.

        Raises:
            JobError, ServerError: it cannot be made.
        """
        group = state.group(wanted.group)
        match wanted.kind:
            case "model":
                return Provided(group.name, models={wanted.name: self._make_model(group, wanted.name)})
            case "memory":
                return Provided(group.name, memory=_workshop().memory_by_batch(self._job, group.name, group.tasks))
            case "program":
                engine, batch = program_called(wanted.name, self._job)
                made = _workshop().make_program(self._job, group.name, group.tasks, engine, batch, self._exports)
                return Provided(group.name, programs={wanted.name: self._artifacts.put(made)})

    def _make_model(self, group: GroupState, suffix: str) -> Manifest:
        model = _workshop().make_model(self._job, group.tasks, self._artifacts.read(group.weights.artifact), suffix)
        (self._models / f"{group.name}.{suffix}").write_bytes(model)
        return self._artifacts.put(model)


def _workshop() -> ModuleType:
    """The workshop, when it is first needed: torch takes seconds to import, and the loop has devices to greet."""
    from mas_edge.orchestrator import workshop

    return workshop


def decide_split(job: Job, records: list[RoundRecord]) -> tuple[Split, SplitRecord]:
    """The best partition into exactly N groups by the affinity averaged over the merged rounds.

    Raises:
        ServerError: no device measured an affinity.
    """
    tasks = [task.name for task in job.tasks]
    measured = [
        (np.array(r.affinity, np.float64), np.array(r.affinity_devices, np.int64))
        for r in records
        if r.group == MERGED and r.kind == "train" and r.affinity is not None
    ]
    if not measured:
        message = "no device measured an affinity in the merged rounds: lower affinity.period, or train longer"
        raise ServerError(message)
    matrix, devices = affinity_over_rounds(measured)
    search = SplitSearch(AffinityMatrix(tuple(tasks), matrix), job.federation.groups)
    best, second = search.best(), search.runner_up()
    record = SplitRecord(
        tasks=tasks, affinity=matrix.tolist(), affinity_devices=devices.tolist(), value=best.value,
        groups=[list(group) for group in best.groups],
        runner_up=[list(group) for group in second.groups] if second else None,
        runner_up_value=second.value if second else None,
    )  # fmt: skip
    return best, record
