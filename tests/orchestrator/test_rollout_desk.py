"""Staged deployment by an orchestrator without a broker: orders, plans, reports, and what a kill leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import msgspec
import pytest
from msgspec.structs import replace

from device_runtime.memory import in_units
from mas_edge.cli.rollout import lines_of
from mas_edge.federation.flow import JobState, Phase, RoundWork
from mas_edge.federation.rollout import RolloutSpec, place_of
from mas_edge.federation.rounds import PLAN_REPEAT_S
from mas_edge.orchestrator import view
from mas_edge.orchestrator.result import rolled_out_of
from mas_edge.orchestrator.rollout_desk import LOOK_S, SETTLE_S, RolloutDesk
from mas_edge.orchestrator.rollout_store import FILE, RolloutOrder, RolloutStore, Wish, remembered
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Ack, AllInOne, Plan, Refusal, Report
from tests.orchestrator.small_desk import SmallDesk, programs_in
from tests.orchestrator.small_run import group_state, offer, thing

NAMES = sorted(["pi-1", "pi-2", "pi-3", "pi-4"], key=lambda name: place_of(0, name))
MODEL = thing("model").artifact
SPEC = RolloutSpec(shares=[0.25, 1.0], soak_s=10.0)


class Deploying(SmallDesk):
    """A job whose models are there, ``phase``: or are not yet; and the operator of its rollouts."""

    def __init__(self, directory: Path, phase: Phase = "deploy", **merged: Any) -> None:
        self.directory = directory
        super().__init__(directory, group=merged)
        group = group_state(
            "group-0", programs=programs_in(self.artifacts), models={"onnx": thing("model")}, golden=thing("golden")
        )
        self.set(replace(self.desk.state, phase=phase, groups=[group]))
        self.operator = RolloutStore(directory)

    def _begin(self) -> None:
        super()._begin()
        self.rollouts = self.desk.rollouts = RolloutDesk(self.desk, self.store, self.outbox, self.directory)

    def close(self) -> None:
        self.rollouts.close()
        super().close()

    def set(self, state: JobState) -> None:
        self.store.save(state)
        self.desk.state = state

    def order(self, wish: Wish) -> str | None:
        """Place an order; returns the orchestrator's word on it."""
        number = self.operator.place(wish)
        self.look()
        return self.operator.answer(number)

    def look(self, wait: float = LOOK_S) -> None:
        self.now += wait
        self.rollouts.poll(self.reception.registry, self.now)

    def come(self, *names: str, **changes: Any) -> None:
        self.arrive(*names, engines=["torch", "onnxruntime"], **changes)

    def plans(self, name: str) -> list[Plan]:
        return self.said_to(name, Plan)

    def tried(self, name: str, *, healthy: bool = True, reason: str = "", round_id: str = "rollout-1-group-0") -> None:
        report = Report(samples={}, losses={}, healthy=healthy, health_reason=reason, model=MODEL if healthy else "")
        self._say(offer(name, round_id, report=report))

    @property
    def mode(self) -> str:
        assert self.rollouts.machine is not None
        return self.rollouts.machine.state.mode


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Deploying]:
    small = Deploying(tmp_path)
    small.come(*NAMES)
    yield small
    small.operator.close()
    small.close()


def test_a_stage_after_the_other_is_told_and_at_the_end_the_job_is_done(small: Deploying) -> None:
    assert small.order(Wish(spec=SPEC)) == ""
    assert [name for name in NAMES if small.plans(name)] == NAMES[:1]
    [plan] = small.plans(NAMES[0])
    assert (plan.round_id, plan.kind, plan.program, plan.format) == (
        "rollout-1-group-0",
        "deploy",
        thing("model"),
        "onnx",
    )
    assert plan.health is not None
    assert (plan.health.golden, plan.health.max_latency_s) == (thing("golden"), SPEC.max_latency_s)
    assert small.desk.distribution.manifest_of(MODEL) == thing("model")
    small.tried(NAMES[0])
    assert small.verdicts(NAMES[0]) == ["accepted"]
    small.look()
    small.look(SPEC.soak_s)
    small.look()
    assert [name for name in NAMES if small.plans(name)] == NAMES
    for name in NAMES[1:]:
        small.tried(name)
    small.look()
    small.look(SPEC.soak_s)
    assert (small.mode, small.desk.state.phase, small.rollouts.is_busy) == ("complete", "done", False)
    events = [event.text for event in view.read(small.directory, last_events=100).events]
    assert [text for text in events if text.startswith("rollout 1: ")] == [
        "rollout 1: running, stage 1 of 2, 0.25 of the devices",
        "rollout 1: running, stage 2 of 2, 1 of the devices",
        "rollout 1: complete",
    ]


