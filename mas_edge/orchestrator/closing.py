"""What comes of a round when it closes: new weights, what it found out, and a line for people."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.aggregate import mean_task_weights
from mas_edge.federation.flow import Found
from mas_edge.federation.methods import measures_affinity
from mas_edge.job import Job
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.decision import settled
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.weights import flatten, header_of


def aggregate(active: ActiveRound, artifacts: ArtifactStore) -> Manifest | None:
    """The weights that come out of a training round, in the store; None of another round."""
    if active.accumulator is None:
        return None
    with artifacts.opened(active.group.weights.artifact) as data:
        means = active.accumulator.means(flatten(active.layout, data))
        numbers = (np.ascontiguousarray(mean, dtype="<f4").data.cast("B") for mean in means)
        return artifacts.put_pieces(chain([header_of(active.layout)], numbers))


def found(job: Job, record: RoundRecord, store: Store) -> Found:
    """What a training round found out beside new weights."""
    if record.kind != "train":
        return Found()
    stable = False
    if job.federation.merge_rounds == "auto" and record.group == MERGED and measures_affinity(job):
        stable = settled(job, [*store.records(), record])
    return Found(losses=record.losses, task_weights=mean_task_weights(record.every_report), stable=stable)


def announcement(record: RoundRecord) -> Iterator[tuple[str, str, str]]:
    """The lines of the log about a closed round: (level, text, the device that it is about)."""
    losses = ", ".join(f"{task} {loss:.3f}" for task, loss in record.losses.items())
    late = f" and {len(record.late)} late ones" if record.late else ""
    text = f"{record.round_id}: {record.outcome}, {len(record.reports)} of {len(record.selected)} reports{late}"
    level = "warning" if record.outcome == "abandoned" else "info"
    yield level, f"{text} in {record.wall_seconds:.1f} s{'; ' + losses if losses else ''}", ""
    for device, reason in record.refused.items():
        yield "warning", f"{record.round_id}: {device} is out: {reason}", device
