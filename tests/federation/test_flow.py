"""The job as a whole: its life for several schedules, abandoned rounds, and a restart at every step."""

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation import flow, methods
from mas_edge.federation.flow import GroupState, JobState, Local, RoundWork
from mas_edge.federation.methods import GroupPlan, with_method
from mas_edge.job import ENGINES, Data, Federation, Job, Task
from mas_edge.mas.merge import MERGED
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.topics import check_name

TASKS = ["a", "b", "c"]
DEVICES = ["pi-1", "pi-2", "pi-3"]


def a_job(rounds: int, merge_rounds: int, groups: int, method: str = "") -> Job:
    federation = Federation(rounds=rounds, merge_rounds=merge_rounds, groups=groups, devices_per_round=len(DEVICES))
    tasks = [Task(name=name, kind="value") for name in TASKS]
    job = Job(name="j", data=Data(input_shape=[3]), tasks=tasks, federation=federation)
    return with_method(job, method) if method else job


def thing(name: str) -> Manifest:
    return describe(name.encode())


def programs(name: str) -> dict[str, Manifest]:
    return {engine: thing(f"{name} for {engine}") for engine in ENGINES}


def made(plan: GroupPlan) -> GroupState:
    """What the orchestrator's steps make of a plan."""
    return GroupState(
        name=plan.name, tasks=list(plan.tasks), programs=programs(f"p {plan.name}"), weights=thing(f"w {plan.name}"),
        next_round=plan.start, end_round=plan.end, last_round=plan.last, only=plan.only,
        schedule_start=plan.schedule_start, schedule_rounds=plan.rounds,
    )  # fmt: skip


def local(state: JobState, job: Job, step: str) -> JobState:
    if step == "prepare":
        rounds = methods.merged_rounds(job)
        merged = GroupPlan(MERGED, tuple(TASKS), "scratch", 0, rounds or 0, job.federation.rounds)
        return flow.prepared(state, None if rounds is None else made(merged), [made(p) for p in methods.probes(job)])
    if step == "split":
        assert job.federation.groups != "auto"
        names = ["a", "b", "c"] if job.method.name == "one-by-one" else range(job.federation.groups)
        parts = [TASKS[i :: len(names)] for i in range(len(names))]
        until = state.merged.next_round if state.merged else 0
        groups = [made(plan) for plan in methods.group_plans(job, parts, DEVICES, until)]
        source = state.merged.weights.artifact if state.merged and until else ""
        return flow.split(state, [msgspec.structs.replace(group, derive_from=source) for group in groups])
    models = {g.name: ({"onnx": thing(f"m {g.name}")}, thing(f"g {g.name}")) for g in state.groups}
    return flow.exported(state, models)


def advance(state: JobState, job: Job, work: Local | RoundWork, *, fails: bool = False) -> JobState:
    if isinstance(work, Local):
        return local(state, job, work.step)
    if fails:
        return flow.abandoned(state, work)
    return flow.finish(state, work, thing(f"out of {work.round_id}") if work.kind == "train" else None)


Chooser = Callable[[int], int]


def live(
    job: Job, choose: Chooser = lambda _: 0, fails: Callable[[], bool] = lambda: False, *, restart: bool = False
) -> tuple[JobState, list[Local | RoundWork]]:
    """Run the job; with ``restart`` the state goes through its JSON at every step, as after a crash."""
    state, done = JobState(run_id="j-1"), list[Local | RoundWork]()
    while due := flow.due(state):
        if restart:
            state = msgspec.json.decode(msgspec.json.encode(state), type=JobState)
            assert flow.due(state) == due
        work = due[choose(len(due)) % len(due)]
        done.append(work)
        state = advance(state, job, work, fails=fails())
        assert len(done) < 500
    return state, done


SCHEDULES = [(1, 1, 1), (1, 1, 3), (3, 3, 2), (4, 1, 1), (4, 2, 2), (5, 1, 3)]
schedules = st.sampled_from(SCHEDULES)


@pytest.mark.parametrize(("rounds", "merge_rounds", "groups"), SCHEDULES)
def test_a_job_lives_through_every_phase_and_each_network_trains_its_rounds(
    rounds: int, merge_rounds: int, groups: int
) -> None:
    state, done = live(a_job(rounds, merge_rounds, groups))
    assert state.phase == "done"
    assert [work.step for work in done if isinstance(work, Local)] == ["prepare", "split", "export"]
    by_devices = [work for work in done if isinstance(work, RoundWork)]
    trained = Counter(work.group for work in by_devices if work.kind == "train")
    names = [f"group-{i}" for i in range(groups)]
    assert trained == Counter({MERGED: merge_rounds, **dict.fromkeys(names, rounds - merge_rounds)})
    for name in names:
        indices = [work.index for work in by_devices if work.group == name and work.kind == "train"]
        assert indices == list(range(merge_rounds, rounds)), "the count goes on through the split"
    evaluated = [work.group for work in by_devices if work.kind == "evaluate"]
    assert evaluated == [MERGED, MERGED, *names]
    assert [work.group for work in by_devices if work.kind == "deploy"] == names


