"""Prometheus metrics of a run, by its conventions: base units in the names, counters end in ``_total``.

Everything is read off what is known of the run: the numbers are the run's and not this process's, so that they go on
when it is started again. A label's values are few: tasks, groups, phases and kinds; of devices only whether each is
there and how much it has done.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from mas_edge.federation.flow import PHASES
from mas_edge.web.answers import energy_view, progress_of, traffic_view
from mas_edge.web.findings import average_of
from mas_edge.web.mirror import Known

CONTENT_TYPE = CONTENT_TYPE_LATEST.replace("; charset=utf-8", "")  # the framework adds it


def exposition(known: Known) -> bytes:
    """The metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Run(known))
    return generate_latest(registry)


class _Run(Collector):
    """The metrics of one run at one moment."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        yield from _job(self._known)
        yield from _devices(self._known)
        yield from _rounds(self._known)
        yield from _costs(self._known)
        yield from _findings(self._known)
        yield from _rollout(self._known)


def _job(known: Known) -> Iterator[Metric]:
    run = GaugeMetricFamily(
        "mas_edge_run_info", "The run; always 1.", labels=["run", "job", "fleet", "method"],
    )  # fmt: skip
    run.add_metric([known.state.run_id, known.job.name, known.job.fleet, known.job.method.name], 1)
    yield run
    phase = GaugeMetricFamily("mas_edge_phase", "1 for the phase that the job is in.", labels=["phase"])
    for name in (*PHASES, "aborted"):
        phase.add_metric([name], float(name == known.state.phase))
    yield phase
    yield _gauge("mas_edge_served", "Whether an orchestrator works on the run.", float(known.served))
    yield _gauge(
        "mas_edge_paused", "Whether the operator holds the job up.", float(known.control in ("paused", "held"))
    )
    yield _gauge("mas_edge_started_timestamp_seconds", "When the run began.", known.started)
    progress = progress_of(known)
    yield _gauge("mas_edge_progress_ratio", "Training rounds done, of those to be expected.", progress.share)
    planned = GaugeMetricFamily("mas_edge_planned_rounds", "Training rounds to be expected.", labels=["stage"])
    planned.add_metric(["merged"], progress.merged_planned)
    planned.add_metric(["groups"], progress.groups_planned)
    yield planned


def _devices(known: Known) -> Iterator[Metric]:
    devices = GaugeMetricFamily("mas_edge_devices", "Devices that the orchestrator knows.", labels=["state"])
    there = [record for record in known.devices.values() if record.online]
    devices.add_metric(["online"], len(there))
    devices.add_metric(["away"], len(known.devices) - len(there))
    yield devices
    quarantined = sum(record.standing.until > 0 for record in known.devices.values())
    yield _gauge("mas_edge_devices_quarantined", "Devices whose reports are not asked for now.", quarantined)
    yield _gauge(
        "mas_edge_devices_unfit", "Devices that cannot serve this job.",
        sum(bool(record.problem) for record in known.devices.values()),
    )  # fmt: skip
    online = GaugeMetricFamily("mas_edge_device_online", "Whether a device is there.", labels=["device"])
    seen = GaugeMetricFamily(
        "mas_edge_device_last_seen_timestamp_seconds", "When a device's state was last heard.", labels=["device"]
    )
    reports = CounterMetricFamily("mas_edge_device_reports", "Reports of a device that counted.", labels=["device"])
    seconds = CounterMetricFamily(
        "mas_edge_device_cpu_seconds", "Processor time that a device's work took.", labels=["device"]
    )
    for name, record in known.devices.items():
        online.add_metric([name], float(record.online))
        seen.add_metric([name], record.last_seen)
        if work := known.ledger.work.get(name):
            reports.add_metric([name], work.reports)
            seconds.add_metric([name], work.cpu_seconds)
    yield from (online, seen, reports, seconds)


def _rounds(known: Known) -> Iterator[Metric]:
    counts: dict[tuple[str, str, str], int] = {}
    seconds: dict[str, float] = {}
    refused = late = 0
    loss = GaugeMetricFamily("mas_edge_loss", "Loss of a task in its newest round.", labels=["group", "kind", "task"])
    metric = GaugeMetricFamily(
        "mas_edge_metric", "Metric of a task in its newest evaluation.", labels=["group", "kind", "task"]
    )
    losses: dict[tuple[str, str, str], float] = {}
    metrics: dict[tuple[str, str, str], float] = {}
    for number in sorted(known.ledger.rounds):
        view = known.ledger.rounds[number]
        key = (view.kind, view.phase, view.outcome)
        counts[key] = counts.get(key, 0) + 1
        seconds[view.phase] = seconds.get(view.phase, 0.0) + (view.wall_seconds or 0.0)
        refused, late = refused + view.refused, late + view.late
        losses |= {(view.group, view.kind, task): value for task, value in view.losses.items()}
        metrics |= {(view.group, view.kind, task): value for task, value in view.metrics.items()}
    rounds = CounterMetricFamily("mas_edge_rounds", "Rounds that have closed.", labels=["kind", "phase", "outcome"])
    for labels, count in counts.items():
        rounds.add_metric(list(labels), count)
    walls = CounterMetricFamily("mas_edge_round_seconds", "Time that rounds were open.", labels=["phase"])
    for phase, value in seconds.items():
        walls.add_metric([phase], value)
    for labels, value in losses.items():
        loss.add_metric(list(labels), value)
    for labels, value in metrics.items():
        metric.add_metric(list(labels), value)
    yield from (rounds, walls, loss, metric)
    yield _counter("mas_edge_refused_reports", "Devices that fell out of a round.", refused)
    yield _counter("mas_edge_late_reports", "Reports that counted in a later round.", late)
    yield _gauge("mas_edge_open_rounds", "Rounds that are running.", len(known.open_rounds))


def _costs(known: Known) -> Iterator[Metric]:
    kinds = CounterMetricFamily(
        "mas_edge_traffic_bytes", "Payload and topics over the broker.", labels=["phase", "direction", "kind"]
    )
    for phase in traffic_view(known).phases:
        for name, size in phase.kinds.items():
            direction, _, kind = name.partition("_")
            kinds.add_metric([phase.phase, direction, kind], size)
    yield kinds
    joules = CounterMetricFamily(
        "mas_edge_energy_joules", "Energy above idle that devices' work took.", labels=["phase", "quality", "activity"]
    )
    for name, qualities in energy_view(known).phases.items():
        for quality, activities in qualities.items():
            for activity, value in activities.items():
                joules.add_metric([name, quality, activity], value)
    yield joules


def _findings(known: Known) -> Iterator[Metric]:
    affinity = GaugeMetricFamily(
        "mas_edge_affinity_ratio", "Mean affinity: how much a step on source lowers the loss of recipient.",
        labels=["source", "recipient"],
    )  # fmt: skip
    found, tasks = average_of(known), [task.name for task in known.job.tasks]
    for source, row in zip(tasks, found.matrix if found else [], strict=False):  # none before anybody has measured
        for recipient, value in zip(tasks, row, strict=True):
            affinity.add_metric([source, recipient], value)
    yield affinity
    groups = GaugeMetricFamily(
        "mas_edge_task_group", "The number of the group that answers for a task.", labels=["task"]
    )
    for number, tasks in enumerate(known.split.serves if known.split else []):
        for task in tasks:
            groups.add_metric([task], number)
    yield groups


def _rollout(known: Known) -> Iterator[Metric]:
    devices = GaugeMetricFamily(
        "mas_edge_rollout_devices", "Devices of the last rollout, by how their models stand.", labels=["stage"]
    )
    if known.rollout:
        counts: dict[str, int] = {}
        for standings in known.rollout.standings.values():
            for standing in standings.values():
                counts[standing.stage] = counts.get(standing.stage, 0) + 1
        for stage, count in counts.items():
            devices.add_metric([stage], count)
    yield devices


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
