"""What a run came to: the numbers of ``result.json``, all out of the records."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import version
from typing import Any

import msgspec

from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.records import RoundRecord, SplitRecord, Traffic
from mas_edge.orchestrator.rollout_store import Remembered
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.messages import Quality


def result_of(snapshot: Snapshot, constant_losses: dict[str, float] | None = None) -> dict[str, Any]:
    """The result as plain JSON values; bytes are payload and topic, seconds are wall time unless they say CPU.

    ``constant_losses``: the loss of the best constant predictor per task, where someone has the data to know it.
    """
    closed = [record for record in snapshot.rounds if record.outcome != "abandoned"]
    finished = snapshot.finished
    return {
        "run": snapshot.run,
        "job": msgspec.to_builtins(snapshot.job),
        "phase": snapshot.phase,
        "done": snapshot.phase == "done",
        "seconds": None if finished is None else finished - snapshot.started,
        "devices": {device.name: msgspec.to_builtins(device) for device in snapshot.devices},
        "phases": phases_of(snapshot.rounds),
        "energy": energy_of(snapshot.rounds),
        "evaluation": evaluations_of(closed, snapshot.split),
        "constant_loss": constant_losses,
        "affinity": None if snapshot.split is None or snapshot.split.affinity is None else {
            "tasks": snapshot.split.tasks,
            "matrix": snapshot.split.affinity,
            "devices": snapshot.split.affinity_devices,
            "spread": snapshot.split.affinity_spread,
        },
        "split": None if snapshot.split is None else {
            "value": snapshot.split.value,
            "bound": snapshot.split.bound,
            "groups": snapshot.split.groups,
            "serves": snapshot.split.serves,
            "runner_up": snapshot.split.runner_up,
            "runner_up_value": snapshot.split.runner_up_value,
            "reason": snapshot.split.reason,
            "candidates": msgspec.to_builtins(snapshot.split.candidates),
        },
        "split_push": split_push_of(closed),
        "deployment": deployment_of(snapshot, closed),
        "rounds": [_round(record) for record in snapshot.rounds],
        "versions": {"mas-edge": version("mas-edge"), "python": platform.python_version()},
    }  # fmt: skip


def _round(record: RoundRecord) -> dict[str, Any]:
    traffic = record.traffic
    return {**msgspec.to_builtins(record), "sent_bytes": traffic.sent, "received_bytes": traffic.received}


def phases_of(records: list[RoundRecord]) -> dict[str, dict[str, Any]]:
    """Rounds, seconds and bytes per phase, in order."""
    phases: dict[str, dict[str, Any]] = {}
    for record in records:
        phase = phases.setdefault(
            record.phase,
            {"rounds": 0, "wall_seconds": 0.0, "device_seconds": Counter(), "device_cpu_seconds": 0.0,
             "affinity_cpu_seconds": 0.0, "multiply_accumulates": Counter(),
             "sent_bytes": 0, "received_bytes": 0, "traffic": Counter()},
        )  # fmt: skip
        phase["rounds"] += 1
        phase["wall_seconds"] += record.wall_seconds
        phase["device_seconds"].update(record.device_seconds)
        phase["device_cpu_seconds"] += record.device_cpu_seconds
        phase["affinity_cpu_seconds"] += record.affinity_cpu_seconds
        phase["multiply_accumulates"].update(record.multiply_accumulates)
        phase["sent_bytes"] += record.traffic.sent
        phase["received_bytes"] += record.traffic.received
        phase["traffic"].update({name: getattr(record.traffic, name) for name in Traffic.__struct_fields__})
    for phase in phases.values():
        phase.update({key: dict(value) for key, value in phase.items() if isinstance(value, Counter)})
    return phases


def energy_of(records: list[RoundRecord]) -> dict[str, Any]:
    """Joules above idle of all devices: by phase and by group, each by quality and activity; and who says so.

    ``sources``: the devices that each sensor or estimate speaks for. ``silent``: reports without any joules.
    """
    phases: dict[str, dict[Quality, dict[str, float]]] = {}
    groups: dict[str, dict[Quality, dict[str, float]]] = {}
    sources: dict[str, dict[str, Any]] = {}
    silent = 0
    for record in records:
        _add(phases.setdefault(record.phase, {}), record.joules)
        _add(groups.setdefault(record.group, {}), record.joules)
        for device, report in record.reports.items():
            energy = report.energy
            if energy is None or not energy.joules:
                silent += 1
                continue
            entry = sources.setdefault(energy.source, {"quality": energy.quality, "error": 0.0, "devices": set()})
            entry["error"] = max(entry["error"], energy.error)
            entry["devices"].add(device)
    told = {source: {**entry, "devices": sorted(entry["devices"])} for source, entry in sources.items()}
    return {"phases": phases, "groups": groups, "sources": told, "silent": silent}


def _add(sums: dict[Quality, dict[str, float]], joules: dict[Quality, dict[str, float]]) -> None:
    for quality, activities in joules.items():
        into = sums.setdefault(quality, {})
        for activity, value in activities.items():
            into[activity] = into.get(activity, 0.0) + value


def evaluations_of(
    records: list[RoundRecord], split: SplitRecord | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Test loss, metric and samples per task: before training, after the merged rounds, after the split.

    Where groups overlap, a task counts in the group that answers for it; where several groups answer for a task, each
    on its own device, the numbers are the means over all samples.
    """
    stages = {"initial_evaluation": "initial", "merged_evaluation": "merged", "group_evaluation": "split"}
    serves = {f"group-{number}": tasks for number, tasks in enumerate(split.serves)} if split else {}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for record in records:
        if record.kind == "evaluate" and record.phase in stages:
            stage = found.setdefault(stages[record.phase], {})
            for task in serves.get(record.group, record.tasks):
                if task in record.losses:
                    seen = {
                        "loss": record.losses[task],
                        "metric": record.metrics[task],
                        "samples": record.samples[task],
                    }
                    stage[task] = _mean(stage[task], seen) if task in stage else seen
    return found


