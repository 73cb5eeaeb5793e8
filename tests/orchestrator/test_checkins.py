"""Check-ins at the desk: every answer names the next one; who keeps silent is away, and is back with a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mas_edge.federation.pace import JITTER, LEAST_INTERVAL_S, MISSED
from mas_edge.federation.rounds import LOST_GRACE_S
from mas_edge.protocol.messages import Cancel, Receipt
from tests.orchestrator.small_desk import SmallDesk, a_job

FLEET = ["pi-0", "pi-1", "pi-2"]
LONG_S = 2 * MISSED * LEAST_INTERVAL_S


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[SmallDesk]:
    desk = SmallDesk(tmp_path, a_job(devices_per_round=2, over_selection=1.5, deadline_s=86400.0))
    yield desk
    desk.close()


def test_every_answer_names_the_next_check_in(desk: SmallDesk) -> None:
    desk.arrive(*FLEET)
    desk.turn()
    desk.report("pi-0")
    desk.report("pi-1")
    desk.turn()
    answers = [message for _, message in desk.outbox.said if isinstance(message, (Receipt, Cancel))]
    assert len(answers) == 3
    for answer in answers:
        assert (1 - JITTER) * LEAST_INTERVAL_S <= answer.next_checkin_s <= (1 + JITTER) * LEAST_INTERVAL_S


def test_who_checks_in_and_keeps_silent_is_away_and_does_not_hold_the_round(desk: SmallDesk) -> None:
    desk.arrive(*FLEET, checks_in=True)
    desk.turn()
    for device in FLEET:
        desk.ack(device)
    desk.report("pi-0")
    desk.turn(LONG_S)
    assert desk.reception.registry.online() == {}, "a broker dropped their last wills"
    desk.turn(LOST_GRACE_S)
    assert desk.records()["merged-0000"].refused.keys() == {"pi-1", "pi-2"}
    desk.arrive("pi-1", checks_in=True)
    assert desk.reception.registry.online().keys() == {"pi-1"}


def test_who_does_not_know_of_check_ins_is_believed_to_be_there(desk: SmallDesk) -> None:
    desk.arrive(*FLEET)
    desk.turn()
    desk.turn(LONG_S)
    assert desk.reception.registry.online().keys() == set(FLEET)


def test_a_device_that_speaks_from_time_to_time_is_there(desk: SmallDesk) -> None:
    desk.arrive(*FLEET, checks_in=True)
    for _ in range(8):
        desk.turn(LEAST_INTERVAL_S)
        desk.arrive("pi-0", checks_in=True)
    assert desk.reception.registry.online().keys() == {"pi-0"}
