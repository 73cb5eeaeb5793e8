"""Aggregation: the accumulator against the weighted mean, and affinities against a sum written out."""

import math
from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mas_edge.federation.aggregate import Accumulator, affinity_over_rounds, mean_affinity, weighted_losses
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, sent_layout

TASKS = ["a", "b", "c"]
LAYOUT = Layout(
    [
        Entry("encoder.weight", [2, 3], ENCODER),
        Entry("a.weight", [3], "a"),
        Entry("b.weight", [1, 2], "b"),
        Entry("c.bias", [], "c"),
        Entry("encoder.mean", [2], ENCODER, trainable=False),
    ]
)

counts = st.dictionaries(st.sampled_from(TASKS), st.integers(0, 10**6)).filter(lambda held: any(held.values()))
floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def updates(draw: st.DrawFn) -> tuple[Vector, dict[str, int]]:
    """What one device sends: the whole of what it counts for."""
    samples = draw(counts)
    size = sent_layout(LAYOUT, samples).size
    return np.array(draw(st.lists(floats, min_size=size, max_size=size)), np.float32), samples


fleets = st.lists(updates(), min_size=1, max_size=6)
previous_weights = st.lists(floats, min_size=LAYOUT.size, max_size=LAYOUT.size).map(
    lambda numbers: np.array(numbers, np.float32)
)


def fold_all(fleet: list[tuple[Vector, dict[str, int]]]) -> Accumulator:
    accumulator = Accumulator(LAYOUT)
    for vector, samples in fleet:
        accumulator.fold(vector, samples)
    return accumulator


def weight_of(part: str, samples: Mapping[str, int]) -> int:
    return max(samples.values()) if part == ENCODER else samples.get(part, 0)


def tensor_of(entry: Entry, vector: Vector, samples: Mapping[str, int]) -> NDArray[np.float64]:
    """One tensor out of an update, found by counting from its beginning."""
    offset = 0
    for other in LAYOUT.entries:
        if other.name == entry.name:
            return vector[offset : offset + entry.size].astype(np.float64)
        offset += other.size if weight_of(other.part, samples) else 0
    raise AssertionError(entry.name)


@given(fleets, previous_weights)
def test_every_part_is_the_mean_weighted_by_its_own_samples(
    fleet: list[tuple[Vector, dict[str, int]]], previous: Vector
) -> None:
    mean = fold_all(fleet).mean(previous)
    assert mean.dtype == np.float32
    for entry, place in zip(LAYOUT.entries, LAYOUT.slices().values(), strict=True):
        held = [(tensor_of(entry, v, s), weight_of(entry.part, s)) for v, s in fleet if weight_of(entry.part, s)]
        if not held:
            assert mean[place].tobytes() == previous[place].tobytes()
            continue
        rows, weights = np.stack([row for row, _ in held]), [weight for _, weight in held]
        expected = np.average(rows, axis=0, weights=weights)
        scale = np.abs(rows).max(initial=1.0)
        assert np.abs(mean[place] - expected).max(initial=0.0) <= 1e-6 * scale


@given(fleets, previous_weights, st.randoms())
def test_the_order_of_arrival_does_not_matter(
    fleet: list[tuple[Vector, dict[str, int]]], previous: Vector, random: Random
) -> None:
    shuffled = random.sample(fleet, len(fleet))
    one, other = fold_all(fleet).mean(previous), fold_all(shuffled).mean(previous)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_parts_nobody_reported_keep_their_bits_even_odd_ones() -> None:
    previous = np.full(LAYOUT.size, -0.0, np.float32)
    previous[LAYOUT.slices()["b.weight"]] = np.array([0x7FC12345, 0x00000001], np.uint32).view(np.float32)
    samples = {"a": 5, "b": 0}
    accumulator = Accumulator(LAYOUT)
    accumulator.fold(np.ones(sent_layout(LAYOUT, samples).size, np.float32), samples)
    mean = accumulator.mean(previous)
    for part, kept in (("a.weight", False), ("b.weight", True), ("c.bias", True), ("encoder.mean", False)):
        place = LAYOUT.slices()[part]
        assert (mean[place].tobytes() == previous[place].tobytes()) is kept, part


