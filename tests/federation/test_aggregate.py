"""Aggregation: the accumulator against the weighted mean, losses and task weights by hand."""

from collections.abc import Mapping
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mas_edge.federation.aggregate import Accumulator, mean_task_weights, weighted_losses
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Report
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


def test_who_trained_heads_only_moves_no_encoder_and_takes_nothing_from_its_mean() -> None:
    whole, head = np.arange(LAYOUT.size, dtype=np.float32), np.full(3, 10, np.float32)
    both = fold_all([(whole, {"a": 1, "b": 1, "c": 1}), (head, {"a": 3, ENCODER: 0})])
    mean, places = both.mean(np.zeros(LAYOUT.size, np.float32)), LAYOUT.slices()
    expected = whole.copy()
    expected[places["a.weight"]] = (whole[places["a.weight"]] + 3 * head) / 4
    assert mean.tobytes() == expected.tobytes()


REFUSED: dict[str, tuple[tuple[int, ...], dict[str, int]]] = {
    "one number too few": ((LAYOUT.size - 1,), {"a": 1, "b": 1, "c": 1}),
    "one number too many": ((LAYOUT.size + 1,), {"a": 1, "b": 1, "c": 1}),
    "another number of axes": ((LAYOUT.size, 1), {"a": 1, "b": 1, "c": 1}),
    "heads without samples": ((LAYOUT.size,), {"a": 1}),
    "a head is missing that has samples": ((8 + 3,), {"a": 1, "b": 1}),
    "no samples at all": ((8,), {}),
    "samples of nothing": ((8,), {"a": 0, "b": 0}),
    "an encoder from who trained heads only": ((8 + 3,), {"a": 1, ENCODER: 0}),
    "no encoder and no head": ((0,), {"a": 0, ENCODER: 0}),
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


def test_losses_are_weighted_by_the_samples_of_their_own_task() -> None:
    reports = [({"a": 1.0, "b": 5.0}, {"a": 1, "b": 2}), ({"a": 4.0, "b": 9.0}, {"a": 2, "b": 0}), ({"c": 1.0}, {})]
    assert weighted_losses(reports) == {"a": 3.0, "b": 5.0}


def balanced(task_weights: dict[str, float], **samples: int) -> Report:
    return Report(samples=samples, losses={}, task_weights=task_weights)


def test_task_weights_are_averaged_by_the_samples_of_their_own_task_and_scaled_to_the_sum_n() -> None:
    reports = [balanced({"a": 1.0, "b": 1.0}, a=1, b=3), balanced({"a": 1.6, "b": 0.4}, a=1, b=1)]
    # a (1 + 1.6) / 2 = 1.3, b (3 * 1 + 0.4) / 4 = 0.85: 2.15 in all, scaled to 2
    assert mean_task_weights(reports) == pytest.approx({"a": 1.3 * 2 / 2.15, "b": 0.85 * 2 / 2.15})


def test_a_device_has_no_say_in_the_weight_of_a_task_it_has_no_labels_of() -> None:
    reports = [balanced({"a": 1.2, "b": 0.8}, a=5, b=0), balanced({"a": 0.8, "b": 1.2}, a=0, b=5)]
    assert mean_task_weights(reports) == pytest.approx({"a": 1.0, "b": 1.0})


def test_task_weights_that_nobody_reported_are_absent() -> None:
    assert mean_task_weights([]) == mean_task_weights([balanced({}, a=5)]) == {}
    assert mean_task_weights([balanced({"a": 1.5, "b": 0.5}, a=5)]) == {"a": 1.0}
