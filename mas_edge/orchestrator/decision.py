"""Which groups the tasks are trained in, by each method, out of the records of the rounds so far. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from mas_edge.federation.measurements import MeanAffinity, affinity_over_rounds
from mas_edge.job import Job
from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.automatic import choose_split, gain_error
from mas_edge.mas.controls import every_group, random_split, worst_split
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.merge import MERGED
from mas_edge.mas.overlap import Selection, hoa_groups, tag_groups
from mas_edge.mas.split import Split, SplitSearch, value_of
from mas_edge.mas.stability import is_stable
from mas_edge.orchestrator.records import CandidateRecord, RoundRecord, SplitRecord
from mas_edge.orchestrator.weakest import weakest_limits
from mas_edge.protocol.errors import ServerError

GroupCosts = Mapping[str, Costs]  # by the names of the job's limits
Groups = Sequence[Sequence[str]]


def needs_costs(job: Job) -> bool:
    """Whether the decision asks what a group costs."""
    return job.federation.groups == "auto" or any(msgspec.structs.astuple(job.limits))


def decide(
    job: Job, records: Sequence[RoundRecord], costs: GroupCosts | None = None, current: Groups = ()
) -> SplitRecord:
    """The groups of the job's method.

    ``costs``: of a group by resource, where the job has limits or finds the number of groups itself. ``current``: the
    groups that are trained already; they stay unless others gain more than the noise of the affinities.

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
        case "hoa":
            return _selected(tasks, hoa_groups(tasks, _probed(records), int(job.federation.groups)))
        case "mas" if job.method.split == "random":
            return _plain(tasks, random_split(tasks, int(job.federation.groups), job.seed))
    measured = measured_affinity(records)
    matrix = AffinityMatrix(tuple(tasks), measured.matrix)
    if job.method.name == "tag":
        found = _selected(tasks, tag_groups(matrix, int(job.federation.groups)))
    else:
        rounds = sum(record.phase == "merge" and record.outcome != "abandoned" for record in records)
        limits = _limits(job, costs or {})
        number = len(tasks) if job.federation.groups == "auto" else job.federation.groups
        weakest = weakest_limits(job, records, costs or {}, limits, number)
        found = _partition(job, matrix, measured, costs or {}, rounds, [*limits, *weakest.limits])
        found = msgspec.structs.replace(found, reason="; ".join(filter(None, [found.reason, weakest.reason])))
        if current and not _pays(matrix, measured.spread, found.groups, current):
            kept = "the groups stay: no others gain more than the noise of the affinities"
            found = msgspec.structs.replace(
                _plain(tasks, current), value=value_of(matrix, current), reason=kept, runner_up=found.groups,
                runner_up_value=found.value,
            )  # fmt: skip
    return msgspec.structs.replace(
        found, affinity=measured.matrix.tolist(), affinity_devices=measured.devices.tolist(),
        affinity_spread=[[None if math.isnan(v) else v for v in row] for row in measured.spread.tolist()],
    )  # fmt: skip


def measured_affinity(records: Sequence[RoundRecord]) -> MeanAffinity:
    """The affinity averaged over the merged rounds.

    After a regrouping, the rounds that measured anew count as much as everything before them. Raises ServerError if no
    device measured an affinity.
    """
    blocks: list[list[RoundRecord]] = [[]]
    for record in records:
        if record.kind != "train" or record.outcome == "abandoned":
            continue
        if record.group != MERGED:  # what the merged network is asked after this, it is asked after a regrouping
            blocks.append([])
        elif record.affinity is not None:
            blocks[-1].append(record)
    blocks = [block for block in blocks if block]
    if not blocks:
        message = "no device measured an affinity in the merged rounds: lower affinity.period, or train longer"
        raise ServerError(message)
    found = _mean_of(blocks[0])
    for block in blocks[1:]:
        found = _halfway(found, _mean_of(block))
    return found


def _mean_of(records: Sequence[RoundRecord]) -> MeanAffinity:
    return affinity_over_rounds(
        [(np.array(r.affinity, np.float64), np.array(r.affinity_devices, np.int64)) for r in records]
    )


def _halfway(before: MeanAffinity, now: MeanAffinity) -> MeanAffinity:
    """The mean of two measurements; a pair that only one of them saw is that one's."""
    both, only_now = (before.rounds > 0) & (now.rounds > 0), before.rounds == 0
    matrix = np.where(both, (before.matrix + now.matrix) / 2, np.where(only_now, now.matrix, before.matrix))
    later = np.where(np.isnan(now.spread), before.spread, now.spread)  # one round alone has no spread: as noisy
    spread = np.where(both, np.hypot(before.spread, later) / 2, np.where(only_now, now.spread, before.spread))
    return MeanAffinity(matrix, before.devices + now.devices, before.rounds + now.rounds, spread)


