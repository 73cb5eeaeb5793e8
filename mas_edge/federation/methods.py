"""What each method spends its rounds on: tables that flow, decision and plans ask. Pure.

    method       merged rounds   probes             groups                      start from   rounds of a group
    mas          R0              -                  a partition, by affinity    merged       R - R0
    all-in-one   R               -                  all tasks                   merged       0
    one-by-one   -               -                  each task                   scratch      R
    standalone   0               -                  all tasks, for each device  scratch      what a device gets of R
    tag          R               -                  overlapping, by affinity    scratch      R
    hoa          -               singles and pairs  overlapping, by the probes  scratch      R; 0 if it was a probe

Sources: MAS (ICCV 2023, arXiv 2307.11285), TAG (Fifty et al. 2021, arXiv 2109.04617), HOA (Standley et al. 2020, arXiv
1905.07553). The controls of MAS (``split`` random, worst or every, ``start`` scratch) differ in that column only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import msgspec

from mas_edge.job import Federation, Job, Method, Optimizer, check
from mas_edge.mas.controls import every_group
from mas_edge.protocol.errors import JobError

PROXIMAL_MU = 0.01  # of FedProx where the job sets none: the middle of the values its authors tried (0.001 to 1)


class GroupPlan(NamedTuple):
    """A group before it has a program: what it trains, from where, for how long."""

    name: str
    tasks: tuple[str, ...]
    source: Literal["merged", "scratch"] | str  # where its first weights come from: else the name of a probe
    start: int  # its first round and the one after its last, in the learning-rate schedule
    end: int
    rounds: int  # of that schedule
    last: int = 0  # where it pauses to be regrouped before its last round, ``end`` is smaller
    only: str = ""  # the one device that trains it

    @property
    def schedule_start(self) -> int:
        """The round in which its schedule begins: its first one, if the schedule is its own."""
        return self.start if self.rounds == (self.last or self.end) - self.start else 0


def merged_rounds(job: Job) -> int | None:
    """The rounds in which all tasks are trained in one network; None if the method has no such network."""
    return {
        "mas": job.federation.most_merge_rounds, "all-in-one": job.federation.rounds, "tag": job.federation.rounds,
        "standalone": 0, "one-by-one": None, "hoa": None,
    }[job.method.name]  # fmt: skip


def measures_affinity(job: Job) -> bool:
    """Whether the devices measure affinity in the merged rounds: only where something is decided by it."""
    return job.method.name == "tag" or (job.method.name == "mas" and job.method.split != "random")


def probes(job: Job) -> list[GroupPlan]:
    """The networks that are trained only to choose the groups by their losses: HOA's single tasks and pairs."""
    if job.method.name != "hoa":
        return []
    names, rounds = [task.name for task in job.tasks], job.federation.rounds
    chosen = [*combinations(names, 1), *combinations(names, 2)]
    return [GroupPlan(f"probe-{i}", tasks, "scratch", 0, rounds, rounds) for i, tasks in enumerate(chosen)]


def group_plans(
    job: Job,
    groups: Sequence[Sequence[str]],
    devices: Sequence[str],
    merged_until: int,
) -> list[GroupPlan]:
    """How the groups of a decision are trained.

    Args:
        job: the job.
        groups: the tasks of each group; they may overlap.
        devices: the devices that are there; only the standalone method asks.
        merged_until: the merged rounds that were trained.
    """
    if job.method.name == "standalone":
        return _standalone(job, devices)
    rounds = job.federation.rounds
    if job.method.name in ("mas", "all-in-one") and job.method.start == "merged":
        source, start = "merged", merged_until
    else:
        source, start = "scratch", 0
    probed = {plan.tasks: plan.name for plan in probes(job)}
    plans = []
    for number, tasks in enumerate(groups):
        name = f"group-{number}"
        if probe := probed.get(tuple(tasks)):
            plans.append(GroupPlan(name, tuple(tasks), probe, rounds, rounds, rounds))
        else:
            end = _pause(job, start)
            plan = GroupPlan(name, tuple(tasks), source, start, end, rounds, rounds)
            plans.append(_scheduled(job, plan))
    return plans


def planned_rounds(job: Job) -> tuple[int, int]:
    """How many training rounds to expect: merged ones, and those of networks of their own, all together."""
    federation, merged = job.federation, merged_rounds(job) or 0
    many = 2 if federation.groups == "auto" else federation.groups
    groups = {
        "mas": many, "tag": many, "hoa": many, "all-in-one": 0, "one-by-one": len(job.tasks),
        "standalone": federation.devices_per_round,
    }[job.method.name]  # fmt: skip
    if job.method.split == "every":
        groups = len(every_group([task.name for task in job.tasks], many))
    from_merged = job.method.name == "mas" and job.method.start == "merged"
    each = federation.rounds - (merged if from_merged else 0)
    return merged, groups * each + len(probes(job)) * federation.rounds


