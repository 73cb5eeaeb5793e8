"""How long a round waits: named cases, and what holds for every history of report times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.deadline import FLOOR_S, MIN_REPORTS, ROUNDS, ReportTimes, deadline_s

MOST = 600.0
CASES: dict[str, tuple[list[float], float, int, float]] = {  # observed, factor, abandoned attempts, deadline
    "nothing was observed": ([], 3.0, 0, MOST),
    "too little was observed": ([20.0] * (MIN_REPORTS - 1), 3.0, 0, MOST),
    "the factor is off": ([20.0] * 9, 0.0, 0, MOST),
    "all devices are alike": ([20.0] * 9, 3.0, 0, 60.0),
    "one of ten was put away": ([20.0] * 9 + [500.0], 3.0, 0, 60.0),
    "two of ten are slow": ([20.0] * 8 + [100.0] * 2, 3.0, 0, 300.0),
    "all devices are fast": ([0.5] * 9, 3.0, 0, FLOOR_S),
    "fast, and abandoned once": ([0.5] * 9, 3.0, 1, 2 * FLOOR_S),
    "abandoned twice": ([20.0] * 9, 3.0, 2, 240.0),
    "abandoned very often": ([20.0] * 9, 3.0, 10_000, MOST),
    "slower than may be waited for": ([400.0] * 9, 3.0, 0, MOST),
}


@pytest.mark.parametrize("case", CASES)
def test_a_round_waits_as_long_as_its_devices_lately_took_times_a_factor_when(case: str) -> None:
    observed, factor, attempt, expected = CASES[case]
    assert deadline_s(observed, factor, MOST, attempt) == expected


times = st.lists(st.floats(0.001, 1e5), max_size=30)


@given(times, st.floats(1, 100), st.floats(0.1, 86400), st.integers(0, 50))
def test_whatever_was_observed_the_deadline_stays_within_its_bounds_and_grows_with_every_attempt(
    observed: list[float], factor: float, most: float, attempt: int
) -> None:
    found = deadline_s(observed, factor, most, attempt)
    assert min(FLOOR_S, most) <= found <= most
    assert found <= deadline_s(observed, factor, most, attempt + 1)
    assert deadline_s(list(reversed(observed)), factor, most, attempt) == found


@given(times.filter(lambda each: len(each) >= MIN_REPORTS), st.floats(1, 100))
def test_nine_of_ten_devices_that_take_as_long_as_before_come_in_time(observed: list[float], factor: float) -> None:
    found = deadline_s(observed, factor, 1e9, 0)
    assert sum(each <= found for each in observed) >= 0.9 * len(observed)


def test_times_are_kept_for_each_kind_and_network_and_old_rounds_are_forgotten() -> None:
    kept = ReportTimes()
    kept.note("train", "merged", [500.0])
    for index in range(ROUNDS):
        kept.note("train", "merged", [float(index), 1.0])
        kept.note("train", "merged", [])  # taken up again after a restart: nobody was timed
    kept.note("evaluate", "merged", [2.0])
    assert sorted(kept.of("train", "merged")) == [0.0, *[1.0] * (ROUNDS + 1), 2.0, 3.0, 4.0]
    assert kept.of("evaluate", "merged") == [2.0]
    assert kept.of("train", "group-0") == []
