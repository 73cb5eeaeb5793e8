"""From what is known of a run to what the API says about it: pure functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from mas_edge.federation.flow import PHASES, GroupState, Phase
from mas_edge.federation.methods import merged_rounds, planned_rounds
from mas_edge.federation.rollout import Rollout, Stage
from mas_edge.job import Job
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.rollout_store import Remembered
from mas_edge.protocol.messages import Manifest
from mas_edge.web.ledger import Work
from mas_edge.web.mirror import Known
from mas_edge.web.shapes import (
    ArtifactList,
    ArtifactView,
    DeviceList,
    DeviceView,
    EnergyView,
    EventPage,
    LastLosses,
    PhaseState,
    PhaseView,
    Progress,
    RolloutList,
    RolloutView,
    RoundPage,
    RoundView,
    RunView,
    TaskView,
    TrafficView,
)

# From the least far to the farthest: a device stands where the slowest of its groups does.
_STAGES: tuple[Stage, ...] = ("failed", "excused", "told", "returned", "healthy")


def run_view(known: Known) -> RunView:
    """Where the job stands."""
    job, state = known.job, known.state
    return RunView(
        run=state.run_id, name=job.name, fleet=job.fleet, method=job.method.name,
        tasks=[TaskView(name=t.name, kind=t.kind, loss=t.loss_name, metric=t.metric_name) for t in job.tasks],
        phase=state.phase, phases=_phases(known), control=known.control, served=known.served, members=known.has_members,
        started=known.started, finished=known.finished, progress=progress_of(known), open_rounds=known.open_rounds,
        last_losses=_last_losses(known), devices=len(known.devices),
        online=sum(device.online for device in known.devices.values()), job=msgspec.to_builtins(job),
    )  # fmt: skip


def progress_of(known: Known) -> Progress:
    """How many training rounds are done, of how many to be expected."""
    trained = sum(known.ledger.trained.values())
    merged = known.ledger.trained.get("merge", 0)
    planned = planned_rounds(known.job)
    if known.state.groups:  # the split is known, and with it what is left
        left = sum(group.end_round - group.next_round for group in known.state.groups)
        planned = merged, trained - merged + left
    share = 1.0 if known.state.phase == "done" else min(1.0, trained / max(1, sum(planned)))
    return Progress(
        merged=merged, merged_planned=planned[0], groups=trained - merged, groups_planned=planned[1], share=share
    )


def _phases(known: Known) -> list[PhaseView]:
    job, current = known.job, known.state.phase
    aborted = current == "aborted"
    rounds = known.ledger.rounds
    last = rounds[max(rounds)].phase if aborted and rounds else "prepare"  # what it was at, as far as rounds tell
    place = [str(phase) for phase in PHASES].index(last if aborted else current)

    def state(phase: Phase) -> PhaseState:
        if PHASES.index(phase) == place:
            return "aborted" if aborted else "done" if phase == "done" else "current"
        if _is_passed_over(job, phase):
            return "passed_over"
        return "done" if PHASES.index(phase) < place else "ahead"

    return [PhaseView(name=phase, state=state(phase)) for phase in PHASES]


def _is_passed_over(job: Job, phase: Phase) -> bool:
    match phase:
        case "initial_evaluation" | "merge" | "merged_evaluation":
            return not merged_rounds(job)
        case "probe" | "probe_evaluation":
            return job.method.name != "hoa"
        case "regroup":
            return not job.method.regroup_rounds
    return False


def _last_losses(known: Known) -> list[LastLosses]:
    return [
        LastLosses(group=name, round_id=view.round_id, index=view.index, losses=view.losses)
        for name, view in sorted(known.ledger.last_trained.items())
    ]


# ---------------------------------------------------------------------- devices


def device_list(known: Known) -> DeviceList:
    """Every device, by name."""
    return DeviceList(items=list(device_views(known).values()))


def device_views(known: Known) -> dict[str, DeviceView]:
    """The same by name; those of the fleet that were never here are not among them."""
    at_work: dict[str, list[str]] = {}
    for running in known.open_rounds:
        for name in running.selected:
            at_work.setdefault(name, []).append(running.round_id)
    models = known.rollout.standings if known.rollout else {}
    found = {}
    for name, record in known.devices.items():
        work = known.ledger.work.get(name, Work())
        found[name] = DeviceView(
            name=name, online=record.online, engine=record.engine, machine=record.machine, runtime=record.runtime,
            last_seen=record.last_seen, tasks=record.tasks, problem=record.problem, no_model=record.no_model,
            standing=record.standing, working_on=at_work.get(name, []), selected=work.selected, reports=work.reports,
            last_round=work.last_round, last_error=work.last_error, cpu_seconds=work.cpu_seconds,
            received_bytes=work.received_bytes, joules=work.joules, energy_source=work.energy_source,
            board=work.board,
            models=models.get(name, {}), membership=known.membership.get(name, ""),
        )  # fmt: skip
    return found


# ---------------------------------------------------------------------- rounds and events


def round_page(known: Known, after: int, limit: int) -> RoundPage:
    """At most ``limit`` rounds whose number is greater than ``after``, in the order of their opening."""
    running = [
        RoundView(
            number=each.number, round_id=each.round_id, kind=each.kind, group=each.group, phase=each.phase,
            index=each.index, tasks=known.state.group(each.group).tasks, outcome="", opened=each.opened, closed=None,
            selected=len(each.selected), reports=each.reports,
        )
        for each in known.open_rounds
    ]  # fmt: skip
    there = {**known.ledger.rounds, **{view.number: view for view in running}}
    numbers = sorted(number for number in there if number > after)
    items = [there[number] for number in numbers[:limit]]
    more = len(numbers) > limit
    return RoundPage(items=items, next=items[-1].number if more else None, total=len(there))


def event_page(known: Known, after: int | None, limit: int) -> EventPage:
    """At most ``limit`` lines that come after number ``after``; without it the last ones."""
    items = known.events[-limit:] if after is None else [e for e in known.events if e.number > after][:limit]
    return EventPage(items=items, next=items[-1].number if items else after or 0)


# ---------------------------------------------------------------------- artifacts and rollouts


def artifact_list(known: Known, directory: Path) -> ArtifactList:
    """What each network is made of. ``directory``: where artifacts lie."""
    return ArtifactList(items=[view for group in known.state.networks for view in _artifacts(group, directory)])


def _artifacts(group: GroupState, directory: Path) -> list[ArtifactView]:
    def view(kind: str, engine: str, manifest: Manifest) -> ArtifactView:
        return ArtifactView(
            group=group.name, kind=kind, engine=engine, artifact=manifest.artifact, size=manifest.size,  # type: ignore[arg-type]
            present=(directory / manifest.artifact).is_file(),
        )  # fmt: skip

    return [
        *(view("program", engine, manifest) for engine, manifest in sorted(group.programs.items())),
        view("weights", "", group.weights),
        *(view("model", form, manifest) for form, manifest in sorted(group.models.items())),
        *([view("golden", "", group.golden)] if group.golden else []),
    ]


def rollout_list(known: Known) -> RolloutList:
    """The last rollout, and whether another can begin."""
    ready = known.state.phase in ("deploy", "done") and bool(known.state.groups)
    return RolloutList(current=_rollout(known.rollout) if known.rollout else None, ready=ready)


def _rollout(found: Remembered) -> RolloutView:
    stages = Counter[str](least_stage(found, device) for device in found.standings)
    machine = Rollout(found.state)
    return RolloutView(state=found.state, standings=found.standings, counts=dict(stages), verbs=machine.verbs)


def least_stage(found: Remembered, device: str) -> Stage:
    """That of the group that is least far."""
    held = {standing.stage for standing in found.standings[device].values()}
    return next(stage for stage in _STAGES if stage in held)


# ---------------------------------------------------------------------- bytes and joules


def traffic_view(known: Known) -> TrafficView:
    """What crossed the broker, phase by phase."""
    phases = list(known.ledger.traffic.values())
    sent, received = sum(p.sent_bytes for p in phases), sum(p.received_bytes for p in phases)
    return TrafficView(phases=phases, sent_bytes=sent, received_bytes=received)


def energy_view(known: Known) -> EnergyView:
    """What the work took, and who says so."""
    ledger = known.ledger
    sources = [ledger.sources[key] for key in sorted(ledger.sources)]
    return EnergyView(phases=ledger.phase_joules, groups=ledger.group_joules, sources=sources, silent=ledger.silent)


def measured_rounds(known: Known) -> list[tuple[int, RoundRecord]]:
    """The rounds in which affinity was measured, by number."""
    return [
        (number, record)
        for number, record in sorted(known.ledger.records.items())
        if record.affinity is not None and record.group == MERGED and record.outcome != "abandoned"
    ]


def short(matrix: np.ndarray | list[list[float]]) -> list[list[float]]:
    """Six significant digits: a thousand matrices are half as long, and no eye sees the rest."""
    rows = matrix.tolist() if isinstance(matrix, np.ndarray) else matrix
    return [[float(f"{value:.6g}") for value in row] for row in rows]