def test_the_phases_come_in_order() -> None:
    job, state = a_job(3, 1, 2), JobState(run_id="j-1")
    phases = [state.phase]
    while due := flow.due(state):
        state = advance(state, job, due[0])
        phases.append(state.phase)
    assert tuple(dict.fromkeys(phases)) == tuple(p for p in flow.PHASES if not p.startswith(("probe", "regroup")))


PHASES_OF = {
    "mas-2": "initial_evaluation merge merged_evaluation split groups group_evaluation",
    "mas-auto": "initial_evaluation merge merged_evaluation split groups group_evaluation",
    "all-in-one": "initial_evaluation merge merged_evaluation split group_evaluation",
    "standalone": "initial_evaluation split groups group_evaluation",
    "one-by-one": "split groups group_evaluation",
    "tag-2": "initial_evaluation merge merged_evaluation split groups group_evaluation",
    "hoa-2": "probe probe_evaluation split group_evaluation",
    "hoa-1": "probe probe_evaluation split groups group_evaluation",
}
ROUNDS_OF = {  # of 5, 2 of them merged: the merged ones, then those of each other network
    "mas-2": (2, [3, 3]), "all-in-one": (5, [0]), "tag-2": (5, [5, 5]), "scratch-2": (2, [5, 5]),
    "one-by-one": (0, [5, 5, 5]), "standalone": (0, [5, 5, 5]), "hoa-1": (0, [5] * 7),
}  # fmt: skip


@pytest.mark.parametrize("method", [method for method in PHASES_OF if method != "mas-auto"])
def test_each_method_goes_through_its_phases_and_passes_over_the_others(method: str) -> None:
    job, state = a_job(3, 1, 2, method), JobState(run_id="j-1")
    phases: list[str] = []
    while due := flow.due(state):
        state = advance(state, job, due[0])
        phases.append(state.phase)
    assert list(dict.fromkeys(phases)) == [*PHASES_OF[method].split(), "export", "deploy", "done"]


@pytest.mark.parametrize("method", ROUNDS_OF)
def test_each_method_trains_the_rounds_that_its_table_says(method: str) -> None:
    job = a_job(5, 2, 2, method)
    state, done = live(job)
    trained = Counter(work.group for work in done if isinstance(work, RoundWork) and work.kind == "train")
    merged, others = ROUNDS_OF[method]
    assert trained[MERGED] == merged
    assert sorted(trained[group.name] for group in [*state.probes, *state.groups]) == sorted(others)
    assert sum(trained.values()) == sum(methods.planned_rounds(job))


def test_the_groups_of_hoa_that_were_probes_have_nothing_left_to_train() -> None:
    state, done = live(a_job(5, 2, 2, "hoa-2"))
    assert [group.next_round for group in state.groups] == [5, 5]
    assert {work.group for work in done if isinstance(work, RoundWork) and work.kind == "train"} == {
        f"probe-{i}" for i in range(6)
    }


def test_merged_rounds_end_as_soon_as_the_split_is_stable() -> None:
    job = a_job(10, 5, 2)
    state, _ = live_until(job, "merge")
    for stable in (False, True):
        (work,) = flow.due(state)
        assert isinstance(work, RoundWork)
        state = flow.finish(state, work, thing(work.round_id), flow.Found(stable=stable))
    assert state.phase == "merged_evaluation"
    state = advance(advance(state, job, flow.due(state)[0]), job, Local("split"))
    assert [group.next_round for group in state.groups] == [2, 2]


def test_a_network_remembers_its_first_losses_and_its_last_task_weights() -> None:
    state, _ = live_until(a_job(4, 3, 2), "merge")
    for loss, weights in ((2.0, {}), (1.0, {"a": 1.5}), (0.5, {})):
        (work,) = flow.due(state)
        assert isinstance(work, RoundWork)
        found = flow.Found(losses={"a": loss}, task_weights=weights)
        state = flow.finish(state, work, thing(work.round_id), found)
    assert state.merged is not None
    assert (state.merged.first_losses, state.merged.task_weights) == ({"a": 2.0}, {"a": 1.5})


def test_without_rounds_after_the_split_the_groups_are_evaluated_at_once() -> None:
    job = a_job(2, 2, 2)
    state, _ = live_until(job, "split")
    after = advance(state, job, Local("split"))
    assert after.phase == "group_evaluation"
    assert state.merged is not None
    assert [group.derive_from for group in after.groups] == [state.merged.weights.artifact] * 2


def live_until(job: Job, phase: str) -> tuple[JobState, list[Local | RoundWork]]:
    state, done = JobState(run_id="j-1"), list[Local | RoundWork]()
    while state.phase != phase:
        done.append(flow.due(state)[0])
        state = advance(state, job, done[-1])
    return state, done


