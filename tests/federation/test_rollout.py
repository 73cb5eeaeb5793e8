"""Staged deployment: who is drawn, when a stage is over, when it halts, and what an operator may do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.federation.rollout import (
    ASK_AGAIN_S,
    Order,
    Rollout,
    RolloutSpec,
    RolloutState,
    Standing,
    Verb,
    check_spec,
    cut_of,
    place_of,
)
from mas_edge.federation.rounds import PLAN_REPEAT_S
from mas_edge.protocol.errors import ServerError

GROUPS = ("group-0", "group-1")
NAMES = [f"pi-{number}" for number in range(100)]
SOAK, ANSWER = 60.0, 600.0
UNHURRIED = settings(deadline=None)  # this machine has other work


class Fleet:
    """Devices and a rollout; ``wrong`` devices find every new model unhealthy, ``mute`` ones answer nothing."""

    def __init__(self, names: Iterable[str] = NAMES, shares: Sequence[float] = (0.01, 0.1, 1.0), **spec: float) -> None:
        fields = {"soak_s": SOAK, "answer_s": ANSWER, **spec}
        self.now = 0.0
        self.there = dict.fromkeys(names, GROUPS)
        self.wrong: set[str] = set()
        self.mute: set[str] = set()
        self.told: list[Order] = []
        self.machine = Rollout(RolloutState(number=1, spec=msgspec.convert({"shares": shares, **fields}, RolloutSpec)))

    @property
    def mode(self) -> str:
        return self.machine.state.mode

    def with_new(self) -> set[str]:
        """The devices on which every group's new model is healthy."""
        return {
            name for name, groups in self.machine.standings.items() if {s.stage for s in groups.values()} == {"healthy"}
        }

    def turn(self, wait: float = 1.0) -> list[Order]:
        """Let time go by, tell who is due, and let those answer who do."""
        self.now += wait
        orders = self.machine.poll(self.there, self.now)
        self.told += orders
        for device, group, undo in orders:
            if device not in self.mute:
                self.answer(device, group, undo=undo)
        return orders

    def answer(self, device: str, group: str, *, undo: bool = False) -> None:
        bad = device in self.wrong and not undo
        stage = "returned" if undo else "failed" if bad else "healthy"
        standing = Standing(stage, "its outputs differ" if bad else "", "old" if bad or undo else "new")  # type: ignore[arg-type]
        self.machine.on_report(device, group, standing, self.now)

    def until_it_rests(self, most: int = 2000) -> None:
        """Turn until nothing changes any more for longer than any wait of it."""
        for _ in range(most):
            before = self.machine.state
            self.turn(30.0)
            if self.machine.state == before and self.mode not in ("running", "rolling_back"):
                return

    def restart(self) -> None:
        """The orchestrator is killed, and another goes on with what is stored."""
        state = msgspec.json.decode(msgspec.json.encode(self.machine.state), type=RolloutState)
        blob = msgspec.json.encode(self.machine.standings)
        self.machine = Rollout(state, msgspec.json.decode(blob, type=dict[str, dict[str, Standing]]))


# ---------------------------------------------------------------------- the draw


@UNHURRIED
@given(st.integers(), st.text(max_size=20))
def test_a_place_is_between_0_and_1_and_always_the_same(seed: int, name: str) -> None:
    assert 0 <= place_of(seed, name) < 1
    assert place_of(seed, name) == place_of(seed, name)


@UNHURRIED
@given(st.integers(), st.sets(st.text(max_size=8), min_size=1, max_size=50), st.floats(0.001, 1))
def test_a_stage_holds_its_share_of_the_devices_and_at_least_one(seed: int, names: set[str], share: float) -> None:
    cut = cut_of(seed, share, names)
    drawn = sum(place_of(seed, name) <= cut for name in names)
    assert drawn >= 1
    assert share * len(names) - 1e-6 <= drawn < share * len(names) + 1


