"""What an export's card says, out of the job, the run, the verification and the files themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

import torch

from mas_edge.export.card import (
    FORMAT,
    Board,
    Checked,
    DataCard,
    FileCard,
    InputCard,
    Measured,
    ModelCard,
    NetworkCard,
    TaskCard,
    TrainingCard,
)
from mas_edge.export.report import MODEL, Report, worst_of_each
from mas_edge.export.targets import Target
from mas_edge.job import Job
from mas_edge.learning.network import Network, build, layout_of
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import Vector

Files = dict[str, tuple[bytes, str]]  # by name below the export's folder: the content, and what it is


@dataclass(frozen=True)
class Trained:
    """The trained weights of one group, and what is known about them."""

    job: Job
    group: str
    tasks: tuple[str, ...]
    vector: Vector  # in the order of the layout of ``build(job, tasks)``
    training: TrainingCard
    measured: Mapping[str, list[Measured]] = field(default_factory=dict)


def card_of(trained: Trained, target: Target, report: Report, files: Files, board: Board | None) -> ModelCard:
    """The card of an export that is about to be written."""
    job, words = trained.job, trained.job.card
    network = build(job, trained.tasks).eval()
    return ModelCard(
        format=FORMAT,
        name=f"{job.name} {trained.group}",
        job=job.name,
        group=trained.group,
        target=target.name,
        precision=report.precision,
        engine=target.engine,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tasks=_tasks(trained, network),
        input=InputCard(name="x", shape=list(job.data.input_shape), dtype=target.dtype, batch=target.batch),
        network=_network(job, network),
        training=trained.training,
        files=[
            FileCard(name=name, size=len(data), sha256=digest_of(data), content=content)
            for name, (data, content) in files.items()
        ],
        versions=report.versions,
        verification=_checked(report),
        quantization=report.quantization,
        board=board,
        data=DataCard(description=words.description, licence=words.licence, contact=words.contact),
        intended_use=words.intended_use,
        limits=words.limits,
    )


def _tasks(trained: Trained, network: Network) -> list[TaskCard]:
    with torch.no_grad():
        outputs = network(torch.zeros(1, *trained.job.data.input_shape))
    return [
        TaskCard(
            name=task.name, kind=task.kind, output=list(outputs[task.name].shape[1:]), classes=task.classes,
            metric=task.metric_name, loss=task.loss_name, unit=trained.job.card.units.get(task.name, ""),
            measured=trained.measured.get(task.name, []),
        )
        for task in map(trained.job.task, trained.tasks)
    ]  # fmt: skip


def _network(job: Job, network: Network) -> NetworkCard:
    layout = layout_of(network)
    parts = Counter[str]()
    for entry in layout.entries:
        parts[entry.part] += entry.size
    own = job.network.encoder
    return NetworkCard(
        architecture=f"encoder {own} of the job" if own else f"family {job.network.family} of mas-edge",
        weights=layout.size,
        trained=layout.trainable,
        parts=dict(parts),
        arguments=job.network.encoder_args,
    )


def _checked(report: Report) -> list[Checked]:
    return [
        Checked(
            what="inference model" if comparison.method == MODEL else f"program: {comparison.method}",
            outputs=outputs,
            worst=comparison.output,
            max_abs=comparison.max_abs,
            max_rel=comparison.max_rel,
            tolerance=comparison.tolerance,
        )
        for comparison, outputs in worst_of_each([*report.model, *report.program])
    ]