def test_the_bytes_of_plans_and_chunks_belong_to_the_rollout_also_after_a_restart(small: Deploying) -> None:
    def counted() -> int:
        found = small.operator.latest()
        assert found is not None
        assert f"sent     {in_units(found.state.sent_bytes)}" in lines_of(found)
        return found.state.sent_bytes

    small.order(Wish(spec=SPEC))
    small.look()
    plans = counted()
    assert plans == len(small.plans(NAMES[0]))  # this outbox says that each message takes one byte
    small.rollouts.on_shipped("rollout-1-group-0", 5000)
    small.rollouts.on_shipped("merged-0001", 70_000)  # of a round, where it counts
    small.look()
    assert counted() == plans + 5000
    small.restart()
    small.look()
    assert counted() >= plans + 5000


def test_without_a_rollout_the_job_deploys_to_all_at_once_and_with_one_it_does_not(small: Deploying) -> None:
    works = [RoundWork(f"{kind}-0", kind, "group-0", 0, kind) for kind in ("deploy", "train")]
    assert small.rollouts.due(works) == works
    small.order(Wish(spec=SPEC))
    assert [work.kind for work in small.rollouts.due(works)] == ["train"]


def test_a_bound_of_the_rollout_is_one_of_its_health_checks(small: Deploying) -> None:
    small.order(Wish(spec=replace(SPEC, max_latency_s=0.5, max_slowdown=2.0, max_memory_bytes=7)))
    health = small.plans(NAMES[0])[0].health
    assert health is not None
    assert (health.max_latency_s, health.max_slowdown, health.max_memory_bytes) == (0.5, 2.0, 7)
    assert health.all_in_one is None


def test_a_rollout_that_was_asked_for_early_waits_for_the_models(tmp_path: Path) -> None:
    small = Deploying(tmp_path, "groups")
    small.come(*NAMES)
    assert small.order(Wish(spec=SPEC)) == ""
    small.look(100.0)
    assert not any(small.plans(name) for name in NAMES)
    assert small.rollouts.is_busy
    small.set(replace(small.desk.state, phase="deploy"))
    small.look()
    assert small.plans(NAMES[0])
    small.close()


@pytest.mark.parametrize("all_back", [True, False])
def test_an_orchestrator_that_was_killed_counts_a_stage_when_its_devices_are_back(
    tmp_path: Path, all_back: bool
) -> None:
    small = Deploying(tmp_path, "groups")
    small.come(*NAMES)
    small.order(Wish(spec=SPEC))
    small.reception.poll(small.now)  # writes down who is there
    small.restart()
    small.set(replace(small.desk.state, phase="deploy"))
    small.come(NAMES[2])
    small.look(LOOK_S)
    small.look(SETTLE_S / 2)
    assert not any(small.plans(name) for name in NAMES)
    if all_back:
        small.come(*NAMES)
    small.look(0.0 if all_back else SETTLE_S)
    small.look(LOOK_S)
    assert [name for name in NAMES if small.plans(name)] == [NAMES[0 if all_back else 2]]
    small.close()


