"""Averages of affinities over devices and rounds: against a sum written out, and against a device that is wrong."""

from __future__ import annotations

import math
from statistics import median, stdev
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mas_edge.federation.measurements import affinity_over_rounds, mean_affinity

Measured = list[NDArray[np.float64]]
N = 3
rows = st.lists(st.one_of(st.floats(-10, 10), st.just(math.nan)), min_size=N, max_size=N)
fleets = st.lists(st.lists(rows, min_size=N, max_size=N).map(np.array), min_size=1, max_size=7)
shares = st.lists(st.integers(0, 1000), min_size=7, max_size=7)
PAIRS = [(i, j) for i in range(N) for j in range(N)]


def pair(*values: float) -> Measured:
    """One device a value, for one pair."""
    return [np.array([[value]]) for value in values]


@given(fleets)
def test_the_mean_is_taken_pair_by_pair_over_the_devices_that_measured_it(measured: Measured) -> None:
    mean, devices = mean_affinity(measured)
    for i, j in PAIRS:
        values = [matrix[i, j] for matrix in measured if not math.isnan(matrix[i, j])]
        assert devices[i, j] == len(values)
        assert mean[i, j] == pytest.approx(sum(values) / len(values) if values else 0.0, abs=1e-12)


@given(fleets, shares)
def test_a_device_counts_for_its_weight_and_not_at_all_for_a_weight_of_0(measured: Measured, share: list[int]) -> None:
    mean, devices = mean_affinity(measured, weights=share[: len(measured)])
    for i, j in PAIRS:
        held = [(m[i, j], w) for m, w in zip(measured, share, strict=False) if w and not math.isnan(m[i, j])]
        expected = sum(value * w for value, w in held) / sum(w for _, w in held) if held else 0.0
        assert devices[i, j] == len(held)
        assert mean[i, j] == pytest.approx(expected, abs=1e-9)


@given(fleets, st.integers(1, 5))
def test_a_pair_that_fewer_than_the_quorum_measured_counts_as_not_measured(measured: Measured, quorum: int) -> None:
    plain, some = mean_affinity(measured), mean_affinity(measured, quorum=quorum)
    enough = plain.devices >= quorum
    np.testing.assert_array_equal(some.devices, np.where(enough, plain.devices, 0))
    np.testing.assert_array_equal(some.matrix, np.where(enough, plain.matrix, 0.0))


@given(fleets)
def test_the_median_is_the_middle_device(measured: Measured) -> None:
    found, devices = mean_affinity(measured, average="median")
    for i, j in PAIRS:
        values = [matrix[i, j] for matrix in measured if not math.isnan(matrix[i, j])]
        assert devices[i, j] == len(values)
        assert found[i, j] == pytest.approx(median(values) if values else 0.0, abs=1e-12)


# Values of the devices, and what is left of them when both ends are trimmed.
TRIMMED: dict[str, tuple[list[float], list[float]]] = {
    "one": ([5], [5]),
    "two": ([9, 5], [5, 9]),
    "three": ([9, 1, 5], [5]),
    "four": ([9, 1, 5, 7], [5, 7]),
    "seven": ([1, 2, 3, 4, 5, 6, 70], [2, 3, 4, 5, 6]),
    "eight": ([-80, -7, 1, 2, 3, 4, 50, 60], [1, 2, 3, 4]),
    "four of five": ([9, math.nan, 1, 5, 7], [5, 7]),
}


@pytest.mark.parametrize("case", TRIMMED)
def test_the_trimmed_mean_leaves_out_a_quarter_at_either_end_and_of_three_the_outer_two(case: str) -> None:
    values, left = TRIMMED[case]
    found, devices = mean_affinity(pair(*values), average="trimmed")
    assert found.item() == pytest.approx(sum(left) / len(left))
    assert devices.item() == sum(not math.isnan(value) for value in values)


def test_what_is_trimmed_takes_its_weight_along() -> None:
    found = mean_affinity(pair(1, 5, 7, 9), weights=[100, 1, 3, 100], average="trimmed")
    assert found.matrix.item() == pytest.approx((5 + 3 * 7) / 4)


honest = st.lists(st.floats(-10, 10).filter(lambda value: value == 0 or abs(value) > 1e-3), min_size=3, max_size=9)


@given(honest, st.data(), st.sampled_from(["median", "trimmed"]))
def test_one_device_with_numbers_a_million_times_too_large_leaves_the_result_among_the_others(
    values: list[float], data: st.DataObject, average: Literal["median", "trimmed"]
) -> None:
    i = data.draw(st.integers(0, len(values) - 1))
    weights = data.draw(st.lists(st.integers(1, 1000), min_size=len(values), max_size=len(values)))
    others = values[:i] + values[i + 1 :]
    for factor in (1e6, -1e6):
        sent = [value * factor if k == i else value for k, value in enumerate(values)]
        for share in (None, weights):
            found = mean_affinity(pair(*sent), weights=share, average=average).matrix.item()
            assert min(others) - 1e-9 <= found <= max(others) + 1e-9


def test_the_plain_mean_does_not_withstand_such_a_device() -> None:
    assert mean_affinity(pair(0.1, 0.2, 0.3, 1e5)).matrix.item() > 1e4


@given(st.lists(fleets, min_size=1, max_size=5))
def test_rounds_count_alike_and_only_those_that_measured_a_pair(rounds: list[Measured]) -> None:
    means = [mean_affinity(measured) for measured in rounds]
    found = affinity_over_rounds(means)
    for i, j in PAIRS:
        values = [mean.matrix[i, j] for mean in means if mean.devices[i, j]]
        assert found.matrix[i, j] == pytest.approx(sum(values) / len(values) if values else 0.0, abs=1e-12)
        assert found.devices[i, j] == sum(mean.devices[i, j] for mean in means)
        assert found.rounds[i, j] == len(values)
        if len(values) < 2:
            assert math.isnan(found.spread[i, j])
        else:
            assert found.spread[i, j] == pytest.approx(stdev(values) / math.sqrt(len(values)), abs=1e-9)


def test_numbers_of_rounds_that_did_not_measure_a_pair_are_never_looked_at() -> None:
    first = np.array([[1.0, 7.0], [7.0, 7.0]]), np.array([[2, 0], [0, 0]])
    second = np.array([[3.0, 5.0], [math.nan, math.inf]]), np.array([[1, 1], [0, 0]])
    found = affinity_over_rounds([first, second])
    assert (found.matrix.tolist(), found.devices.tolist()) == ([[2.0, 5.0], [0.0, 0.0]], [[3, 1], [0, 0]])
    assert found.rounds.tolist() == [[2, 1], [0, 0]]
    np.testing.assert_array_equal(found.spread, [[1.0, math.nan], [math.nan, math.nan]])


def test_a_round_below_the_quorum_does_not_count_for_the_mean_over_rounds() -> None:
    rounds = [mean_affinity(pair(1, 3), quorum=2), mean_affinity(pair(100, math.nan), quorum=2)]
    found = affinity_over_rounds(rounds)
    assert (found.matrix.item(), found.devices.item(), found.rounds.item()) == (2.0, 2, 1)
