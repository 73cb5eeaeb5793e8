"""Check-ins: below a rate for every fleet, spread out, and the silence that means that a device is away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.pace import CHECKINS_PER_S, JITTER, LEAST_INTERVAL_S, MISSED, Pace


def a_pace(devices: int, now: float = 0.0) -> Pace:
    pace = Pace(seed=0)
    for number in range(devices):
        pace.on_heard(f"pi-{number}", now)
    return pace


@given(st.integers(0, 5000))
def test_the_check_ins_of_a_whole_fleet_stay_below_the_rate(devices: int) -> None:
    interval = a_pace(devices).interval_s
    assert devices / interval <= CHECKINS_PER_S
    assert interval >= LEAST_INTERVAL_S


def test_check_ins_are_spread_around_the_interval() -> None:
    pace = a_pace(10)
    told = [pace.next_checkin_s() for _ in range(1000)]
    assert all((1 - JITTER) * LEAST_INTERVAL_S <= each <= (1 + JITTER) * LEAST_INTERVAL_S for each in told)
    assert sum(told) / len(told) == pytest.approx(LEAST_INTERVAL_S, rel=0.02)
    assert len({round(each) for each in told}) > 100


PATIENCE_S = MISSED * (1 + JITTER) * LEAST_INTERVAL_S


def test_a_device_that_misses_several_check_ins_is_silent() -> None:
    pace = a_pace(2)
    pace.on_heard("pi-1", PATIENCE_S)
    assert pace.silent(["pi-0", "pi-1"], PATIENCE_S) == []
    assert pace.silent(["pi-0", "pi-1"], PATIENCE_S + 1) == ["pi-0"]


def test_a_device_known_from_a_retained_birth_alone_is_given_its_time() -> None:
    pace = a_pace(0)
    assert pace.silent(["pi-0"], 1000.0) == []
    assert pace.silent(["pi-0"], 1000.0 + PATIENCE_S) == []
    assert pace.silent(["pi-0"], 1001.0 + PATIENCE_S) == ["pi-0"]


def test_a_device_goes_by_the_longest_interval_that_may_have_been_told_to_it() -> None:
    pace = a_pace(int(10 * LEAST_INTERVAL_S * CHECKINS_PER_S))
    pace.next_checkin_s()
    assert pace.silent(["pi-0"], 9 * PATIENCE_S) == []
    assert pace.silent(["pi-0"], 11 * PATIENCE_S) == ["pi-0"]
