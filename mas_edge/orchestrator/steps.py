"""The orchestrator's own steps: prepare the merged program, decide the split and export it, export what is deployed."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import msgspec

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.files import write_whole
from mas_edge.federation import flow, methods
from mas_edge.federation.aggregate import Accumulator
from mas_edge.federation.flow import GroupState, JobState, Local, Provided
from mas_edge.federation.methods import GroupPlan
from mas_edge.federation.supply import Wanted, program_called
from mas_edge.job import Job
from mas_edge.mas.limits import Costs
from mas_edge.mas.merge import MERGED, Group, inheritance
from mas_edge.orchestrator.decision import GroupCosts, decide, needs_costs, step_seconds
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.models import BOARD_FORMAT
from mas_edge.protocol.weights import derive, gather, pack, sent_layout, unpack

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

    def warm(self) -> None:
        """Nothing has to be started: it is done here."""

    def close(self) -> None:
        """Nothing has to be ended."""

    def take(self, work: Local, state: JobState, records: list[RoundRecord]) -> tuple[JobState, SplitRecord | None]:
        """Do one step; returns the state after it, and the split if this step decided it.

        Raises:
            JobError, ServerError: it cannot be done; the state stays as it was.
        """
        if work.step == "prepare":
            return self._prepare(state), None
        if work.step == "split":
            return self._split(state, records)
        if work.step == "regroup":
            return self._regroup(state), None
        return self._export(state), None

    def _prepare(self, state: JobState) -> JobState:
        rounds, tasks = methods.merged_rounds(self._job), tuple(task.name for task in self._job.tasks)
        plan = None if rounds is None else GroupPlan(MERGED, tasks, "scratch", 0, rounds, self._job.federation.rounds)
        probes = [self._made(each, state) for each in methods.probes(self._job)]
        return flow.prepared(state, None if plan is None else self._made(plan, state), probes)

    def _split(self, state: JobState, records: list[RoundRecord]) -> tuple[JobState, SplitRecord]:
        decided = decide(self._job, records, self._costs(records), [group.tasks for group in state.groups])
        devices = sorted({name for record in records for name in record.reports})
        until = state.merged.next_round if state.merged else 0
        plans = methods.group_plans(self._job, decided.groups, devices, until)
        if decided.groups == [group.tasks for group in state.groups]:  # it stands: each goes on with its own weights
            return flow.split(state, [_going_on(*each) for each in zip(state.groups, plans, strict=True)]), decided
        return flow.split(state, [self._made(plan, state) for plan in plans]), decided

    def _regroup(self, state: JobState) -> JobState:
        """One network of all tasks again: the mean of the groups' encoders, by their number of tasks, and their heads.

        They began as one encoder a few rounds ago; such networks can be averaged (Wortsman et al. 2022, model soups).
        """
        if state.merged is None:
            message = "there is no merged network to regroup"
            raise ServerError(message)
        layout = program_format.load(self._artifacts.read(next(iter(state.merged.programs.values())).artifact)).layout
        soup = Accumulator(layout)
        for group in state.groups:
            tensors = unpack(self._artifacts.read(group.weights.artifact))
            samples = dict.fromkeys(group.tasks, len(group.tasks))
            soup.fold(gather(sent_layout(layout, samples), tensors), samples)
        weights = soup.mean(gather(layout, unpack(self._artifacts.read(state.merged.weights.artifact))))
        now = min(group.next_round for group in state.groups)
        merged = msgspec.structs.replace(
            state.merged, weights=self._artifacts.put(pack(layout, weights)), next_round=now, end_round=now + 1,
            derive_from="",
        )  # fmt: skip
        return flow.regrouped(state, merged)

    def _costs(self, records: list[RoundRecord]) -> GroupCosts:
        """What groups cost, if the decision asks for it."""
        if not needs_costs(self._job):
            return {}
        costs: dict[str, Costs] = _workshop().group_costs(self._job)
        if self._job.limits.step_seconds:
            costs["step_seconds"] = step_seconds(records, costs["multiply_accumulates"])
        return costs

    def _made(self, plan: GroupPlan, state: JobState) -> GroupState:
        """A network with its programs and its first weights."""
        programs = _workshop().make_programs(self._job, plan.name, plan.tasks, self._exports)
        weights, derived = self._first_weights(plan, state, next(iter(programs.values())))
        return GroupState(
            name=plan.name, tasks=list(plan.tasks), programs=self._put_all(programs), weights=weights,
            derive_from=derived, next_round=plan.start, end_round=plan.end, last_round=plan.last,
            only=plan.only, schedule_start=plan.schedule_start, schedule_rounds=plan.rounds,
        )  # fmt: skip

    def _first_weights(self, plan: GroupPlan, state: JobState, program: bytes) -> tuple[Manifest, str]:
        """The weights that a group starts from, and the artifact that a device can take them out of."""
        if plan.source == "scratch":
            return self._artifacts.put(_workshop().first_weights(self._job, plan.tasks)), ""
        source = state.group(plan.source)
        layout = program_format.load(program).layout
        inherited = inheritance(Group(source.name, tuple(source.tasks)), [Group(plan.name, plan.tasks)])
        if {entry.part for entry in layout.entries} != set(inherited[plan.name]):
            message = f"the program of {plan.name} does not hold exactly the parts {inherited[plan.name]}"
            raise ServerError(message)
        weights = self._artifacts.put(derive(self._artifacts.read(source.weights.artifact), layout))
        return weights, source.weights.artifact

    def _put_all(self, programs: dict[str, bytes]) -> dict[str, Manifest]:
        return {engine: self._artifacts.put(program) for engine, program in programs.items()}

    def _export(self, state: JobState) -> JobState:
        models = {}
        for group in state.groups:
            weights = self._artifacts.read(group.weights.artifact)
            models[group.name] = ({FIRST_FORMAT: self._make_model(group, FIRST_FORMAT)}, self._make_golden(group))
            write_whole(self._models / f"{group.name}.safetensors", weights)
        return flow.exported(state, models)

    def provide(self, wanted: Wanted, state: JobState) -> Provided:
        """Make what a device needs beside what every group has.

        Raises:
            JobError, ServerError: it cannot be made.
        """
        group = state.group(wanted.group)
        match wanted.kind:
            case "model":
                if wanted.name == BOARD_FORMAT:
                    return self._provide_int8(group)
                golden = group.golden or self._make_golden(group)  # that of all tasks is made when it is asked for
                return Provided(group.name, models={wanted.name: self._make_model(group, wanted.name)}, golden=golden)
            case "memory":
                return Provided(group.name, memory=_workshop().memory_by_batch(self._job, group.name, group.tasks))
            case "program":
                engine, batch = program_called(wanted.name, self._job)
                made = _workshop().make_program(self._job, group.name, group.tasks, engine, batch, self._exports)
                return Provided(group.name, programs={wanted.name: self._artifacts.put(made)})

    def _provide_int8(self, group: GroupState) -> Provided:
        """What microboards get: a model that rounds, and golden samples that it answers itself."""
        weights = self._artifacts.read(group.weights.artifact)
        model, golden = _workshop().make_int8(self._job, group.tasks, weights)
        write_whole(self._models / f"{group.name}.{BOARD_FORMAT}.tflite", model)
        models, goldens = ({BOARD_FORMAT: self._artifacts.put(data)} for data in (model, golden))
        return Provided(group.name, models=models, goldens=goldens)

    def _make_golden(self, group: GroupState) -> Manifest:
        weights = self._artifacts.read(group.weights.artifact)
        return self._artifacts.put(_workshop().make_golden(self._job, group.tasks, weights))

    def _make_model(self, group: GroupState, suffix: str) -> Manifest:
        model = _workshop().make_model(self._job, group.tasks, self._artifacts.read(group.weights.artifact), suffix)
        write_whole(self._models / f"{group.name}.{suffix}", model)
        return self._artifacts.put(model)


def _going_on(group: GroupState, plan: GroupPlan) -> GroupState:
    return msgspec.structs.replace(group, next_round=plan.start, end_round=plan.end)


def _workshop() -> ModuleType:
    """The workshop, when it is first needed: torch takes seconds to import, and some steps go without."""
    from mas_edge.orchestrator import workshop

    return workshop
