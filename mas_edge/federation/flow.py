"""The job as a whole: which step comes next, as a pure function of what is finished.

    prepare > initial_evaluation > merge > merged_evaluation > split
        > groups > group_evaluation > export > deploy > done

The state is one value that the orchestrator stores in the same transaction as the step's result; a restarted
orchestrator asks ``due`` and goes on. Steps are either done by the orchestrator itself (``Local``) or by devices in a
round (``RoundWork``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from mas_edge.job import Job
from mas_edge.mas.merge import MERGED
from mas_edge.protocol.messages import Manifest, PlanKind

Phase = Literal[
    "prepare", "initial_evaluation", "merge", "merged_evaluation", "split", "groups", "group_evaluation", "export",
    "deploy", "done",
]  # fmt: skip
PHASES: tuple[Phase, ...] = (
    "prepare", "initial_evaluation", "merge", "merged_evaluation", "split", "groups", "group_evaluation", "export",
    "deploy", "done",
)  # fmt: skip


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """One network of the job: its tasks, its artifacts, and how far it is."""

    name: str
    tasks: list[str]
    programs: dict[str, Manifest]  # by engine, ``ENGINE@BATCH`` for a batch smaller than the job's
    weights: Manifest
    next_round: int
    end_round: int
    derive_from: str = ""  # the artifact its first weights can be taken out of
    evaluated: bool = False
    # The bytes a program takes on an engine, by batch size: the job's, and halves of it. Empty until a device asks.
    memory: dict[str, dict[int, int]] = {}
    models: dict[str, Manifest] = {}  # by format; see ``mas_edge.protocol.models``
    golden: Manifest | None = None
    deployed: bool = False


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the job has to remember; stored with every step."""

    run_id: str
    phase: Phase = "prepare"
    merged: GroupState | None = None
    groups: list[GroupState] = []
    attempts: dict[str, int] = {}  # abandoned tries per round

    def group(self, name: str) -> GroupState:
        """The group called ``name``; ``merged`` is the all-in-one network."""
        everything = ([self.merged] if self.merged else []) + self.groups
        return next(group for group in everything if group.name == name)


SplitGroup = tuple[str, Sequence[str], dict[str, Manifest], Manifest]  # name, tasks, programs by engine, weights


class Provided(msgspec.Struct, frozen=True):
    """What was made for a group because a device needs it."""

    group: str
    models: dict[str, Manifest] = {}
    programs: dict[str, Manifest] = {}
    memory: dict[str, dict[int, int]] = {}


class Local(msgspec.Struct, frozen=True):
    """A step the orchestrator does by itself."""

    step: Literal["prepare", "split", "export"]


class RoundWork(msgspec.Struct, frozen=True):
    """A step that devices do."""

    round_id: str
    kind: PlanKind
    group: str
    index: int  # the training round, counted through the split; for others the round the weights come from
    tag: str


def due(state: JobState) -> list[Local | RoundWork]:
    """What can be done now; more than one round when several groups may train side by side."""
    match state.phase:
        case "prepare" | "split" | "export":
            return [Local(state.phase)]
        case "initial_evaluation" | "merged_evaluation":
            return [_round(state, "evaluate", MERGED, state.phase)]
        case "merge":
            return [_round(state, "train", MERGED, state.phase)]
        case "groups":
            return [_round(state, "train", g.name, state.phase) for g in state.groups if g.next_round < g.end_round]
        case "group_evaluation":
            return [_round(state, "evaluate", g.name, state.phase) for g in state.groups if not g.evaluated]
        case "deploy":
            return [_round(state, "deploy", g.name, state.phase) for g in state.groups if not g.deployed]
        case "done":
            return []


def _round(state: JobState, kind: PlanKind, group: str, phase: Phase) -> RoundWork:
    index = state.group(group).next_round
    names = {
        "initial_evaluation": "evaluate-initial", "merged_evaluation": "evaluate-merged",
        "merge": f"merged-{index:04d}", "groups": f"{group}-{index:04d}",
        "group_evaluation": f"evaluate-{group}", "deploy": f"deploy-{group}",
    }  # fmt: skip
    name = names[phase]
    attempt = state.attempts.get(name, 0)
    return RoundWork(f"{name}.{attempt}" if attempt else name, kind, group, index, name)


