"""Out of a state directory, the numbers of a report. Reading it disturbs no orchestrator that works there."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from mas_edge.export.toml import to_toml
from mas_edge.federation.methods import planned_rounds
from mas_edge.job import Task
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator import view
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.orchestrator.result import deployment_of, energy_of, evaluations_of, phases_of, rolled_out_of
from mas_edge.orchestrator.rollout_store import remembered
from mas_edge.orchestrator.store import MAX_EVENTS
from mas_edge.orchestrator.view import Snapshot, Span
from mas_edge.protocol.messages import Quality, Report
from mas_edge.reporting.numbers import (
    AffinityNumbers,
    AffinityRound,
    DeviceNumbers,
    EnergyNumbers,
    EnergySource,
    EventNumbers,
    Joules,
    Measured,
    PhaseNumbers,
    Point,
    Recipient,
    RoundNumbers,
    RunNumbers,
    SplitNumbers,
    TaskNumbers,
)
from mas_edge.reporting.standing import state_of

PHASE_EVENT = "phase: "  # what the log says when one begins
STAGES = {"initial": "untrained", "merged": "merged", "split": "split"}
Matrix = list[list[float | None]]
Evaluations = dict[str, dict[str, dict[str, float]]]  # by stage and task


def read_numbers(directory: Path) -> RunNumbers:
    """The run in ``directory``, a ``--state`` or a demo's ``--out``, as it stands now.

    Raises:
        ServerError: there is no run there, or its state is damaged or another version's.
    """
    state = state_of(directory)
    snapshot = view.read(state, last_events=MAX_EVENTS)
    deployment = deployment_of(snapshot, _counted(snapshot.rounds)) or rolled_out_of(remembered(state))
    return numbers_of(snapshot, view.read_spans(state), _constant_losses(state, snapshot.run), deployment)


def _constant_losses(state: Path, run: str) -> dict[str, float]:
    """Of the best constant predictors, which a demo has left in its result beside the state; nothing elsewhere."""
    try:
        result = json.loads((state.parent / "result.json").read_bytes())
        return dict(result["constant_loss"]) if result["run"] == run else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def numbers_of(
    snapshot: Snapshot,
    spans: Sequence[Span],
    constant_losses: dict[str, float],
    deployment: dict[str, Any] | None,
) -> RunNumbers:
    """The numbers of a snapshot; ``spans``: when its rounds were open."""
    counted = _counted(snapshot.rounds)
    training = [record for record in counted if record.kind == "train"]
    merged = sum(record.group == MERGED for record in training)
    planned = planned_rounds(snapshot.job)
    phases = _phases(snapshot, spans)
    job = msgspec.to_builtins(snapshot.job)
    return RunNumbers(
        run=snapshot.run, job_name=snapshot.job.name, fleet=snapshot.job.fleet, method=snapshot.job.method.name,
        phase=snapshot.phase, done=snapshot.phase == "done", written=time.time(), started=snapshot.started,
        finished=snapshot.finished, seconds=_last_sign(snapshot, spans) - snapshot.started,
        merged_rounds=merged, planned_merged_rounds=planned[0],
        split_rounds=len(training) - merged, planned_split_rounds=planned[1],
        abandoned_rounds=len(snapshot.rounds) - len(counted),
        tasks=_tasks(snapshot, training, constant_losses), affinity=_affinity(snapshot, training),
        split=None if snapshot.split is None else _split(snapshot.split), phases=phases,
        rounds=_rounds(snapshot.rounds, spans),
        sent_bytes=sum(phase.sent_bytes for phase in phases),
        received_bytes=sum(phase.received_bytes for phase in phases),
        energy=_energy(snapshot.rounds), devices=[_device(each, snapshot.rounds) for each in snapshot.devices],
        deployment=deployment, events=_events(snapshot),
        versions={"mas-edge": version("mas-edge"), "python": platform.python_version()},
        job=job, job_file=to_toml(job),
    )  # fmt: skip


def _counted(records: Iterable[RoundRecord]) -> list[RoundRecord]:
    return [record for record in records if record.outcome != "abandoned"]


def _last_sign(snapshot: Snapshot, spans: Iterable[Span]) -> float:
    """The end of a run; of one that goes on or was interrupted the last moment that is known of it."""
    if snapshot.finished is not None:
        return snapshot.finished
    times = [span.closed or span.opened for span in spans] + [event.time for event in snapshot.events]
    return max([snapshot.started, *times])


# ---------------------------------------------------------------------- tasks, affinity, split


def _tasks(snapshot: Snapshot, training: Sequence[RoundRecord], constant_losses: dict[str, float]) -> list[TaskNumbers]:
    stages = evaluations_of(_counted(snapshot.rounds), snapshot.split)
    serves = {} if snapshot.split is None else named_groups(snapshot.split.serves)
    return [
        _task(task, training, stages, constant_losses.get(task.name), snapshot.devices,
              [group for group, tasks in serves.items() if task.name in tasks])
        for task in snapshot.job.tasks
    ]  # fmt: skip


def _task(
    task: Task, training: Iterable[RoundRecord], evaluations: Evaluations, constant: float | None,
    devices: Iterable[DeviceRecord], answering: list[str],
) -> TaskNumbers:  # fmt: skip
    stages = {
        shown: Measured(
            loss=found["loss"], metric=found["metric"], samples=int(found["samples"]),
            of_constant=found["loss"] / constant if constant else None,
        )
        for stage, shown in STAGES.items() if (found := evaluations.get(stage, {}).get(task.name))
    }  # fmt: skip
    losses = [stage.loss for stage in stages.values()]
    return TaskNumbers(
        name=task.name, kind=task.kind, loss=task.loss_name, metric=task.metric_name, group=", ".join(answering),
        constant_loss=constant, train_samples=sum(device.tasks.get(task.name, 0) for device in devices), stages=stages,
        change=losses[-1] / losses[0] - 1 if len(losses) > 1 and losses[0] else None,
        curve=[
            Point(round=record.index + 1, group=record.group, loss=record.losses[task.name])
            for record in training if task.name in record.losses
        ],
    )  # fmt: skip


def named_groups(groups: Sequence[list[str]]) -> dict[str, list[str]]:
    """Groups by the name that their rounds have."""
    return {f"group-{number}": list(group) for number, group in enumerate(groups)}


def _affinity(snapshot: Snapshot, training: Iterable[RoundRecord]) -> AffinityNumbers | None:
    rounds = [
        AffinityRound(round=record.index + 1, matrix=matrix)
        for record in training
        if record.group == MERGED and (matrix := _seen(record.affinity, record.affinity_devices)) is not None
    ]
    split = snapshot.split
    if not rounds:
        return None
    return AffinityNumbers(
        tasks=[task.name for task in snapshot.job.tasks], rounds=rounds,
        mean=_seen(split.affinity, split.affinity_devices) if split else None,
        spread=split.affinity_spread if split else None, devices=split.affinity_devices if split else None,
    )  # fmt: skip


def _seen(matrix: Sequence[Sequence[float]] | None, devices: Sequence[Sequence[int]] | None) -> Matrix | None:
    """The records hold 0 for a pair that nobody measured; here it is None."""
    if matrix is None or devices is None:
        return None
    pairs = zip(matrix, devices, strict=True)
    return [[value if count else None for value, count in zip(*row, strict=True)] for row in pairs]


def _split(split: SplitRecord) -> SplitNumbers:
    return SplitNumbers(
        groups=named_groups(split.groups), serves=named_groups(split.serves), value=split.value, bound=split.bound,
        runner_up=split.runner_up, runner_up_value=split.runner_up_value, reason=split.reason,
        candidates=msgspec.to_builtins(split.candidates), received=_received(split),
    )  # fmt: skip


def _received(split: SplitRecord) -> list[Recipient]:
    """The reason for the groups, task by task: the mean of the matrix' column over its group's rows, and the others'.

    Only for a partition: where groups overlap, no task is parted from the others.
    """
    matrix = _seen(split.affinity, split.affinity_devices)
    if matrix is None or sorted(task for group in split.groups for task in group) != sorted(split.tasks):
        return []
    place = {task: number for number, task in enumerate(split.tasks)}
    return [
        Recipient(
            task=task,
            within=_mean(matrix[place[other]][place[task]] for other in group if other != task),
            across=_mean(matrix[place[other]][place[task]] for other in split.tasks if other not in group),
        )
        for group in split.groups
        for task in group
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# ---------------------------------------------------------------------- time, bytes, energy


def _phases(snapshot: Snapshot, spans: Sequence[Span]) -> list[PhaseNumbers]:
    """Every phase that has begun, in order; each lasts until the next begins, so that all of them are the whole run."""
    began = {"prepare": snapshot.started}
    for event in snapshot.events:  # the only trace of the orchestrator's own steps
        if event.text.startswith(PHASE_EVENT):
            began.setdefault(event.text.removeprefix(PHASE_EVENT), event.time)
    for span in spans:  # the log forgets its oldest lines, these stay
        began[span.phase] = min(began.get(span.phase, span.opened), span.opened)
    began.pop("done", None)
    names = sorted(began, key=lambda name: began[name])
    ends = [*(began[name] for name in names[1:]), snapshot.finished]
    return [
        _phase(name, began[name], end, [record for record in snapshot.rounds if record.phase == name])
        for name, end in zip(names, ends, strict=True)
    ]


def _phase(name: str, began: float, ended: float | None, own: list[RoundRecord]) -> PhaseNumbers:
    sums = phases_of(own).get(name, {})
    return PhaseNumbers(
        name=name, began=began, ended=ended, rounds=len(own),
        abandoned=sum(record.outcome == "abandoned" for record in own),
        device_seconds=sums.get("device_seconds", {}), device_cpu_seconds=sums.get("device_cpu_seconds", 0.0),
        affinity_cpu_seconds=sums.get("affinity_cpu_seconds", 0.0),
        multiply_accumulates=sum(sums.get("multiply_accumulates", {}).values()),
        sent_bytes=sums.get("sent_bytes", 0), received_bytes=sums.get("received_bytes", 0),
        traffic=sums.get("traffic", {}), joules=_totals(record.joules for record in own),
    )  # fmt: skip


def _totals(several: Iterable[dict[Quality, dict[str, float]]]) -> Joules:
    totals: Joules = {}
    for joules in several:
        for quality, activities in joules.items():
            totals[quality] = totals.get(quality, 0.0) + sum(activities.values())
    return totals


def _energy(records: list[RoundRecord]) -> EnergyNumbers:
    told = energy_of(records)
    by_activity: dict[Quality, Counter[str]] = {}
    for record in records:
        for quality, activities in record.joules.items():
            into = by_activity.setdefault(quality, Counter())
            for activity, joules in activities.items():
                into[activity] += joules  # type: ignore[assignment]  # joules are no whole number
    return EnergyNumbers(
        total=_totals(record.joules for record in records),
        by_activity={quality: dict(activities) for quality, activities in by_activity.items()},
        sources=[EnergySource(source=source, **entry) for source, entry in told["sources"].items()],
        silent=told["silent"],
    )  # fmt: skip


def _rounds(records: Iterable[RoundRecord], spans: Iterable[Span]) -> list[RoundNumbers]:
    opened = {span.round_id: span.opened for span in spans}
    return [
        RoundNumbers(
            name=record.round_id, phase=record.phase, outcome=record.outcome, opened=opened[record.round_id],
            seconds=record.wall_seconds, selected=len(record.selected), reports=len(record.reports),
            late=len(record.late),
        )
        for record in records if record.round_id in opened
    ]  # fmt: skip


# ---------------------------------------------------------------------- devices, events


def _device(device: DeviceRecord, records: Iterable[RoundRecord]) -> DeviceNumbers:
    reports: list[Report] = []
    selected = refused = 0
    for record in records:
        selected += device.name in record.selected
        refused += device.name in record.refused
        own = record.reports.get(device.name)
        reports += [own] if own is not None else []
        reports += [late.report for late in record.late if late.device == device.name]
    energies = [report.energy for report in reports if report.energy is not None and report.energy.joules]
    return DeviceNumbers(
        name=device.name, engine=device.engine, machine=device.machine, runtime=device.runtime, online=device.online,
        last_seen=device.last_seen, selected=selected, reports=len(reports), refused=refused,
        train_samples=device.tasks, cpu_seconds=sum(report.cpu_seconds for report in reports),
        received_bytes=sum(report.received_bytes for report in reports),
        joules=_totals({energy.quality: energy.joules} for energy in energies),
        problem=device.problem or device.no_model or device.standing.reason,
    )  # fmt: skip


def _events(snapshot: Snapshot) -> list[EventNumbers]:
    """What is worth a look: every warning, and where a phase begins; not the rounds, which have tables of their own."""
    return [
        EventNumbers(time=event.time, level=event.level, text=event.text)
        for event in snapshot.events
        if event.level != "info" or event.text.startswith((PHASE_EVENT, "rollout "))
    ]
