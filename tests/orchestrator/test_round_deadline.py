"""The deadline of a round at the desk: from the records of the rounds before, also after a restart."""

from __future__ import annotations

from pathlib import Path

from mas_edge.federation.deadline import FLOOR_S
from tests.orchestrator.small_desk import SmallDesk, a_job

JOB = a_job(devices_per_round=3, over_selection=1.0, deadline_s=1000.0, min_reports=2)
FLEET = ["pi-1", "pi-2", "pi-3"]


def test_the_times_of_earlier_rounds_are_restored_and_an_abandoned_round_is_given_twice_as_long(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, JOB)
    desk.arrive(*FLEET)
    desk.turn()
    assert desk.round().machine.spec.deadline_s == 1000.0, "nothing is known yet"
    for device in FLEET:
        desk.report(device)
    desk.turn()
    assert set(desk.records()["merged-0000"].report_seconds) == set(FLEET)

    desk.restart()
    desk.arrive(*FLEET)
    desk.turn()
    assert desk.round("merged-0001").machine.spec.deadline_s == FLOOR_S
    desk.turn(FLOOR_S)
    assert desk.records()["merged-0001"].outcome == "abandoned"
    desk.turn(FLOOR_S)
    assert desk.round("merged-0001.1").machine.spec.deadline_s == 2 * FLOOR_S
    desk.close()


def test_a_round_that_was_taken_up_again_says_nothing_about_times(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, JOB)
    desk.arrive(*FLEET)
    desk.turn()
    desk.report("pi-1")
    desk.restart()
    desk.arrive(*FLEET)
    for device in FLEET[1:]:
        desk.report(device)
    desk.turn()
    closed = desk.records()["merged-0000"]
    assert (closed.outcome, closed.report_seconds) == ("complete", {})
    desk.close()