def _mean(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    samples = one["samples"] + other["samples"]
    shares = {key: one[key] * one["samples"] + other[key] * other["samples"] for key in ("loss", "metric")}
    return {**{key: share / samples for key, share in shares.items()}, "samples": samples}


def split_push_of(records: list[RoundRecord]) -> dict[str, int] | None:
    """The bytes of each group's first round after the split: the graphs, and no weights a device already holds."""
    first: dict[str, RoundRecord] = {}
    for record in records:
        if record.phase in ("groups", "group_evaluation") and record.group != MERGED:
            first.setdefault(record.group, record)
    if not first:
        return None
    return {
        "program_bytes": sum(record.traffic.sent_program for record in first.values()),
        "weights_bytes": sum(record.traffic.sent_weights for record in first.values()),
    }


def deployment_of(snapshot: Snapshot, records: list[RoundRecord]) -> dict[str, Any] | None:
    """Which devices run every group's model in good health, of all that serve this job."""
    rounds = [record for record in records if record.kind == "deploy"]
    if not rounds:
        return None
    healthy: dict[str, bool] = {}
    reasons: dict[str, str] = {}
    for record in rounds:
        for device in record.selected:
            report = record.reports.get(device)
            fine = report is not None and report.healthy is True
            healthy[device] = healthy.get(device, True) and fine
            if not fine:
                reasons[device] = report.health_reason if report else record.refused.get(device, "it did not answer")
    for known in snapshot.devices:
        if not known.problem and known.name not in healthy:
            healthy[known.name], reasons[known.name] = False, known.no_model or "it was not there"
    share = sum(healthy.values()) / len(healthy) if healthy else 0.0
    latencies = {r.group: sorted(report.latency_s for report in r.reports.values()) for r in rounds if r.reports}
    return {
        "devices": len(healthy),
        "healthy": sum(healthy.values()),
        "share": share,
        "reasons": reasons,
        "median_latency_s": {group: times[len(times) // 2] for group, times in latencies.items()},
    }


def rolled_out_of(found: Remembered | None) -> dict[str, Any] | None:
    """The same for models that were deployed in stages: of the devices that were told."""
    if found is None:
        return None
    reasons: dict[str, str] = {}
    latencies: dict[str, list[float]] = {}
    for device, standings in found.standings.items():
        for group, standing in standings.items():
            if standing.stage == "healthy":
                latencies.setdefault(group, []).append(standing.latency_s)
            else:
                reasons[device] = standing.reason or standing.stage
    told = len(found.standings)
    healthy = told - len(reasons)
    return {
        "devices": told,
        "healthy": healthy,
        "share": healthy / told if told else 0.0,
        "reasons": reasons,
        "median_latency_s": {group: sorted(times)[len(times) // 2] for group, times in latencies.items()},
    }