def _scheduled(job: Job, plan: GroupPlan) -> GroupPlan:
    """With ``after_split = "restart"`` the schedule of a group begins with it, as in the released code."""
    return plan._replace(rounds=plan.last - plan.start) if job.optimizer.after_split == "restart" else plan


def _pause(job: Job, start: int) -> int:
    """The round before which groups that begin at ``start`` are regrouped; R if that is too near to the end."""
    regroup, rounds = job.method.regroup_rounds, job.federation.rounds
    return start + regroup if regroup and start + regroup + regroup <= rounds else rounds


def _standalone(job: Job, devices: Sequence[str]) -> list[GroupPlan]:
    """Each device for itself, for as many rounds as it would be selected for: the same work as all-in-one."""
    federation, tasks = job.federation, tuple(task.name for task in job.tasks)
    selected = min(federation.devices_per_round, len(devices))
    rounds = max(1, round(federation.rounds * selected / max(len(devices), 1)))
    return [
        GroupPlan(f"group-{number}", tasks, "scratch", 0, rounds, rounds, only=device)
        for number, device in enumerate(sorted(devices))
    ]


def with_method(job: Job, name: str) -> Job:
    """The job by the method that a command line calls ``name``, such as ``mas-2`` or ``one-by-one``; checked.

    Raises:
        JobError: there is no such method, or it does not fit the job.
    """
    stem, _, number = name.rpartition("-")
    if stem in NUMBERED and (number.isdecimal() or (stem == "mas" and number == "auto")):
        groups = int(number) if number.isdecimal() else "auto"
        federation = msgspec.structs.replace(job.federation, groups=groups)
        return check(_changed(job, federation, NUMBERED[stem]), f"method {name}")
    if name in PLAIN:
        return check(_changed(job, msgspec.structs.replace(job.federation, groups=1), PLAIN[name]), f"method {name}")
    message = f"method {name!r} is not known; allowed: {', '.join(names())}, where N is a number of groups"
    raise JobError(message)


def named(method: str, groups: str) -> str:
    """The method's name with a number of groups that was given beside it: ``mas`` and ``2`` are ``mas-2``.

    Raises:
        JobError: the method has no number of groups, or has one already.
    """
    if not groups:
        return method
    if (method or "mas") not in NUMBERED:
        message = f"--groups {groups} does not go with the method {method!r}; it goes with {', '.join(NUMBERED)}"
        raise JobError(message)
    return f"{method or 'mas'}-{groups}"


def names() -> list[str]:
    """Every method, as ``with_method`` takes them."""
    return [*PLAIN, *(f"{stem}-N" for stem in NUMBERED), "mas-auto"]


_Change = Callable[[Method, Optimizer], tuple[Method, Optimizer]]


def _changed(job: Job, federation: Federation, change: _Change) -> Job:
    method, optimizer = change(msgspec.structs.replace(job.method, name="mas", split="affinity"), job.optimizer)
    return msgspec.structs.replace(job, federation=federation, method=method, optimizer=optimizer)


def _by(**settings: str | int) -> _Change:
    return lambda method, optimizer: (msgspec.structs.replace(method, **settings), optimizer)


def _fedprox(method: Method, optimizer: Optimizer) -> tuple[Method, Optimizer]:
    changed = msgspec.structs.replace(optimizer, proximal_mu=optimizer.proximal_mu or PROXIMAL_MU)
    return msgspec.structs.replace(method, name="all-in-one", regroup_rounds=0), changed


PLAIN: dict[str, _Change] = {
    "one-by-one": _by(name="one-by-one", regroup_rounds=0, start="merged"),
    "all-in-one": _by(name="all-in-one", regroup_rounds=0, start="merged"),
    "gradnorm": _by(name="all-in-one", balance="gradnorm", regroup_rounds=0, start="merged"),
    "fedprox": _fedprox,
    "standalone": _by(name="standalone", regroup_rounds=0, start="merged"),
}
NUMBERED: dict[str, _Change] = {
    "mas": _by(),
    "tag": _by(name="tag", regroup_rounds=0, start="merged"),
    "hoa": _by(name="hoa", regroup_rounds=0, start="merged"),
    "random": _by(split="random", regroup_rounds=0),
    "worst": _by(split="worst", regroup_rounds=0),
    "every": _by(split="every", regroup_rounds=0),
    "scratch": _by(start="scratch", regroup_rounds=0),
}