def prepared(state: JobState, job: Job, programs: dict[str, Manifest], weights: Manifest) -> JobState:
    """The all-in-one programs are exported and its first weights are drawn."""
    merged = GroupState(
        name=MERGED, tasks=[task.name for task in job.tasks], programs=programs, weights=weights,
        next_round=0, end_round=job.federation.merge_rounds,
    )  # fmt: skip
    return _next_phase(msgspec.structs.replace(state, merged=merged))


def trained(state: JobState, work: RoundWork, weights: Manifest) -> JobState:
    """A training round closed with new weights."""
    group = state.group(work.group)
    state = _with(
        state,
        msgspec.structs.replace(group, weights=weights, next_round=group.next_round + 1, derive_from=""),
    )
    return state if due(state) and _still_training(state) else _next_phase(state)


def evaluated(state: JobState, work: RoundWork) -> JobState:
    """An evaluation round closed."""
    if work.group == MERGED:
        return _next_phase(state)
    state = _with(state, msgspec.structs.replace(state.group(work.group), evaluated=True))
    return state if due(state) else _next_phase(state)


def split(state: JobState, job: Job, groups: Sequence[SplitGroup]) -> JobState:
    """The split is decided and exported: each group with its programs and first weights."""
    if state.merged is None:
        message = "a split before the merge"
        raise ValueError(message)
    made = [
        GroupState(
            name=name, tasks=list(tasks), programs=programs, weights=weights, derive_from=state.merged.weights.artifact,
            next_round=job.federation.merge_rounds, end_round=job.federation.rounds,
        )
        for name, tasks, programs, weights in groups
    ]  # fmt: skip
    state = _next_phase(msgspec.structs.replace(state, groups=made))
    return state if due(state) else _next_phase(state)  # R0 = R: nothing left to train


def exported(state: JobState, models: dict[str, tuple[dict[str, Manifest], Manifest]]) -> JobState:
    """The inference models and their golden outputs are made: group -> (models by format, golden)."""
    for name, (made, golden) in models.items():
        state = _with(state, msgspec.structs.replace(state.group(name), models=made, golden=golden))
    return _next_phase(state)


def provided(state: JobState, made: Provided) -> JobState:
    """Something that devices wanted beside what every group has is made."""
    group = state.group(made.group)
    kinds: dict[str, Any] = {
        kind: {**getattr(group, kind), **getattr(made, kind)} for kind in ("models", "programs", "memory")
    }
    return _with(state, msgspec.structs.replace(group, **kinds))


def deployed(state: JobState, work: RoundWork) -> JobState:
    """A deployment round closed."""
    state = _with(state, msgspec.structs.replace(state.group(work.group), deployed=True))
    return state if due(state) else _next_phase(state)


def abandoned(state: JobState, work: RoundWork) -> JobState:
    """A round ended below its minimum: the same step again, under a name of its own."""
    attempts = {**state.attempts, work.tag: state.attempts.get(work.tag, 0) + 1}
    return msgspec.structs.replace(state, attempts=attempts)


def finish(state: JobState, work: RoundWork, weights: Manifest | None) -> JobState:
    """The state after a round that closed with enough reports; ``weights`` are new after training, and only then."""
    match work.kind, weights:
        case "train", Manifest():
            return trained(state, work, weights)
        case "evaluate", None:
            return evaluated(state, work)
        case "deploy", None:
            return deployed(state, work)
    message = f"round {work.round_id} ({work.kind}) ended {'without' if weights is None else 'with'} new weights"
    raise ValueError(message)


def _still_training(state: JobState) -> bool:
    if state.phase == "merge" and state.merged:
        return state.merged.next_round < state.merged.end_round
    return True


def _with(state: JobState, group: GroupState) -> JobState:
    if group.name == MERGED:
        return msgspec.structs.replace(state, merged=group)
    return msgspec.structs.replace(state, groups=[group if g.name == group.name else g for g in state.groups])


def _next_phase(state: JobState) -> JobState:
    return msgspec.structs.replace(state, phase=PHASES[PHASES.index(state.phase) + 1])