def test_a_mean_over_nobody_is_the_previous_weights_and_does_not_share_their_memory() -> None:
    previous = np.arange(LAYOUT.size, dtype=np.float32)
    mean = Accumulator(LAYOUT).mean(previous)
    assert mean.tobytes() == previous.tobytes()
    assert not np.shares_memory(mean, previous)


def test_one_device_alone_gives_exactly_its_own_numbers() -> None:
    vector = np.random.default_rng(3).standard_normal(LAYOUT.size).astype(np.float32)
    accumulator = fold_all([(vector, {"a": 7, "b": 3, "c": 11})])
    assert accumulator.mean(np.zeros(LAYOUT.size, np.float32)).tobytes() == vector.tobytes()
    assert accumulator.count == 1


REFUSED: dict[str, tuple[tuple[int, ...], dict[str, int]]] = {
    "one number too few": ((LAYOUT.size - 1,), {"a": 1, "b": 1, "c": 1}),
    "one number too many": ((LAYOUT.size + 1,), {"a": 1, "b": 1, "c": 1}),
    "another number of axes": ((LAYOUT.size, 1), {"a": 1, "b": 1, "c": 1}),
    "heads without samples": ((LAYOUT.size,), {"a": 1}),
    "a head is missing that has samples": ((8 + 3,), {"a": 1, "b": 1}),
    "no samples at all": ((8,), {}),
    "samples of nothing": ((8,), {"a": 0, "b": 0}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_update_of_another_shape_is_refused_and_changes_nothing(case: str) -> None:
    shape, samples = REFUSED[case]
    good = np.arange(LAYOUT.size, dtype=np.float32)
    accumulator = fold_all([(good, {"a": 1, "b": 2, "c": 3})])
    with pytest.raises(WeightsError, match="expected"):
        accumulator.fold(np.ones(shape, np.float32), samples)
    assert accumulator.count == 1
    assert accumulator.mean(np.zeros(LAYOUT.size, np.float32)).tobytes() == good.tobytes()


rows = st.lists(st.one_of(st.floats(-10, 10), st.just(math.nan)), min_size=3, max_size=3)
Measured = list[NDArray[np.float64]]
measured_fleets = st.lists(st.lists(rows, min_size=3, max_size=3).map(np.array), min_size=1, max_size=5)


@given(measured_fleets)
def test_the_mean_affinity_is_taken_pair_by_pair_over_the_devices_that_measured_it(measured: Measured) -> None:
    mean, devices = mean_affinity(measured)
    for i in range(3):
        for j in range(3):
            values = [matrix[i, j] for matrix in measured if not math.isnan(matrix[i, j])]
            assert devices[i, j] == len(values)
            assert mean[i, j] == pytest.approx(sum(values) / len(values) if values else 0.0, abs=1e-12)


@given(st.lists(measured_fleets, min_size=1, max_size=4))
def test_rounds_count_alike_and_only_those_that_measured_a_pair(rounds: list[Measured]) -> None:
    means = [mean_affinity(measured) for measured in rounds]
    matrix, devices = affinity_over_rounds(means)
    for i in range(3):
        for j in range(3):
            values = [mean[i, j] for mean, count in means if count[i, j]]
            assert matrix[i, j] == pytest.approx(sum(values) / len(values) if values else 0.0, abs=1e-12)
            assert devices[i, j] == sum(count[i, j] for _, count in means)


def test_numbers_of_rounds_that_did_not_measure_a_pair_are_never_looked_at() -> None:
    first = np.array([[1.0, 7.0], [7.0, 7.0]]), np.array([[2, 0], [0, 0]])
    second = np.array([[3.0, 5.0], [math.nan, math.inf]]), np.array([[1, 1], [0, 0]])
    matrix, devices = affinity_over_rounds([first, second])
    assert (matrix.tolist(), devices.tolist()) == ([[2.0, 5.0], [0.0, 0.0]], [[3, 1], [0, 0]])


def test_losses_are_weighted_by_the_samples_of_their_own_task() -> None:
    reports = [({"a": 1.0, "b": 5.0}, {"a": 1, "b": 2}), ({"a": 4.0, "b": 9.0}, {"a": 2, "b": 0}), ({"c": 1.0}, {})]
    assert weighted_losses(reports) == {"a": 3.0, "b": 5.0}
