"""A round that loses devices: others take their place at once, it closes at its goal, and nothing is told unwritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mas_edge.federation.rounds import LOST_GRACE_S
from tests.orchestrator.small_desk import SmallDesk, a_job

FLEET = [f"pi-{n}" for n in range(6)]
JOB = a_job(devices_per_round=2, over_selection=1.0)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[SmallDesk]:
    desk = SmallDesk(tmp_path, JOB)
    desk.arrive(*FLEET)
    desk.turn()
    yield desk
    desk.close()


LEAVING: dict[str, Callable[[SmallDesk, str], None]] = {
    "a last will": SmallDesk.leave,
    "a refusal": SmallDesk.refuse,
}


@pytest.mark.parametrize("case", LEAVING)
def test_a_replacement_is_told_at_once_after(case: str, there: SmallDesk) -> None:
    first = there.told()
    assert len(first) == 2
    LEAVING[case](there, min(first))
    there.turn()
    [new] = there.told() - first
    assert {*there.round().machine.spec.selected} == {*first, new}
    there.report(new)
    there.report(max(first))
    there.turn()
    record = there.records()["merged-0000"]
    assert (record.outcome, set(record.reports)) == ("complete", {new, max(first)})
    assert set(record.selected) == {*first, new}


def test_the_one_who_left_may_still_come_back_and_an_extra_report_is_harmless(there: SmallDesk) -> None:
    back, other = sorted(there.told())
    there.leave(back)
    there.turn()
    there.arrive(back)
    there.turn(LOST_GRACE_S / 2)
    there.report(back)
    there.report(other)
    there.turn()
    assert set(there.records()["merged-0000"].reports) == {back, other}
    [spare] = there.told() - {back, other}
    assert there.cancelled() == {spare}
    there.report(spare)
    assert there.verdicts(spare) == ["round_closed"]


def test_who_refused_is_not_asked_again_in_the_same_round(there: SmallDesk) -> None:
    for _ in range(len(FLEET)):
        for device in there.round().machine.at_work() if there.desk.active else set():
            there.refuse(device)
        there.turn()
    said = Counter(device for device, message in there.outbox.said if getattr(message, "round_id", "") == "merged-0000")
    assert set(said.values()) == {1} and set(said) == set(FLEET)
    assert there.records()["merged-0000"].outcome == "abandoned"


def test_nobody_is_added_where_nobody_is_idle_until_somebody_comes(there: SmallDesk) -> None:
    first = there.told()
    for device in set(FLEET) - first:
        there.leave(device)
    there.leave(min(first))
    there.turn()
    assert there.told() == first
    there.arrive("late")
    there.turn(LOST_GRACE_S - 1.0)
    assert there.told() == {*first, "late"}


def test_a_round_that_has_spares_left_takes_no_replacement(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, a_job(devices_per_round=2, over_selection=1.5))
    desk.arrive(*FLEET)
    desk.turn()
    first = desk.told()
    desk.leave(min(first))
    desk.turn()
    assert (len(first), desk.told()) == (3, first)
    desk.close()


def test_a_restarted_orchestrator_knows_the_replacements(there: SmallDesk) -> None:
    first = there.told()
    there.refuse(min(first))
    there.turn()
    selected = there.round().machine.spec.selected
    there.restart()
    assert there.round().machine.spec.selected == selected
    assert set(there.round().machine.stages()) == set(selected)


def test_replacements_count_as_served(there: SmallDesk) -> None:
    """Least served first, over rounds in each of which one device leaves the round."""
    counted = Counter[str]()
    for index in range(2):
        round_id = f"merged-{index:04d}"
        there.turn()
        there.refuse(min(there.told(round_id)), round_id)
        there.turn()
        counted.update(there.told(round_id))
        for device in there.round(round_id).machine.at_work():
            there.report(device, round_id)
        there.turn()
    assert max(counted[device] for device in FLEET) - min(counted[device] for device in FLEET) <= 1