def test_groups_train_side_by_side_and_begin_with_weights_a_device_can_derive() -> None:
    job = a_job(3, 1, 2)
    state, _ = live_until(job, "groups")
    first, second = [work for work in flow.due(state) if isinstance(work, RoundWork)]
    assert (first.group, second.group) == ("group-0", "group-1")
    assert state.merged is not None
    merged = state.merged.weights
    assert state.group("group-0").derive_from == merged.artifact
    state = advance(state, job, first)
    assert state.group("group-0").derive_from == "", "its weights now came out of a round of its own"
    assert state.group("group-1").derive_from == merged.artifact
    assert state.group("group-0").weights == thing(f"out of {first.round_id}")
    assert [work.index for work in flow.due(state) if isinstance(work, RoundWork)] == [2, 1]


def test_what_is_made_for_a_device_comes_beside_what_the_group_has_and_changes_nothing_else() -> None:
    state, _ = live_until(a_job(2, 1, 2), "deploy")
    before = flow.due(state)
    after = flow.provided(state, flow.Provided("group-1", models={"pte": thing("pte")}))
    assert after.group("group-1").models == {"onnx": thing("m group-1"), "pte": thing("pte")}
    assert after.group("group-0") == state.group("group-0")
    made = flow.Provided("group-0", programs={"torch@4": thing("small")}, memory={"torch": {8: 9, 4: 5}})
    after = msgspec.json.decode(msgspec.json.encode(flow.provided(after, made)), type=JobState)
    assert after.group("group-0").programs == {**programs("p group-0"), "torch@4": thing("small")}
    assert after.group("group-0").memory == {"torch": {8: 9, 4: 5}}
    assert flow.due(after) == before


def test_an_abandoned_round_is_done_again_under_a_name_of_its_own_and_nothing_else_changes() -> None:
    job = a_job(2, 1, 2)
    state, _ = live_until(job, "merge")
    names = []
    for _ in range(3):
        (work,) = flow.due(state)
        assert isinstance(work, RoundWork)
        names.append(work.round_id)
        again = flow.abandoned(state, work)
        assert msgspec.structs.replace(again, attempts={}) == msgspec.structs.replace(state, attempts={})
        state = again
    assert names == ["merged-0000", "merged-0000.1", "merged-0000.2"]


def test_the_group_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(StopIteration):
        JobState(run_id="j").group("group-9")


@given(schedules, st.data())
def test_in_every_order_and_with_any_rounds_abandoned_no_round_name_comes_twice(
    schedule: tuple[int, int, int], data: st.DataObject
) -> None:
    failures = data.draw(st.lists(st.booleans(), max_size=12))
    state, done = live(
        a_job(*schedule), lambda n: data.draw(st.integers(0, n - 1)), lambda: failures.pop() if failures else False
    )
    names = [work.round_id for work in done if isinstance(work, RoundWork)]
    assert len(set(names)) == len(names)
    assert all(check_name(name, "round") for name in names)
    assert state.phase == "done"


@given(schedules, st.lists(st.booleans(), max_size=12), st.lists(st.integers(0, 2), max_size=40))
def test_a_job_that_is_killed_after_every_step_does_exactly_the_same(
    schedule: tuple[int, int, int], failures: list[bool], order: list[int]
) -> None:
    def run(*, restart: bool) -> tuple[JobState, list[Local | RoundWork]]:
        left, choices = list(failures), list(order)
        return live(
            a_job(*schedule),
            lambda _: choices.pop() if choices else 0,
            lambda: left.pop() if left else False,
            restart=restart,
        )

    assert run(restart=True) == run(restart=False)


def test_a_job_that_regroups_goes_back_to_the_merged_network_until_its_last_round() -> None:
    job = a_job(11, 2, 2)
    job = msgspec.structs.replace(job, method=msgspec.structs.replace(job.method, regroup_rounds=3))
    state, phases = JobState(run_id="j-1"), list[str]()
    while (due := flow.due(state))[0] != Local("export"):
        if due[0] == Local("regroup"):
            now = state.groups[0].next_round
            assert state.merged is not None
            merged = msgspec.structs.replace(state.merged, weights=thing("soup"), next_round=now, end_round=now + 1)
            state = flow.regrouped(state, merged)
        else:
            state = advance(state, job, due[0])
        phases.append(state.phase)
    short = [phase for phase, before in zip(phases, ["", *phases], strict=False) if phase != before]
    assert short == [
        "initial_evaluation", "merge", "merged_evaluation", "split", "groups", "regroup", "merge", "split", "groups",
        "group_evaluation", "export",
    ]  # fmt: skip
    assert [group.next_round for group in state.groups] == [11, 11], (
        "2 merged, 3, 1 merged, and 5: 3 more would not fit"
    )
