"""What each method trains: merged rounds, probes, groups; and the names by which a command line calls them."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.methods import (
    PROXIMAL_MU,
    GroupPlan,
    group_plans,
    measures_affinity,
    merged_rounds,
    named,
    names,
    planned_rounds,
    probes,
    with_method,
)
from mas_edge.job import Data, Federation, Job, Method, Optimizer, Task, check
from mas_edge.protocol.errors import JobError

TASKS = ("a", "b", "c")
SPLIT = [["a", "c"], ["b"]]
DEVICES = ["pi-2", "pi-1", "pi-3", "pi-4"]
R, R0 = 9, 3


def a_job(method: str = "", **federation: int | str) -> Job:
    settings = {"rounds": R, "merge_rounds": R0, "groups": 2, "devices_per_round": 2, **federation}
    tasks = [Task(name=name, kind="value") for name in TASKS]
    job = Job(name="j", data=Data(input_shape=[3]), tasks=tasks, federation=msgspec.convert(settings, Federation))
    return with_method(job, method) if method else job


def plans_of(method: str, groups: list[list[str]] | None = None, merged_until: int = R0) -> list[GroupPlan]:
    chosen = groups or SPLIT
    return group_plans(a_job(method), chosen, DEVICES, merged_until)


# What a name makes of the job: method.name, split, start, balance, federation.groups.
CALLED: dict[str, tuple[str, str, str, str, int | str]] = {
    "mas-2": ("mas", "affinity", "merged", "none", 2),
    "mas-3": ("mas", "affinity", "merged", "none", 3),
    "mas-auto": ("mas", "affinity", "merged", "none", "auto"),
    "random-2": ("mas", "random", "merged", "none", 2),
    "worst-2": ("mas", "worst", "merged", "none", 2),
    "every-2": ("mas", "every", "merged", "none", 2),
    "scratch-2": ("mas", "affinity", "scratch", "none", 2),
    "tag-3": ("tag", "affinity", "merged", "none", 3),
    "hoa-3": ("hoa", "affinity", "merged", "none", 3),
    "one-by-one": ("one-by-one", "affinity", "merged", "none", 1),
    "all-in-one": ("all-in-one", "affinity", "merged", "none", 1),
    "gradnorm": ("all-in-one", "affinity", "merged", "gradnorm", 1),
    "fedprox": ("all-in-one", "affinity", "merged", "none", 1),
    "standalone": ("standalone", "affinity", "merged", "none", 1),
}


@pytest.mark.parametrize("name", CALLED)
def test_a_name_sets_what_it_says_and_nothing_else(name: str) -> None:
    job = a_job(name)
    method = job.method
    assert (method.name, method.split, method.start, method.balance, job.federation.groups) == CALLED[name]
    before = a_job()
    assert msgspec.structs.replace(job.federation, groups=2) == before.federation
    assert (job.tasks, job.affinity, job.network, job.seed) == (before.tasks, before.affinity, before.network, 0)
    assert check(job) is job


def test_every_method_that_is_offered_can_be_called() -> None:
    called = [name.replace("-N", "-2") for name in names()]
    assert {re.sub(r"\d$", "N", name) for name in CALLED} == set(names())
    assert all(with_method(a_job(), name) for name in called)


def test_a_method_forgets_the_control_that_the_job_file_asks_for() -> None:
    control = msgspec.structs.replace(a_job(), method=Method(split="random"))
    assert with_method(control, "mas-2").method == Method()
    assert with_method(control, "one-by-one").method == Method(name="one-by-one")


@pytest.mark.parametrize(("own", "used"), [(0.0, PROXIMAL_MU), (0.5, 0.5)])
def test_fedprox_pulls_as_the_job_says_or_by_a_usual_number(own: float, used: float) -> None:
    job = msgspec.structs.replace(a_job(), optimizer=Optimizer(proximal_mu=own))
    assert with_method(job, "fedprox").optimizer.proximal_mu == used


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mas", "method 'mas' is not known; allowed: one-by-one, all-in-one, gradnorm, fedprox, standalone, mas-N"),
        ("", "method '' is not known"),
        ("one-by-one-2", "method 'one-by-one-2' is not known"),
        ("tag-auto", "method 'tag-auto' is not known"),
        ("mas--2", "method 'mas--2' is not known"),
        ("mas-4", "method mas-4: federation.groups is 4; allowed: 'auto', or 1 to the number of tasks (3)"),
        ("hoa-0", "method hoa-0: federation.groups is 0"),
    ],
)
def test_a_name_that_is_no_method_or_does_not_fit_is_refused(name: str, message: str) -> None:
    with pytest.raises(JobError, match=re.escape(message)):
        with_method(a_job(), name)


@pytest.mark.parametrize(
    ("method", "groups", "name"),
    [
        ("", "", ""), ("mas-2", "", "mas-2"), ("", "2", "mas-2"), ("", "auto", "mas-auto"), ("tag", "3", "tag-3"),
        ("worst", "2", "worst-2"),
    ],
)  # fmt: skip
def test_a_number_of_groups_joins_the_name_of_its_method(method: str, groups: str, name: str) -> None:
    assert named(method, groups) == name


@pytest.mark.parametrize("method", ["all-in-one", "mas-2", "nothing"])
def test_a_number_of_groups_beside_a_method_without_one_is_refused(method: str) -> None:
    with pytest.raises(JobError, match=f"--groups 2 does not go with the method '{method}'; it goes with mas, tag"):
        named(method, "2")


# method: (merged rounds, whether affinity is measured, number of probes)
BEFORE: dict[str, tuple[int | None, bool, int]] = {
    "mas-2": (R0, True, 0), "mas-auto": (R0, True, 0), "random-2": (R0, False, 0), "worst-2": (R0, True, 0),
    "every-2": (R0, True, 0), "scratch-2": (R0, True, 0), "all-in-one": (R, False, 0), "gradnorm": (R, False, 0),
    "fedprox": (R, False, 0), "one-by-one": (None, False, 0), "standalone": (0, False, 0), "tag-2": (R, True, 0),
    "hoa-2": (None, False, 6),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_before_its_groups_a_method_trains_and_measures_only_what_it_decides_by(name: str) -> None:
    job = a_job(name)
    assert (merged_rounds(job), measures_affinity(job), len(probes(job))) == BEFORE[name]


def test_merged_rounds_that_end_by_themselves_are_half_of_all_at_most() -> None:
    assert [merged_rounds(a_job(merge_rounds="auto", rounds=rounds)) for rounds in (1, 2, 9)] == [1, 1, 4]


def test_hoa_probes_every_task_and_every_pair_from_scratch() -> None:
    found = probes(a_job("hoa-2"))
    assert [plan.tasks for plan in found] == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]
    assert {(plan.source, plan.start, plan.end, plan.rounds) for plan in found} == {("scratch", 0, R, R)}
    assert len({plan.name for plan in found}) == 6


# method: (source, start) of every group of SPLIT
GROUPS = {
    "mas-2": ("merged", R0), "random-2": ("merged", R0), "worst-2": ("merged", R0), "every-2": ("merged", R0),
    "scratch-2": ("scratch", 0), "tag-2": ("scratch", 0), "one-by-one": ("scratch", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS)
def test_groups_start_where_their_method_says_and_train_to_the_last_round(name: str) -> None:
    source, start = GROUPS[name]
    plans = plans_of(name)
    assert [plan.tasks for plan in plans] == [("a", "c"), ("b",)]
    assert [plan.name for plan in plans] == ["group-0", "group-1"]
    assert {(plan.source, plan.start, plan.end, plan.rounds, plan.only) for plan in plans} == {
        (source, start, R, R, "")
    }
    assert all(plan.schedule_start == 0 for plan in plans), "one learning-rate schedule over all rounds"


def test_groups_begin_after_the_merged_rounds_that_were_trained() -> None:
    assert [plan.start for plan in plans_of("mas-2", merged_until=2)] == [2, 2]


def test_all_in_one_has_nothing_left_to_train() -> None:
    (plan,) = plans_of("all-in-one", [list(TASKS)], merged_until=R)
    assert (plan.source, plan.start, plan.end) == ("merged", R, R)


def test_a_restarted_schedule_begins_with_the_group() -> None:
    job = msgspec.structs.replace(a_job("mas-2"), optimizer=Optimizer(after_split="restart"))
    for plan in group_plans(job, SPLIT, DEVICES, R0):
        assert (plan.start, plan.end, plan.rounds, plan.schedule_start) == (R0, R, R - R0, R0)


def test_a_group_of_hoa_that_was_a_probe_is_the_probe() -> None:
    plans = plans_of("hoa-2", [["a", "c"], ["a", "b", "c"]])
    assert (plans[0].source, plans[0].start, plans[0].end) == ("probe-4", R, R)
    assert (plans[1].source, plans[1].start, plans[1].end) == ("scratch", 0, R)


def test_groups_that_overlap_train_all_their_tasks() -> None:
    plans = group_plans(a_job("tag-2"), [["a", "b"], ["b", "c"]], DEVICES, R)
    assert [plan.tasks for plan in plans] == [("a", "b"), ("b", "c")]


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 12))
def test_standalone_devices_train_as_often_as_they_would_be_selected(rounds: int, chosen: int, there: int) -> None:
    job = a_job("standalone", rounds=rounds, merge_rounds=1, devices_per_round=chosen)
    devices = [f"pi-{i:02d}" for i in range(there)]
    plans = group_plans(job, [list(TASKS)], devices[::-1], 0)
    assert [plan.only for plan in plans] == devices
    each = {plan.end for plan in plans}
    assert len(each) == 1
    assert each.pop() == max(1, round(rounds * min(chosen, there) / there))
    assert {(plan.source, plan.start, plan.tasks) for plan in plans} == {("scratch", 0, TASKS)}


# of R = 9 with R0 = 3 and three tasks: merged rounds, and those of all other networks together
PLANNED = {
    "mas-2": (3, 12), "mas-3": (3, 18), "mas-auto": (3, 12), "scratch-2": (3, 18), "all-in-one": (9, 0),
    "every-2": (3, 36), "one-by-one": (0, 27), "tag-2": (9, 18), "hoa-2": (0, 18 + 6 * 9), "standalone": (0, 18),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANNED)
def test_the_rounds_to_expect_are_those_of_the_table(name: str) -> None:
    assert planned_rounds(a_job(name)) == PLANNED[name]


def test_groups_pause_to_be_regrouped_only_while_as_many_rounds_remain() -> None:
    job = msgspec.structs.replace(a_job("mas-2"), method=Method(regroup_rounds=3))
    ends = {start: group_plans(job, SPLIT, DEVICES, start)[0] for start in (2, 3, 4)}
    assert {start: (plan.end, plan.last) for start, plan in ends.items()} == {2: (5, R), 3: (6, R), 4: (R, R)}