def _pays(matrix: AffinityMatrix, spread: NDArray[np.float64], groups: Groups, current: Groups) -> bool:
    """Whether other groups gain over the current ones by more than the standard error of both gains."""
    errors = np.nan_to_num(spread, nan=0.0)
    noise = math.hypot(gain_error(matrix, groups, errors), gain_error(matrix, current, errors))
    return value_of(matrix, groups) - value_of(matrix, current) > noise


def settled(job: Job, records: Sequence[RoundRecord]) -> bool:
    """Whether the split would be the same whichever rounds and devices had been drawn: the merged rounds can end."""
    tasks, groups = [task.name for task in job.tasks], job.federation.groups
    rounds: list[list[NDArray[np.float64]]] = [
        [np.array(report.affinity, np.float64) for report in record.every_report if report.affinity is not None]
        for record in records
        if record.group == MERGED and record.kind == "train" and record.outcome != "abandoned"
    ]
    number = 2 if groups == "auto" else groups  # a larger number is chosen only where it gains beyond the noise
    return is_stable([each for each in rounds if each], number, tasks=tasks, seed=job.seed)


def _partition(
    job: Job,
    matrix: AffinityMatrix,
    measured: MeanAffinity,
    costs: GroupCosts,
    merged_rounds: int,
    limits: Sequence[GroupLimit],
) -> SplitRecord:
    """The best partition by affinity, or one of the controls."""
    tasks, number = list(matrix.tasks), job.federation.groups
    if number == "auto":
        share = 1 - merged_rounds / job.federation.rounds
        errors = np.nan_to_num(measured.spread, nan=0.0)
        choice = choose_split(matrix, costs["multiply_accumulates"], share, errors, limits, job.seed)
        candidates = [
            CandidateRecord(
                groups=row.groups, value=row.split.value, gain=row.gain, noise=row.noise, cost=row.cost,
                chosen=row.chosen,
            )
            for row in choice.candidates
        ]  # fmt: skip
        return msgspec.structs.replace(_split(tasks, choice.split), reason=choice.reason, candidates=candidates)
    if job.method.split == "worst":
        return _split(tasks, worst_split(matrix, number, limits, job.seed))
    search = SplitSearch(matrix, number, job.federation.at_most, limits, job.seed)
    best, second = search.best(), search.runner_up()
    found = msgspec.structs.replace(
        _split(tasks, best), runner_up=_lists(second.groups) if second else None,
        runner_up_value=second.value if second else None,
    )  # fmt: skip
    if job.method.split != "every":
        return found
    serving = {frozenset(group) for group in best.groups}
    every = _lists(every_group(tasks, number))
    return msgspec.structs.replace(
        found, groups=every, serves=[group if frozenset(group) in serving else [] for group in every]
    )


def step_seconds(records: Sequence[RoundRecord], work: Costs) -> Costs:
    """The seconds of a train step of a group on the slowest device, from those that it took for the merged network.

    ``work``: the multiply-accumulates of a group; a step's time is taken to follow them.

    Raises:
        ServerError: no device has trained the merged network yet.
    """
    steps = [
        report.seconds.get("train", 0.0) / report.steps
        for record in records
        for report in record.reports.values()
        if record.phase == "merge" and report.steps
    ]
    if not steps:
        message = "limits.step_seconds needs a time, and no device has trained the merged network"
        raise ServerError(message)
    each = max(steps) / work.of(list(work.heads))
    return Costs(each * work.encoder, {task: each * head for task, head in work.heads.items()})


def _limits(job: Job, costs: GroupCosts) -> list[GroupLimit]:
    return [
        GroupLimit(resource, costs[resource], most)
        for resource, most in msgspec.structs.asdict(job.limits).items()
        if most and resource != "weakest_device"  # that is none itself: what follows from it depends on the fleet
    ]


def _split(tasks: list[str], split: Split) -> SplitRecord:
    found = _plain(tasks, split.groups)
    return msgspec.structs.replace(found, value=split.value, bound=split.bound)


def _plain(tasks: list[str], groups: Groups) -> SplitRecord:
    return SplitRecord(tasks=tasks, groups=_lists(groups), serves=_lists(groups))


def _selected(tasks: list[str], selection: Selection) -> SplitRecord:
    return SplitRecord(
        tasks=tasks, groups=_lists(selection.groups), serves=_lists(selection.serves), value=selection.value
    )


def _lists(groups: Groups) -> list[list[str]]:
    return [list(group) for group in groups]


def _probed(records: Sequence[RoundRecord]) -> dict[frozenset[str], dict[str, float]]:
    """The test losses of the probes, by their tasks."""
    return {frozenset(record.tasks): record.losses for record in records if record.phase == "probe_evaluation"}