def test_an_unhealthy_model_halts_and_its_device_is_answered(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.tried(NAMES[0], healthy=False, reason="outputs differ")
    small.look()
    assert small.verdicts(NAMES[0]) == ["accepted"]
    assert small.mode == "halted"
    assert small.rollouts.is_busy  # the orchestrator stays for the operator's word
    found = remembered(small.directory)
    assert found is not None
    assert "such as" in found.state.reason
    assert found.standings[NAMES[0]]["group-0"].reason == "outputs differ"


def test_an_operator_can_go_back_and_the_plan_says_so(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.tried(NAMES[0])
    assert small.order(Wish(verb="rollback")) == ""
    undo = small.plans(NAMES[0])[-1]
    assert (undo.round_id, undo.undo, undo.health, undo.program) == ("rollback-1-group-0", True, None, thing("model"))
    small.tried(NAMES[0], round_id="rollback-1-group-0")
    small.look()
    assert (small.mode, small.desk.state.phase) == ("rolled_back", "done")


@pytest.mark.parametrize(
    ("first", "wish", "words"),
    [
        ([], Wish(verb="pause"), "there is no rollout of this run"),
        ([Wish(spec=SPEC)], Wish(spec=SPEC), "rollout 1 is running: abort it, or roll it back, before another"),
        ([Wish(spec=SPEC), Wish(verb="pause")], Wish(verb="pause"), "rollout 1 is paused: it cannot pause"),
        ([], Wish(spec=replace(SPEC, shares=[0.5, 0.1])), "must grow"),
        ([], Wish(), "there is no rollout"),
    ],
)
def test_an_order_that_makes_no_sense_is_answered_with_the_reason(
    small: Deploying, first: list[Wish], wish: Wish, words: str
) -> None:
    for each in first:
        assert small.order(each) == ""
    answer = small.order(wish)
    assert answer is not None
    assert words in answer


def test_a_later_rollout_has_plans_of_its_own(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.order(Wish(verb="abort"))
    assert small.desk.state.phase == "done"
    assert small.order(Wish(spec=SPEC)) == ""
    assert small.plans(NAMES[0])[-1].round_id == "rollout-2-group-0"
    small.tried(NAMES[0], round_id="rollout-1-group-0")
    assert small.verdicts(NAMES[0]) == ["stale_round"]  # nobody waits for it any more


def test_an_orchestrator_that_is_killed_goes_on_where_it_stood(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.tried(NAMES[0])
    small.look()
    small.restart()
    small.come(*NAMES, boot_id="later")
    small.look()
    assert len(small.plans(NAMES[0])) == 1  # it is healthy: there is nothing to tell it
    small.look(SPEC.soak_s)
    small.look()
    assert [name for name in NAMES if small.plans(name)] == NAMES


def test_an_order_that_was_placed_while_nobody_served_is_taken_at_the_start(small: Deploying) -> None:
    number = small.operator.place(Wish(spec=SPEC))
    assert small.operator.answer(number) is None
    small.restart()
    assert small.rollouts.is_busy
    assert small.operator.answer(number) == ""


def test_the_event_log_says_who_has_ordered_what(small: Deploying) -> None:
    small.order(Wish(spec=SPEC, who="anna"))
    small.order(Wish(verb="pause", who="command line of ben"))
    said = [event.text for event in view.read(small.directory, last_events=100).events if "(" in event.text]
    assert said == [
        "rollout 1: running, stage 1 of 2, 0.25 of the devices (anna)",
        "rollout 1: paused (command line of ben)",
    ]


def test_orders_that_an_earlier_release_wrote_are_read_as_they_are(small: Deploying) -> None:
    number = small.operator.place(Wish(spec=SPEC))
    with closing(sqlite3.connect(small.directory / FILE)) as file, file:  # that one did not write down who
        file.execute("UPDATE orders SET wish = ?", (msgspec.json.encode({"verb": None, "spec": SPEC}),))
    small.look()
    assert small.operator.order(number) == RolloutOrder(number=number, placed=ANY, who="", verb="begin", answer="")
    assert small.mode == "running"


def test_a_device_that_has_another_model_than_it_said_halts_the_stage(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.tried(NAMES[0])
    small.come(NAMES[0], boot_id="after a crash", models={"group-0": "ab" * 32})
    small.look()
    assert small.mode == "halted"


def test_a_device_that_was_killed_while_it_tried_a_model_is_told_again_at_once(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.ack(NAMES[0], "rollout-1-group-0")
    small.look(PLAN_REPEAT_S)
    assert len(small.plans(NAMES[0])) == 1  # it is at work, and need not be told so often
    small.come(NAMES[0], boot_id="after a crash", models={})
    small.look()
    assert len(small.plans(NAMES[0])) == 2


def test_a_device_that_does_not_say_which_models_it_has_is_believed(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    small.tried(NAMES[0])
    small.come(NAMES[0], boot_id="after a crash", models=None)
    small.look()
    assert small.mode == "running"


def test_a_report_with_impossible_numbers_is_invalid(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    report = Report(samples={}, losses={}, healthy=True, latency_s=-1.0)
    small._say(offer(NAMES[0], "rollout-1-group-0", report=report))
    assert small.verdicts(NAMES[0]) == ["invalid"]


def test_a_device_that_works_or_cannot_now_is_not_told_at_every_look(small: Deploying) -> None:
    small.order(Wish(spec=SPEC))
    sender: dict[str, Any] = {
        "sender": NAMES[0],
        "boot_id": "b",
        "seq": 3,
        "job": "j-1",
        "round_id": "rollout-1-group-0",
    }
    small._say(Ack(**sender))
    small.look(30.0)
    assert len(small.plans(NAMES[0])) == 1
    small.look(40.0)
    assert len(small.plans(NAMES[0])) == 2
    small._say(Refusal(**sender, reason="its owner's rules: on battery"))
    small.look(30.0)
    assert len(small.plans(NAMES[0])) == 2
    assert small.mode == "running"


def test_with_a_bound_on_the_regression_the_model_of_all_tasks_goes_along(tmp_path: Path) -> None:
    small = Deploying(tmp_path)
    small.come(*NAMES)
    small.order(Wish(spec=replace(SPEC, max_regression=0.1)))
    assert [work.group for work in small.rollouts.works()] == ["group-0", "merged"]
    assert not any(small.plans(name) for name in NAMES)  # it has to be made first
    merged = small.desk.state.merged
    assert merged is not None
    there = replace(merged, models={"onnx": thing("whole")}, golden=thing("whole golden"))
    small.set(replace(small.desk.state, merged=there))
    small.look()
    health = small.plans(NAMES[0])[0].health
    assert health is not None
    assert health.all_in_one == AllInOne(
        model=thing("whole"), golden=thing("whole golden"), tasks=["a", "b"], max_regression=0.1
    )
    assert small.desk.distribution.manifest_of(thing("whole").artifact) == thing("whole")
    small.tried(NAMES[0], healthy=False, reason="its error is 20% above that of the model of all tasks")
    small.order(Wish(verb="rollback"))
    undo = small.plans(NAMES[0])[-1]
    assert (undo.undo, undo.health and undo.health.all_in_one) == (True, health.all_in_one), "it is left as well"
    small.close()


def test_a_damaged_record_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "rollouts.db").write_bytes(b"no database, but long enough to be looked at" * 100)
    with pytest.raises(ServerError, match=r"rollouts\.db cannot be used"):
        RolloutStore(tmp_path)


def test_the_result_counts_who_is_healthy_of_those_that_were_told(small: Deploying) -> None:
    assert rolled_out_of(remembered(small.directory)) is None
    small.order(Wish(spec=replace(SPEC, shares=[1.0], halt_on=0.5)))
    small.tried(NAMES[0], healthy=False, reason="outputs differ")
    for name in NAMES[1:3]:
        small.tried(name)
    small.look()
    assert rolled_out_of(remembered(small.directory)) == {
        "devices": 4, "healthy": 2, "share": 0.5, "reasons": {NAMES[0]: "outputs differ", NAMES[3]: "told"},
        "median_latency_s": {"group-0": 0.0},
    }  # fmt: skip
