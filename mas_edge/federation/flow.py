"""The job as a whole: which step comes next, as a pure function of what is finished.

    prepare > initial_evaluation > merge > merged_evaluation > probe > probe_evaluation > split
        > groups > regroup > group_evaluation > export > deploy > done

A phase in which this job's method has nothing to do is passed over: only HOA has probes, and a method without a merged
network begins with its groups (``mas_edge.federation.methods``). Where a job asks for it, ``regroup`` leads back to
``merge``: the groups' networks are averaged into a merged one, which measures affinity anew.

The state is one value that the orchestrator stores in the same transaction as the step's result; a restarted
orchestrator asks ``due`` and goes on. Steps are either done by the orchestrator itself (``Local``) or by devices in a
round (``RoundWork``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from mas_edge.mas.merge import MERGED
from mas_edge.protocol.messages import Manifest, PlanKind

Phase = Literal[
    "prepare", "initial_evaluation", "merge", "merged_evaluation", "probe", "probe_evaluation", "split", "groups",
    "regroup", "group_evaluation", "export", "deploy", "done", "aborted",
]  # fmt: skip
OVER: tuple[Phase, ...] = ("done", "aborted")
PHASES: tuple[Phase, ...] = get_args(Phase)[:-1]  # in their order; from any of them a job may be aborted


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """One network of the job: its tasks, its artifacts, and how far it is."""

    name: str
    tasks: list[str]
    programs: dict[str, Manifest]  # by engine, ``ENGINE@BATCH`` for a batch smaller than the job's
    weights: Manifest
    next_round: int
    end_round: int
    last_round: int = 0  # where it pauses for a regrouping before that, ``end_round`` is smaller
    schedule_start: int = 0  # its learning rate is lr * (1 - (round - start) / rounds)**power
    schedule_rounds: int = 0
    only: str = ""  # the one device that trains it; empty: any
    task_weights: dict[str, float] = {}  # that GradNorm has found so far
    first_losses: dict[str, float] = {}  # of its first round: what GradNorm measures progress from
    derive_from: str = ""  # the artifact its first weights can be taken out of
    evaluated: bool = False
    # The bytes a program takes on an engine, by batch size: the job's, and halves of it. Empty until a device asks.
    memory: dict[str, dict[int, int]] = {}
    models: dict[str, Manifest] = {}  # by format; see ``mas_edge.protocol.models``
    golden: Manifest | None = None
    goldens: dict[str, Manifest] = {}  # of formats whose models round, and so have answers of their own
    deployed: bool = False

    def golden_for(self, model_format: str) -> Manifest | None:
        """The golden samples that a model of this format is held against."""
        return self.goldens.get(model_format, self.golden)


class JobState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the job has to remember; stored with every step."""

    run_id: str
    phase: Phase = "prepare"
    merged: GroupState | None = None
    probes: list[GroupState] = []
    groups: list[GroupState] = []
    attempts: dict[str, int] = {}  # abandoned tries per round

    @property
    def networks(self) -> list[GroupState]:
        """Every network that there is."""
        return ([self.merged] if self.merged else []) + self.probes + self.groups

    def group(self, name: str) -> GroupState:
        """The network called ``name``; ``merged`` is the all-in-one network."""
        return next(group for group in self.networks if group.name == name)


class Provided(msgspec.Struct, frozen=True):
    """What was made for a group because a device needs it."""

    group: str
    models: dict[str, Manifest] = {}
    programs: dict[str, Manifest] = {}
    memory: dict[str, dict[int, int]] = {}
    golden: Manifest | None = None
    goldens: dict[str, Manifest] = {}


class Local(msgspec.Struct, frozen=True):
    """A step the orchestrator does by itself."""

    step: Literal["prepare", "split", "regroup", "export"]


class RoundWork(msgspec.Struct, frozen=True):
    """A step that devices do."""

    round_id: str
    kind: PlanKind
    group: str
    index: int  # the training round, counted through the split; for others the round the weights come from
    tag: str


def due(state: JobState) -> list[Local | RoundWork]:
    """What can be done now; more than one round when several networks may train side by side."""
    match state.phase:
        case "prepare" | "split" | "export":
            return [Local(state.phase)]
        case "initial_evaluation":
            return _rounds(state, "evaluate", [g for g in _merged(state) if g.next_round == 0])
        case "merge":
            return _rounds(state, "train", [g for g in _merged(state) if g.next_round < g.end_round])
        case "merged_evaluation":
            return _rounds(state, "evaluate", [g for g in _merged(state) if g.next_round > 0 and not g.evaluated])
        case "probe":
            return _rounds(state, "train", [g for g in state.probes if g.next_round < g.end_round])
        case "probe_evaluation":
            return _rounds(state, "evaluate", [g for g in state.probes if not g.evaluated])
        case "groups":
            return _rounds(state, "train", [g for g in state.groups if g.next_round < g.end_round])
        case "regroup":
            return [Local("regroup")] if any(g.next_round < g.last_round for g in state.groups) else []
        case "group_evaluation":
            return _rounds(state, "evaluate", [g for g in state.groups if not g.evaluated])
        case "deploy":
            return _rounds(state, "deploy", [g for g in state.groups if not g.deployed])
        case "done" | "aborted":
            return []


def _merged(state: JobState) -> list[GroupState]:
    return [state.merged] if state.merged else []