@UNHURRIED
@given(st.integers(), st.sets(st.text(max_size=8), min_size=1, max_size=50), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_greater_stage_holds_the_smaller_one(seed: int, names: set[str], one: float, other: float) -> None:
    small, great = sorted((one, other))
    assert cut_of(seed, small, names) <= cut_of(seed, great, names)


def test_other_seeds_begin_with_other_devices() -> None:
    first = {min(NAMES, key=lambda name: place_of(seed, name)) for seed in range(20)}
    assert len(first) > 10


@pytest.mark.parametrize("shares", [[0.1, 0.1], [0.5, 0.1], [1.0, 1.0]])
def test_stages_that_do_not_grow_are_refused(shares: list[float]) -> None:
    with pytest.raises(ServerError, match="must grow"):
        check_spec(RolloutSpec(shares=shares))


# ---------------------------------------------------------------------- the way to everybody


def test_a_good_rollout_goes_stage_by_stage_to_everybody() -> None:
    fleet, sizes = Fleet(), []
    for _ in range(3):
        fleet.turn()
        sizes.append(len(fleet.with_new()))
        fleet.turn(SOAK)
    assert sizes == [1, 10, 100]
    assert fleet.mode == "complete"
    assert sorted(fleet.told) == sorted(Order(name, group, undo=False) for name in NAMES for group in GROUPS)


def test_a_stage_waits_for_the_whole_soak_time() -> None:
    fleet = Fleet()
    fleet.turn()
    fleet.turn(SOAK - 2)
    assert (fleet.machine.state.stage, len(fleet.with_new())) == (0, 1)
    fleet.turn(2)
    assert fleet.machine.state.stage == 1


def test_a_device_whose_model_is_gone_during_the_soak_has_failed() -> None:
    fleet = Fleet()
    fleet.turn()
    [first] = fleet.with_new()
    fleet.machine.on_models(first, {"group-0": "new", "group-1": "old"}, fleet.now)
    assert fleet.mode == "halted"
    assert f"1 of 1 devices failed at stage 1, such as {first}: it was healthy, and is not in use" in (
        fleet.machine.state.reason
    )


def test_a_device_that_says_what_it_should_say_changes_nothing() -> None:
    fleet = Fleet()
    fleet.turn()
    [first] = fleet.with_new()
    fleet.machine.on_models(first, {"group-0": "new", "group-1": "new", "group-7": "another job's"}, fleet.now)
    assert fleet.mode == "running"


def test_a_bad_model_halts_at_the_first_stage_and_nobody_else_is_told() -> None:
    fleet = Fleet()
    fleet.wrong = set(NAMES)
    fleet.until_it_rests()
    assert fleet.mode == "halted"
    assert len({order.device for order in fleet.told}) == 1
    assert "its outputs differ" in fleet.machine.state.reason


@pytest.mark.parametrize(("wrong", "mode"), [(5, "complete"), (6, "halted")])
def test_more_than_the_halt_share_is_what_halts(wrong: int, mode: str) -> None:
    fleet = Fleet(shares=(1.0,), halt_on=0.05)
    fleet.wrong = set(NAMES[:wrong])
    fleet.until_it_rests()
    assert fleet.mode == mode
    assert fleet.with_new() == set(NAMES) - fleet.wrong


def test_a_device_that_never_answers_has_failed_after_the_time_for_it() -> None:
    fleet = Fleet(["pi-1"], (1.0,))
    fleet.mute = {"pi-1"}
    fleet.turn()
    fleet.turn(ANSWER - 1)
    assert fleet.mode == "running"
    fleet.turn(1)
    assert fleet.mode == "halted"
    assert "it did not answer" in fleet.machine.state.reason


def test_a_plan_is_repeated_until_it_is_answered() -> None:
    fleet = Fleet(["pi-1"], (1.0,))
    fleet.mute = {"pi-1"}
    assert len(fleet.turn()) == 2
    assert fleet.turn(PLAN_REPEAT_S / 2) == []
    assert len(fleet.turn(PLAN_REPEAT_S)) == 2
    fleet.mute.clear()
    fleet.turn(60.0)
    assert fleet.turn(60.0) == []


def test_a_device_that_cannot_now_is_asked_again_later() -> None:
    fleet = Fleet(["pi-1"], (1.0,))
    fleet.mute = {"pi-1"}
    fleet.turn()
    for group in GROUPS:
        fleet.machine.on_refused("pi-1", group, "its owner's rules: on battery", fleet.now)
    assert fleet.turn(ASK_AGAIN_S - 1) == []
    fleet.mute.clear()
    fleet.turn(1)
    assert fleet.with_new() == {"pi-1"}


def test_who_comes_back_later_gets_the_stage_it_belongs_to() -> None:
    fleet = Fleet()
    first, last = (pick(NAMES, key=lambda name: place_of(0, name)) for pick in (min, max))
    away = {name: fleet.there.pop(name) for name in (first, last)}
    fleet.turn()
    fleet.there |= away
    fleet.turn()
    assert first in fleet.with_new()
    assert last not in fleet.with_new()
    fleet.until_it_rests()
    assert last in fleet.with_new()


def test_who_joins_after_the_end_gets_it_too() -> None:
    fleet = Fleet()
    fleet.until_it_rests()
    fleet.there["new"] = GROUPS
    fleet.turn()
    assert (fleet.mode, "new" in fleet.with_new()) == ("complete", True)


def test_nothing_begins_while_no_device_is_there() -> None:
    fleet = Fleet([])
    fleet.turn(1e6)
    assert (fleet.mode, fleet.machine.state.opened) == ("running", False)


# ---------------------------------------------------------------------- the operator


def test_a_pause_tells_nobody_and_advances_nothing_until_it_ends() -> None:
    fleet = Fleet()
    fleet.turn()
    fleet.machine.obey("pause")
    fleet.there["late"] = GROUPS
    for _ in range(10):
        assert fleet.turn(SOAK) == []
    assert fleet.machine.state.stage == 0
    fleet.machine.obey("resume")
    fleet.until_it_rests()
    assert fleet.mode == "complete"


def test_resuming_a_halted_rollout_excuses_those_who_failed() -> None:
    fleet = Fleet(shares=(0.1, 1.0))
    first = sorted(NAMES, key=lambda name: place_of(0, name))[:3]
    fleet.wrong = set(first)
    fleet.until_it_rests()
    assert fleet.mode == "halted"
    fleet.machine.obey("resume")
    assert fleet.machine.state.reason == ""
    fleet.until_it_rests()
    assert fleet.mode == "complete"
    assert fleet.with_new() == set(NAMES) - set(first)


@pytest.mark.parametrize("gone", ["mute", "away"])
def test_resuming_a_halted_rollout_goes_on_without_those_who_are_silent(gone: str) -> None:
    fleet = Fleet(["pi-1", "pi-2", "pi-3"], (1.0,))
    fleet.mute = {"pi-2"}
    fleet.turn()
    if gone == "away":
        del fleet.there["pi-2"]
    fleet.turn(ANSWER)
    assert fleet.mode == "halted"
    fleet.machine.obey("resume")
    fleet.until_it_rests(20)
    assert (fleet.mode, fleet.with_new()) == ("complete", {"pi-1", "pi-3"})
    fleet.there["pi-2"] = GROUPS
    fleet.mute.clear()
    fleet.machine.obey("rollback")
    fleet.until_it_rests()
    assert {order.device for order in fleet.told if order.undo} == {"pi-1", "pi-2", "pi-3"}, (
        "it may have it all the same"
    )
    assert fleet.mode == "rolled_back"


@pytest.mark.parametrize("interrupted", ["restart", "pause"])
def test_a_device_that_has_left_for_ever_is_not_waited_for_for_ever(interrupted: str) -> None:
    fleet = Fleet(["pi-1", "pi-2"], (1.0,))
    fleet.mute = {"pi-2"}
    fleet.turn()
    del fleet.there["pi-2"]
    if interrupted == "restart":
        fleet.restart()
    else:
        fleet.machine.obey("pause")
        fleet.machine.obey("resume")
    fleet.turn()
    fleet.turn(ANSWER - 1)
    assert fleet.mode == "running"
    fleet.turn(1)
    assert (fleet.mode, "pi-2: it did not answer" in fleet.machine.state.reason) == ("halted", True)


def test_when_all_of_a_stage_are_excused_the_next_one_begins() -> None:
    fleet = Fleet()
    fleet.wrong = {min(NAMES, key=lambda name: place_of(0, name))}
    fleet.until_it_rests()
    fleet.machine.obey("resume")
    fleet.until_it_rests()
    assert (fleet.mode, fleet.with_new()) == ("complete", set(NAMES) - fleet.wrong)


def test_without_a_soak_every_stage_is_still_told_before_the_next() -> None:
    fleet = Fleet(soak_s=0.0)
    sizes = [len(fleet.with_new()) for _ in range(4) if fleet.turn() is not None]
    assert sizes == [1, 10, 100, 100]


def test_an_aborted_rollout_leaves_everybody_as_they_are() -> None:
    fleet = Fleet()
    fleet.turn()
    fleet.machine.obey("abort")
    fleet.until_it_rests()
    assert (fleet.mode, len(fleet.with_new())) == ("aborted", 1)


@pytest.mark.parametrize("begun", ["running", "complete", "aborted", "halted", "paused"])
def test_a_rollback_returns_everybody_who_has_it_also_who_is_away_now(begun: str) -> None:
    fleet = Fleet(shares=(0.1, 1.0), halt_on=0.5)
    fleet.turn()
    if begun == "complete":
        fleet.until_it_rests()
    elif begun == "halted":
        for name in sorted(fleet.with_new())[:6]:  # of ten
            fleet.machine.on_models(name, {}, fleet.now)
    elif begun != "running":
        fleet.machine.obey("pause" if begun == "paused" else "abort")
    assert fleet.mode == begun
    had = fleet.with_new()
    away = dict([fleet.there.popitem()])
    fleet.machine.obey("rollback")
    fleet.until_it_rests(20)
    fleet.there |= away
    fleet.until_it_rests()
    assert (fleet.mode, fleet.with_new()) == ("rolled_back", set())
    assert {order.device for order in fleet.told if order.undo} == had


@pytest.mark.parametrize(("bound", "told"), [({"max_regression": 0.1}, {"pi-1", "pi-2"}), ({}, {"pi-1"})])
def test_a_rollback_reaches_who_may_have_taken_the_model_of_all_tasks_instead(
    bound: dict[str, float], told: set[str]
) -> None:
    fleet = Fleet(["pi-1", "pi-2"], (1.0,), halt_on=0.5, **bound)
    fleet.wrong = {"pi-2"}
    fleet.turn()
    fleet.machine.obey("rollback")
    fleet.until_it_rests()
    assert (fleet.mode, {order.device for order in fleet.told if order.undo}) == ("rolled_back", told)


def test_a_report_that_was_on_its_way_when_it_was_rolled_back_does_not_count() -> None:
    fleet = Fleet(["pi-1"], (1.0,))
    fleet.mute = {"pi-1"}
    fleet.turn()
    fleet.machine.obey("rollback")
    fleet.answer("pi-1", "group-0")
    assert fleet.with_new() == set()
    fleet.mute.clear()
    fleet.until_it_rests()
    assert fleet.mode == "rolled_back"


@pytest.mark.parametrize(
    ("verbs", "words"),
    [
        (["resume"], "rollout 1 is running: it cannot resume"),
        (["pause", "pause"], "rollout 1 is paused: it cannot pause"),
        (["abort", "resume"], "rollout 1 is aborted: it cannot resume"),
        (["rollback", "pause"], "rollout 1 is rolling back: it cannot pause"),
        (["rollback", "rollback"], "rollout 1 is rolling back: it cannot rollback"),
    ],
)
def test_a_word_that_makes_no_sense_is_refused_with_the_reason(verbs: list[Verb], words: str) -> None:
    machine = Fleet().machine
    for verb in verbs[:-1]:
        machine.obey(verb)
    with pytest.raises(ServerError, match=words):
        machine.obey(verbs[-1])


# ---------------------------------------------------------------------- killed at any moment


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 40)), st.sets(st.sampled_from(NAMES[:20]), max_size=3))
def test_however_often_the_orchestrator_is_killed_it_ends_the_same_way(kills: set[int], wrong: set[str]) -> None:
    def ended(kills: set[int]) -> tuple[str, set[str]]:
        fleet = Fleet(NAMES[:20], (0.1, 1.0), halt_on=0.1)
        fleet.wrong = set(wrong)
        for turn in range(60):
            fleet.turn(SOAK / 2)
            if turn in kills:
                fleet.restart()
        return fleet.mode, fleet.with_new()

    assert ended(kills) == ended(set())


def test_what_has_changed_is_told_once() -> None:
    fleet = Fleet(["pi-1", "pi-2"], (1.0,))
    fleet.turn()
    assert fleet.machine.take_changed() == fleet.machine.standings
    assert fleet.machine.take_changed() == {}
