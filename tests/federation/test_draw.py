"""Whom a round is told: how many, whom, and the reason when nobody is."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from mas_edge.federation.draw import Draw, Moment
from mas_edge.federation.flow import RoundWork
from tests.orchestrator.small_run import JOB, work

THERE = [f"pi-{n}" for n in range(10)]


def a_draw(**federation: object) -> Draw:
    return Draw(replace(JOB, federation=replace(JOB.federation, **{"devices_per_round": 4, **federation})))


def moment(busy: list[str] | None = None, *, begun: bool = True, alone: bool = True, side_by_side: int = 1) -> Moment:
    return Moment(begun, busy or [], alone, side_by_side)


def test_more_devices_are_told_than_reports_are_needed() -> None:
    assert len(a_draw().devices(work(), THERE, moment()).devices) == 6
    assert len(a_draw(over_selection=1.0).devices(work(), THERE, moment()).devices) == 4
    assert len(a_draw().devices(work(), THERE[:3], moment()).devices) == 3


def test_groups_that_open_side_by_side_leave_each_other_devices() -> None:
    draw = a_draw()
    first = draw.devices(work(group="group-0"), THERE, moment(side_by_side=2)).devices
    second = draw.devices(work(group="group-1"), THERE, moment(first, alone=False)).devices
    assert (len(first), len(second)) == (5, 5)
    assert not set(first) & set(second)


def test_a_group_that_trains_alone_takes_spares_of_the_whole_fleet() -> None:
    assert len(a_draw(parallel_groups=False).devices(work(), THERE, moment(side_by_side=2)).devices) == 6


def test_evaluations_are_told_to_everybody() -> None:
    assert a_draw().devices(work("evaluate"), THERE, moment()).devices == THERE


NOBODY: dict[str, tuple[RoundWork, list[str], Moment, str]] = {
    "the fleet is not complete": (work(), THERE[:2], moment(begun=False), "waiting for devices: 2 of 3 are there"),
    "too few are idle": (work(), THERE[:2], moment(["pi-0"]), "merged-0000: 1 of at least 2 devices are there"),
    "nobody is there to evaluate": (work("evaluate"), [], moment(), "merged-0000: waiting for a device"),
    "another round has to close first": (work(), THERE[:4], moment(["pi-0"], alone=False), ""),
}


@pytest.mark.parametrize("case", NOBODY)
def test_nobody_is_told_while(case: str) -> None:
    of, there, now, reason = NOBODY[case]
    assert a_draw(min_devices=3, min_reports=2).devices(of, there, now) == ([], False, reason)


def test_over_many_rounds_with_spares_everybody_is_told_equally_often() -> None:
    draw, counted = a_draw(), Counter[str]()
    for index in range(20):
        drawn = draw.devices(work(index=index), THERE, moment()).devices
        draw.serve("merged", drawn)
        counted.update(drawn)
    assert max(counted.values()) - min(counted.values()) <= 1
