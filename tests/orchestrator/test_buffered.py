"""Buffered asynchronous aggregation: so many devices at work at any time, new weights with every so many reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.orchestrator.small_desk import SmallDesk, a_job
from tests.orchestrator.small_run import numbers

FLEET = [f"pi-{n}" for n in range(8)]
JOB = a_job(
    rounds=40, merge_rounds=20, mode="buffered", devices_per_round=2, concurrency=4, max_staleness=3, deadline_s=60.0
)
LONG = {"end_round": 20}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[SmallDesk]:
    desk = SmallDesk(tmp_path, JOB, LONG)
    desk.arrive(*FLEET)
    desk.turn()
    yield desk
    desk.close()


def at_work(desk: SmallDesk) -> dict[str, str]:
    """The devices that train, and for which round."""
    opened = desk.desk.active.items()
    found = {device: round_id for round_id, active in opened for device in active.machine.at_work()}
    for round_id in sorted(desk.desk.wanted_rounds() - desk.desk.active.keys()):
        found |= {device: round_id for device in desk.records()[round_id].stragglers if wanted(desk, round_id, device)}
    return found


def wanted(desk: SmallDesk, round_id: str, device: str) -> bool:
    return desk.desk.intake(round_id, device) is not None


def test_as_many_devices_as_there_are_slots_train_from_the_beginning(desk: SmallDesk) -> None:
    assert len(desk.told()) == 4


def test_a_slot_that_is_free_is_filled_at_once_and_nobody_is_cancelled_when_the_weights_change(desk: SmallDesk) -> None:
    first = sorted(desk.told())
    for device in first:
        desk.ack(device)
    desk.report(first[0])
    desk.turn()
    [fifth] = desk.told() - set(first)
    desk.ack(fifth)
    assert len(at_work(desk)) == 4
    desk.report(first[1])
    desk.turn()
    assert desk.records()["merged-0000"].stragglers == sorted([*first[2:], fifth])
    assert desk.cancelled() == set()
    desk.turn()
    assert len(desk.told("merged-0001")) == 1, "three of the four slots are taken"
    assert len(at_work(desk)) == 4


def test_reports_of_stragglers_fill_the_buffer_like_fresh_ones(desk: SmallDesk) -> None:
    first = sorted(desk.told())
    for device in first:
        desk.ack(device)
    for device in first[:2]:
        desk.report(device, update=numbers(seed=1))
    desk.turn()
    desk.turn()
    for device in first[2:]:
        desk.report(device, update=numbers(seed=2))
    desk.turn()
    closed = desk.records()["merged-0001"]
    assert (closed.outcome, closed.reports, len(closed.late)) == ("complete", {}, 2)
    moved = desk.weights(desk.records()["merged-0000"].weights) + (numbers(seed=2) - numbers())
    np.testing.assert_allclose(desk.weights(closed.weights), moved, rtol=1e-5, atol=1e-6)
    assert closed.losses == {"a": 0.5, "b": 0.25}


def test_a_round_opens_for_stragglers_alone_when_every_slot_is_taken(tmp_path: Path) -> None:
    job = a_job(rounds=40, merge_rounds=20, mode="buffered", devices_per_round=1, concurrency=3)
    desk = SmallDesk(tmp_path, job, LONG)
    desk.arrive(*FLEET[:3])
    desk.turn()
    for device in FLEET[:3]:
        desk.ack(device)
    desk.leave("pi-0")
    desk.report("pi-1")
    desk.leave("pi-1")
    desk.turn()
    desk.turn()
    assert desk.told("merged-0001") == set()
    assert desk.round("merged-0001").machine.spec.selected == ()
    desk.report("pi-2")
    desk.turn()
    assert desk.records()["merged-0001"].outcome == "complete"
    desk.close()


def test_a_fleet_smaller_than_the_buffer_still_makes_rounds(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, JOB, LONG)
    desk.arrive("pi-0")
    desk.turn()
    desk.report("pi-0")
    desk.turn()
    assert desk.records()["merged-0000"].outcome == "complete"
    desk.turn()
    assert desk.told("merged-0001") == {"pi-0"}
    desk.close()


def test_stragglers_that_never_report_hold_a_round_up_to_its_deadline_and_no_longer(desk: SmallDesk) -> None:
    for device in sorted(desk.told()):
        desk.ack(device)
    desk.report(min(desk.told()))
    desk.turn()
    desk.turn(60.0)
    assert (desk.records()["merged-0000"].outcome, len(desk.records()["merged-0000"].reports)) == ("deadline", 1)


kinds = st.sampled_from(["report", "report", "refuse", "leave", "restart"])
schedules = st.lists(st.tuples(kinds, st.integers(0, 7)), max_size=15)


@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])  # every step is on the disk
@given(schedules)
def test_whatever_happens_every_accepted_report_counts_once_and_no_more_train_than_there_are_slots(
    tmp_path_factory: pytest.TempPathFactory, schedule: list[tuple[str, int]]
) -> None:
    desk = SmallDesk(tmp_path_factory.mktemp("buffered"), JOB, LONG)
    try:
        desk.arrive(*FLEET)
        accepted, restarted = Counter[tuple[str, str]](), False
        for kind, number in schedule:
            desk.turn()
            # A restarted orchestrator does not know which stragglers had given up, and leaves them their slots.
            restarted = restarted or kind == "restart"
            assert len(at_work(desk)) <= 4 or restarted
            acknowledge(desk)
            accepted.update(happens(desk, kind, number))
        assert counted(desk) == accepted
    finally:
        desk.close()


def acknowledge(desk: SmallDesk) -> None:
    """Every device that is told says that it begins."""
    for round_id, active in desk.desk.active.items():
        for device in active.machine.at_work():
            desk.ack(device, round_id)


def happens(desk: SmallDesk, kind: str, number: int) -> list[tuple[str, str]]:
    """One event; returns the reports that were accepted."""
    busy = sorted(at_work(desk).items())
    if kind == "restart":
        desk.restart()
        desk.arrive(*FLEET)
    elif busy:
        device, round_id = busy[number % len(busy)]
        if kind == "report":
            desk.report(device, round_id, numbers(seed=number))
            return [(round_id, device)] if desk.verdicts(device)[-1] == "accepted" else []
        if kind == "refuse":
            desk.refuse(device, round_id)
        elif round_id in desk.desk.active:  # a straggler that vanishes gives its slot to another at once
            desk.leave(device)
            desk.arrive(device)
    desk.turn()
    return []


def counted(desk: SmallDesk) -> Counter[tuple[str, str]]:
    """The reports that count in closed and in open rounds, and those that wait for one."""
    found = Counter[tuple[str, str]]()
    for record in desk.store.records():
        assert len(record.reports) + len(record.late) <= 2
        found.update((record.round_id, device) for device in record.reports)
        found.update((late.round_id, late.device) for late in record.late)
    for active in desk.desk.active.values():
        found.update((active.work.round_id, device) for device in active.reports)
        found.update((late.round_id, late.device) for late in active.late)
    found.update((offer.round_id, offer.sender) for offer in desk.store.waiting())
    return found
