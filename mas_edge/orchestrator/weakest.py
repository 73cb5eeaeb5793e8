"""What the fleet's weakest device lets a group be, out of what its devices showed in the merged rounds. Pure.

Two things are measured of every device that trained the merged network: how long it took for a round, and the batch
that it had the memory for. From the first follows how much of the network it trains within its share of the deadline,
from the second how much of it fits at the job's batch. A device for which no split is small enough bounds nothing: a
job is not given up for it. One that its owner's rules kept away showed nothing; it is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from mas_edge.job import Job
from mas_edge.mas.limits import Costs, GroupLimit, fewest_groups, loads_of
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.errors import JobError

Number = TypeVar("Number", int, float)
MAX_EXACT = 12  # tasks up to which the fewest groups are searched exactly: 4096 sets take milliseconds
MAX_NAMED = 3  # devices that a reason names; there may be thousands


@dataclass(frozen=True)
class Weakest:
    """The limits that the weakest devices set, and what a person should know of them."""

    limits: list[GroupLimit] = field(default_factory=list)
    reason: str = ""


def weakest_limits(
    job: Job, records: Sequence[RoundRecord], costs: Mapping[str, Costs], given: Sequence[GroupLimit], groups: int
) -> Weakest:
    """The limits of ``limits.weakest_device``, none where it is 0.

    ``costs``: of a group by resource; ``given``: the job's other limits; ``groups``: into how many the tasks have to
    go, their number where that is free.
    """
    share = job.limits.weakest_device
    if not share:
        return Weakest()
    rounds = [record for record in records if record.phase == "merge" and record.kind == "train"]
    tasks, allowed = [task.name for task in job.tasks], share * job.federation.deadline_s
    limits = list(given)
    said: list[str] = []
    work, memory = costs["multiply_accumulates"], costs["memory_bytes"]
    for device, seconds in _weakest_first(_seconds(rounds), reverse=True):
        limit = GroupLimit(f"seconds a round on {device}", _scaled(work, seconds), allowed)
        what = f"it trained the merged network for {seconds:.3g} s a round, {allowed:.3g} s are allowed"
        if _take(limit, limits, tasks, groups, said, f"{device} bounds the groups by its speed: {what}"):
            break
    for device, batch in _weakest_first(_smaller_batches(rounds, job.federation.batch_size)):
        most = memory.of(tasks) * batch / job.federation.batch_size
        limit = GroupLimit(f"memory_bytes on {device}", memory, most)
        what = f"the merged network fits at a batch of {batch} instead of {job.federation.batch_size}"
        if _take(limit, limits, tasks, groups, said, f"{device} bounds the groups by its memory: {what}"):
            break
    return Weakest(limits[len(given) :], "; ".join([*said, *_kept_away(rounds)]) or "no device bounds the groups")


def _take(
    limit: GroupLimit, limits: list[GroupLimit], tasks: Sequence[str], groups: int, said: list[str], why: str
) -> bool:
    """Keep a limit that some split keeps; say of one that none does that it is left out."""
    try:
        needed = fewest_groups(loads_of([*limits, limit], tasks), exactly=len(tasks) <= MAX_EXACT)
    except JobError:  # a task alone is too large
        needed = len(tasks) + 1
    if needed <= groups:
        limits.append(limit)
        said.append(why)
        return True
    if sum("is too weak" in each for each in said) < MAX_NAMED:
        said.append(f"{limit.resource.rpartition(' ')[2]} is too weak for any split into {groups}")
    return False


def _seconds(rounds: Sequence[RoundRecord]) -> dict[str, float]:
    """By device, what it usually trained in a round; one hiccup does not count."""
    found: dict[str, list[float]] = {}
    for record in rounds:
        for device, report in record.reports.items():
            if report.seconds.get("train"):
                found.setdefault(device, []).append(report.seconds["train"])
    return {device: median(each) for device, each in found.items()}


def _smaller_batches(rounds: Sequence[RoundRecord], batch: int) -> dict[str, int]:
    """By device, the batch that it had the memory for, where that was not the job's."""
    found = {device: report.batch_size for record in rounds for device, report in record.reports.items()}
    return {device: size for device, size in found.items() if 0 < size < batch}


def _kept_away(rounds: Sequence[RoundRecord]) -> list[str]:
    refused = {device: why for record in rounds for device, why in record.refused.items()}
    there = {device for record in rounds for device in record.reports}
    away = [f"{device} ({why})" for device, why in sorted(refused.items()) if device not in there]
    more = f" and {len(away) - MAX_NAMED} more" if len(away) > MAX_NAMED else ""
    return [f"not asked, as they refused every round: {', '.join(away[:MAX_NAMED])}{more}"] if away else []


def _weakest_first(found: Mapping[str, Number], *, reverse: bool = False) -> list[tuple[str, Number]]:
    return sorted(found.items(), key=lambda each: (each[1], each[0]), reverse=reverse)


def _scaled(work: Costs, whole: float) -> Costs:
    """``work`` in another unit, in which the network of all tasks costs ``whole``."""
    each = whole / work.of(list(work.heads))
    return Costs(each * work.encoder, {task: each * head for task, head in work.heads.items()})
