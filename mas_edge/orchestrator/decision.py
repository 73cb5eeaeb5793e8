"""Which groups the tasks are trained in, by each method, out of the records of the rounds so far. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mas_edge.federation.aggregate import affinity_over_rounds
from mas_edge.job import Job
from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.merge import MERGED
from mas_edge.mas.split import SplitSearch
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.protocol.errors import ServerError


def decide(job: Job, records: Sequence[RoundRecord]) -> SplitRecord:
    """The groups of the job's method.

    Raises:
        ServerError: no device measured an affinity, and the method needs one.
        JobError: no split fits the job's limits.
    """
    tasks = [task.name for task in job.tasks]
    match job.method.name:
        case "one-by-one":
            return _plain(tasks, [[task] for task in tasks])
        case "all-in-one" | "standalone":
            return _plain(tasks, [tasks])
    return _by_affinity(job, records)


def _plain(tasks: list[str], groups: list[list[str]]) -> SplitRecord:
    return SplitRecord(tasks=tasks, groups=groups, serves=groups)


def _by_affinity(job: Job, records: Sequence[RoundRecord]) -> SplitRecord:
    """The best partition into exactly N groups by the affinity averaged over the merged rounds."""
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
    search = SplitSearch(AffinityMatrix(tuple(tasks), matrix), int(job.federation.groups))
    best, second = search.best(), search.runner_up()
    groups = [list(group) for group in best.groups]
    return SplitRecord(
        tasks=tasks, affinity=matrix.tolist(), affinity_devices=devices.tolist(), value=best.value,
        groups=groups, serves=groups,
        runner_up=[list(group) for group in second.groups] if second else None,
        runner_up_value=second.value if second else None,
    )  # fmt: skip
