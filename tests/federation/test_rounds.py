"""One round: named event sequences, and what holds for every sequence of events."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.rounds import (
    LOST_GRACE_S,
    PLAN_REPEAT_MAX_S,
    PLAN_REPEAT_S,
    Outcome,
    Round,
    RoundSpec,
)

DEADLINE = 100.0
STEP = 1e-3  # less than any time that is told apart here


def a_round(*devices: str, min_reports: int = 1, opened: float = 0.0, goal: int = 0) -> Round:
    spec = RoundSpec("merged-0000", "train", "merged", 0, devices, DEADLINE, min_reports, goal=goal)
    return Round(spec, opened)


def test_a_plan_goes_to_every_selected_device_at_once_and_only_once() -> None:
    machine = a_round("a", "b")
    assert machine.poll(0.0) == ["a", "b"]
    assert machine.poll(0.0) == []


def test_a_lost_plan_is_repeated_with_back_off_until_it_is_acknowledged() -> None:
    machine = a_round("a")
    sent = []
    while (now := machine.next_poll) < DEADLINE - 1:
        assert machine.poll(now - STEP) == []
        sent += [now] * len(machine.poll(now))
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    assert gaps[:3] == [PLAN_REPEAT_S, 2 * PLAN_REPEAT_S, 4 * PLAN_REPEAT_S]
    assert set(gaps[3:]) == {PLAN_REPEAT_MAX_S}
    machine.on_ack("a")
    assert machine.poll(DEADLINE - STEP) == []
    assert machine.next_poll == DEADLINE


def test_the_round_is_complete_as_soon_as_nobody_is_waited_for() -> None:
    machine = a_round("a", "b")
    machine.on_accepted("a")
    assert machine.outcome(1.0) is None
    machine.on_refused("b", "no memory")
    assert machine.outcome(1.0) == "complete"
    assert machine.reasons() == {"b": "no memory"}


def test_a_round_with_a_goal_is_complete_as_soon_as_it_is_reached() -> None:
    machine = a_round("a", "b", "c", min_reports=1, goal=2)
    machine.on_accepted("a")
    assert machine.outcome(1.0) is None, "the minimum is for the deadline"
    machine.on_accepted("c")
    assert machine.outcome(1.0) == "complete"
    assert machine.stage_of("b") == "told", "its device is told that the round is over"


def test_a_round_that_cannot_reach_its_goal_closes_when_nobody_is_waited_for() -> None:
    machine = a_round("a", "b", min_reports=1, goal=2)
    machine.on_accepted("a")
    machine.on_refused("b", "no memory")
    assert machine.outcome(1.0) == "complete"


def lost_and_gone(machine: Round) -> float:
    machine.on_lost("b", 10.0)
    machine.poll(10.0 + LOST_GRACE_S)
    return 10.0 + LOST_GRACE_S


def lost_twice_counts_from_the_first(machine: Round) -> float:
    machine.on_lost("b", 10.0)
    machine.on_lost("b", 10.0 + LOST_GRACE_S / 2)
    machine.poll(10.0 + LOST_GRACE_S)
    return 10.0 + LOST_GRACE_S


def lost_after_its_acknowledgement(machine: Round) -> float:
    machine.on_ack("b")
    return lost_and_gone(machine)


def refused(machine: Round) -> float:
    machine.on_refused("b", "its battery is low")
    return 1.0


CLOSING: dict[str, Callable[[Round], float]] = {
    "lost and gone": lost_and_gone,
    "lost twice": lost_twice_counts_from_the_first,
    "lost while it worked": lost_after_its_acknowledgement,
    "refused": refused,
}


@pytest.mark.parametrize("case", CLOSING)
def test_a_device_that_is_out_does_not_stall_the_round(case: str) -> None:
    machine = a_round("a", "b")
    machine.on_accepted("a")
    now = CLOSING[case](machine)
    assert machine.outcome(now) == "complete"
    assert machine.stages() == {"a": "done", "b": "out"}


def test_a_vanished_device_is_waited_for_until_its_grace_is_over() -> None:
    machine = a_round("a")
    machine.poll(0.0)
    machine.on_lost("a", 10.0)
    assert machine.next_poll == 10.0 + LOST_GRACE_S
    assert machine.poll(10.0 + LOST_GRACE_S - STEP) == [], "a plan for a device that is not there"
    assert machine.stage_of("a") == "told"


def test_a_device_that_comes_back_within_the_grace_is_told_again_and_waited_for() -> None:
    machine = a_round("a")
    machine.poll(0.0)
    machine.on_ack("a")
    machine.on_lost("a", 10.0)
    machine.on_back("a", 12.0)
    assert machine.poll(12.0) == ["a"], "it may have lost the plan with its memory"
    assert machine.poll(12.0 + PLAN_REPEAT_S) == ["a"], "the back-off begins anew"
    machine.poll(10.0 + LOST_GRACE_S)
    assert machine.outcome(10.0 + LOST_GRACE_S) is None


def test_a_device_that_comes_back_after_the_grace_may_still_join() -> None:
    machine = a_round("a", "b")
    lost_and_gone(machine)
    machine.on_back("b", 30.0)
    assert "b" in machine.poll(30.0)
    machine.on_accepted("b")
    assert machine.reports == 1


def test_a_device_that_refused_is_not_asked_again_when_it_comes_back() -> None:
    machine = a_round("a", "b")
    machine.poll(0.0)
    machine.on_refused("b", "its battery is low")
    machine.on_back("b", 1.0)
    assert "b" not in machine.poll(1.0)


def test_a_word_of_a_lost_device_ends_its_grace() -> None:
    machine = a_round("a")
    machine.on_lost("a", 1.0)
    machine.on_ack("a")
    machine.poll(1.0 + LOST_GRACE_S)
    assert machine.stage_of("a") == "working"


OUTCOMES: dict[str, tuple[int, int, Outcome]] = {  # reports, minimum, outcome at the deadline
    "enough reports": (2, 2, "deadline"),
    "below the minimum": (1, 2, "abandoned"),
    "nobody": (0, 1, "abandoned"),
    "a minimum above the number of devices": (2, 9, "abandoned"),
}


@pytest.mark.parametrize("case", OUTCOMES)
def test_at_its_deadline_a_round_closes_with_what_it_has(case: str) -> None:
    reports, minimum, expected = OUTCOMES[case]
    machine = a_round("a", "b", "c", min_reports=minimum, opened=7.0)
    for device in ("a", "b")[:reports]:
        machine.on_accepted(device)
    assert machine.outcome(7.0 + DEADLINE - STEP) is None
    assert machine.outcome(7.0 + DEADLINE) == expected


def test_a_minimum_above_the_number_of_devices_means_all_of_them() -> None:
    machine = a_round("a", "b", min_reports=9)
    machine.on_accepted("a")
    machine.on_accepted("b")
    assert machine.outcome(0.0) == "complete"


def test_a_round_of_nobody_is_abandoned() -> None:
    assert a_round().outcome(0.0) == "abandoned"


def test_a_round_that_every_device_refuses_is_abandoned_at_once() -> None:
    machine = a_round("a", "b")
    machine.on_refused("a", "no engine")
    machine.on_refused("b", "no engine")
    assert machine.outcome(0.0) == "abandoned"


def test_a_restarted_round_counts_what_was_accepted_and_tells_only_the_others() -> None:
    machine = a_round("a", "b", opened=50.0)
    machine.on_accepted("a")
    assert machine.reports == 1
    assert machine.poll(50.0) == ["b"]
    alone = a_round("a")
    alone.on_accepted("a")
    assert alone.outcome(0.0) == "complete"


def lost_and_gone_a(machine: Round) -> None:
    machine.on_lost("a", 1.0)
    machine.poll(1.0 + LOST_GRACE_S)


AFTER_DONE: dict[str, Callable[[Round], object]] = {
    "an acknowledgement": lambda machine: machine.on_ack("a"),
    "a refusal": lambda machine: machine.on_refused("a", "too late"),
    "a last will": lost_and_gone_a,
    "a new birth": lambda machine: machine.on_back("a", 1.0),
    "the report again": lambda machine: machine.on_accepted("a"),
}


@pytest.mark.parametrize("case", AFTER_DONE)
def test_done_is_final(case: str) -> None:
    machine = a_round("a", "b")
    machine.poll(0.0)
    machine.on_accepted("a")
    AFTER_DONE[case](machine)
    assert (machine.stage_of("a"), machine.reports) == ("done", 1)
    assert "a" not in machine.poll(DEADLINE - STEP)


def test_a_device_that_was_not_selected_changes_nothing() -> None:
    machine = a_round("a")
    for event in (machine.on_ack, machine.on_accepted):
        event("x")
    machine.on_refused("x", "")
    machine.on_lost("x", 0.0)
    machine.on_back("x", 0.0)
    assert (machine.stages(), machine.stage_of("x")) == ({"a": "told"}, None)


names = st.sampled_from(["a", "b", "c", "stranger"])
kinds = st.sampled_from(["ack", "refused", "accepted", "lost", "back", "poll"])
histories = st.lists(st.tuples(kinds, names, st.floats(0.0, 20.0)), max_size=40)


def apply(machine: Round, kind: str, device: str, now: float) -> list[str]:
    events: dict[str, Callable[[], object]] = {
        "ack": lambda: machine.on_ack(device),
        "refused": lambda: machine.on_refused(device, "refused"),
        "accepted": lambda: machine.on_accepted(device),
        "lost": lambda: machine.on_lost(device, now),
        "back": lambda: machine.on_back(device, now),
        "poll": lambda: None,
    }
    events[kind]()
    return machine.poll(now)


@given(histories, st.integers(1, 4))
def test_whatever_happens_the_round_ends_by_its_deadline_and_done_stays_done(
    history: list[tuple[str, str, float]], min_reports: int
) -> None:
    machine, now, done = a_round("a", "b", "c", min_reports=min_reports), 0.0, set[str]()
    for kind, device, wait in history:
        now += wait
        told = apply(machine, kind, device, now)
        assert not set(told) & done and set(told) <= {"a", "b", "c"}
        stages = machine.stages()
        assert all(stages[name] == "done" for name in done)
        done = {name for name, stage in stages.items() if stage == "done"}
        assert machine.reports == len(done) <= len(machine.spec.selected)
        if machine.outcome(now) is None:
            assert now < machine.deadline
            assert now < machine.next_poll <= machine.deadline, "the loop would spin, or sleep past its deadline"
    outcome = machine.outcome(max(now, machine.deadline))
    assert outcome is not None
    assert (outcome == "abandoned") == (len(done) < min(min_reports, 3))


@given(histories, st.integers(1, 4), st.integers(1, 3))
def test_whatever_happens_a_round_never_takes_more_reports_than_its_goal(
    history: list[tuple[str, str, float]], min_reports: int, goal: int
) -> None:
    machine, now = a_round("a", "b", "c", min_reports=min(min_reports, goal), goal=goal), 0.0
    for kind, device, wait in history:
        now += wait
        apply(machine, kind, device, now)
        outcome = machine.outcome(now)
        assert machine.reports <= goal
        assert (outcome == "complete") or machine.reports < goal
        if outcome is not None:
            break
