"""Differences against the run of the same seed, and what becomes of them over the seeds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.simulation.pairs import ranks_in_order, rows_of, spearman, spread, summaries_of
from tests.simulation.outcomes import outcome

# Losses of a and b by seed; by hand: normalised totals .5 and .75, .45 and .6; raw ones 10.5 and 16, 9.5 and 12.6.
OUTCOMES = {
    ("one-by-one", 0): outcome([0.5, 1.0], 100),
    ("one-by-one", 1): outcome([1.0, 1.0], 200),
    ("mas-2", 0): outcome([0.5, 0.8], 50),
    ("mas-2", 1): outcome([0.8, 0.8], 60),
}
BOTH = ["one-by-one", "mas-2"]


def test_a_run_is_compared_with_the_reference_of_its_seed() -> None:
    first, second = rows_of(OUTCOMES, "one-by-one", {("mas-2", 0): 7.0})[2:]
    assert first.normalised_change == pytest.approx(0.45 / 0.5 - 1)
    assert first.raw_change == pytest.approx(8.5 / 10.5 - 1)
    assert first.tasks["a"].change == pytest.approx(0)
    assert first.tasks["b"].change == pytest.approx(-0.2)
    assert first.mean_change == pytest.approx(-0.1)
    assert first.device_seconds_ratio == pytest.approx(0.5)
    assert first.multiply_accumulates_ratio == pytest.approx(0.5)
    assert first.energy_ratio == pytest.approx(0.5)
    assert first.affinity_share == pytest.approx(1 / 9)
    assert (first.wall_seconds, second.wall_seconds) == (7.0, None)
    assert second.mean_change == pytest.approx(-0.2)
    assert second.device_seconds_ratio == pytest.approx(0.3)


def test_the_reference_differs_from_itself_by_nothing() -> None:
    rows = rows_of(OUTCOMES, "mas-2", {})
    for row in rows:
        if row.method == "mas-2":
            assert (row.normalised_change, row.raw_change, row.mean_change, row.energy_ratio) == (0, 0, 0, 1)


def test_without_a_reference_of_the_seed_there_is_no_difference() -> None:
    left = {key: value for key, value in OUTCOMES.items() if key != ("one-by-one", 1)}
    row = rows_of(left, "one-by-one", {})[-1]
    assert (row.normalised_change, row.raw_change, row.mean_change, row.energy_ratio) == (None,) * 4
    assert row.tasks["a"].change is None
    assert row.normalised_total == pytest.approx(0.6)


def test_means_are_of_the_paired_numbers() -> None:
    """The mean of the ratios .5 and .3, not the ratio of the means, 110 / 300."""
    (_, mas) = summaries_of(rows_of(OUTCOMES, "one-by-one", {}), BOTH, [0, 1])
    assert mas.numbers["device_seconds_ratio"].mean == pytest.approx(0.4)
    assert mas.numbers["mean_change"].values == pytest.approx([-0.1, -0.2])
    assert mas.numbers["mean_change"].deviation == pytest.approx(0.1 / 2**0.5)
    assert mas.tasks["b"]["change"].mean == pytest.approx(-0.2)
    assert "wall_seconds" not in mas.numbers


def test_a_summary_says_which_seeds_are_missing() -> None:
    left = {key: value for key, value in OUTCOMES.items() if key != ("one-by-one", 0)}
    one, mas = summaries_of(rows_of(left, "one-by-one", {}), BOTH, [1, 0])
    assert (one.seeds, one.missing) == ([1], [0])
    assert (mas.seeds, mas.missing) == ([1, 0], [])
    assert mas.numbers["raw_total"].values == pytest.approx([8.8, 8.5])  # in the order of the seeds
    assert len(mas.numbers["raw_change"].values) == 1
    assert summaries_of(rows_of(left, "one-by-one", {}), ["other"], [0]) == []


def test_one_value_has_no_deviation() -> None:
    assert spread([3.0]).deviation is None
    assert spread([1.0, 3.0]).deviation == pytest.approx(2**0.5)


def test_equal_values_share_their_rank() -> None:
    assert ranks_in_order([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]


def test_spearman_by_hand() -> None:
    """Five items whose ranks differ by 1, 1, 0, 1, 1: 1 - 6 * 4 / (5 * 24)."""
    assert spearman([1, 2, 3, 4, 5], [20, 10, 30, 50, 40]) == pytest.approx(0.8)
    assert spearman([1, 2, 3], [5, 5, 5]) is None


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=12))
def test_spearman_knows_only_the_order(pairs: list[tuple[int, int]]) -> None:
    x, y = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    found = spearman(x, y)
    if found is None:
        assert len(set(x)) == 1 or len(set(y)) == 1
        return
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert spearman([v**3 for v in x], y) == pytest.approx(found)
    assert spearman([-v for v in x], y) == pytest.approx(-found)
    assert spearman(y, x) == pytest.approx(found)