def _rounds(state: JobState, kind: PlanKind, groups: Sequence[GroupState]) -> list[Local | RoundWork]:
    return [_round(state, kind, group) for group in groups]


def _round(state: JobState, kind: PlanKind, group: GroupState) -> RoundWork:
    index = group.next_round
    names = {
        "initial_evaluation": "evaluate-initial", "merged_evaluation": "evaluate-merged",
        "probe_evaluation": f"evaluate-{group.name}", "group_evaluation": f"evaluate-{group.name}",
        "deploy": f"deploy-{group.name}",
    }  # fmt: skip
    name = names.get(state.phase, f"{group.name}-{index:04d}")
    attempt = state.attempts.get(name, 0)
    return RoundWork(f"{name}.{attempt}" if attempt else name, kind, group.name, index, name)


def prepared(state: JobState, merged: GroupState | None, probes: Sequence[GroupState] = ()) -> JobState:
    """The programs of the first networks are exported and their first weights are drawn."""
    return _next_phase(msgspec.structs.replace(state, merged=merged, probes=list(probes)))


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a training round found out beside new weights."""

    losses: Mapping[str, float] = {}
    task_weights: Mapping[str, float] = {}
    stable: bool = False  # the split would not change any more: the merged rounds can end


def trained(state: JobState, work: RoundWork, weights: Manifest, found: Found) -> JobState:
    """A training round closed with new weights."""
    group = state.group(work.group)
    following = work.index + 1
    changed = msgspec.structs.replace(
        group, weights=weights, next_round=following, derive_from="",
        end_round=following if found.stable else group.end_round,
        task_weights=dict(found.task_weights) or group.task_weights,
        first_losses=group.first_losses or dict(found.losses),
    )  # fmt: skip
    return _settled(_with(state, changed))


def evaluated(state: JobState, work: RoundWork) -> JobState:
    """An evaluation round closed."""
    if state.phase == "initial_evaluation":
        return _next_phase(state)
    return _settled(_with(state, msgspec.structs.replace(state.group(work.group), evaluated=True)))


def split(state: JobState, groups: Sequence[GroupState]) -> JobState:
    """The split is decided and exported: each group with its programs and first weights."""
    return _next_phase(msgspec.structs.replace(state, groups=list(groups)))


def regrouped(state: JobState, merged: GroupState) -> JobState:
    """The groups' networks are averaged into one again, which is trained and asked for affinities."""
    return msgspec.structs.replace(state, merged=merged, phase="merge")


def exported(state: JobState, models: dict[str, tuple[dict[str, Manifest], Manifest]]) -> JobState:
    """The inference models and their golden outputs are made: group -> (models by format, golden)."""
    for name, (made, golden) in models.items():
        state = _with(state, msgspec.structs.replace(state.group(name), models=made, golden=golden))
    return _next_phase(state)


def provided(state: JobState, made: Provided) -> JobState:
    """Something that devices wanted beside what every group has is made."""
    group = state.group(made.group)
    kinds: dict[str, Any] = {
        kind: {**getattr(group, kind), **getattr(made, kind)} for kind in ("models", "programs", "memory", "goldens")
    }
    return _with(state, msgspec.structs.replace(group, golden=made.golden or group.golden, **kinds))


def deployed(state: JobState, work: RoundWork) -> JobState:
    """A deployment round closed."""
    return _settled(_with(state, msgspec.structs.replace(state.group(work.group), deployed=True)))


def rolled_out(state: JobState) -> JobState:
    """A staged deployment came to its end, in the place of deployment rounds."""
    groups = [msgspec.structs.replace(group, deployed=True) for group in state.groups]
    return _settled(msgspec.structs.replace(state, groups=groups))


def aborted(state: JobState) -> JobState:
    """The operator has ended the job where it stands."""
    return msgspec.structs.replace(state, phase="aborted")


def abandoned(state: JobState, work: RoundWork) -> JobState:
    """A round ended below its minimum: the same step again, under a name of its own."""
    attempts = {**state.attempts, work.tag: state.attempts.get(work.tag, 0) + 1}
    return msgspec.structs.replace(state, attempts=attempts)


def finish(state: JobState, work: RoundWork, weights: Manifest | None, found: Found | None = None) -> JobState:
    """The state after a round that closed with enough reports; ``weights`` are new after training, and only then."""
    match work.kind, weights:
        case "train", Manifest():
            return trained(state, work, weights, found or Found())
        case "evaluate", None:
            return evaluated(state, work)
        case "deploy", None:
            return deployed(state, work)
    message = f"round {work.round_id} ({work.kind}) ended {'without' if weights is None else 'with'} new weights"
    raise ValueError(message)


def _with(state: JobState, group: GroupState) -> JobState:
    def replaced(groups: Sequence[GroupState]) -> list[GroupState]:
        return [group if each.name == group.name else each for each in groups]

    if group.name == MERGED:
        return msgspec.structs.replace(state, merged=group)
    return msgspec.structs.replace(state, groups=replaced(state.groups), probes=replaced(state.probes))


def _settled(state: JobState) -> JobState:
    return state if due(state) else _next_phase(state)


def _next_phase(state: JobState) -> JobState:
    """The next phase in which there is something to do."""
    state = msgspec.structs.replace(state, phase=PHASES[PHASES.index(state.phase) + 1])
    return state if state.phase == "done" else _settled(state)
