"""Folding late updates: against the closed form, in any order, beside fresh ones."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.aggregate import Accumulator
from mas_edge.federation.late import staleness_weight
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, part_weights, sent_layout

LAYOUT = Layout([Entry("encoder.w", [2, 2], ENCODER), Entry("a.w", [3], "a"), Entry("b.w", [], "b")])
POWER = 0.5
# Sums of numbers up to 1e3 in float64, rounded to float32 at the end
TOLERANCE = 1e-3


class Came(NamedTuple):
    """One update: rounds late (0: fresh), the samples behind it, its numbers, what it began from."""

    staleness: int
    samples: dict[str, int]
    numbers: Vector  # of the whole layout; what is not sent is cut out
    base: Vector


vectors = st.lists(st.floats(-1e3, 1e3, width=32), min_size=LAYOUT.size, max_size=LAYOUT.size).map(
    lambda each: np.array(each, np.float32)
)
counts = st.dictionaries(st.sampled_from("ab"), st.integers(0, 1000)).filter(lambda held: any(held.values()))
arrivals = st.lists(st.builds(Came, st.integers(0, 5), counts, vectors, vectors), min_size=1, max_size=6)


def sent(came: Came) -> Vector:
    places = LAYOUT.slices()
    return np.concatenate([came.numbers[places[entry.name]] for entry in sent_layout(LAYOUT, came.samples).entries])


def fold_all(every: list[Came], now: Vector) -> Vector:
    accumulator = Accumulator(LAYOUT)
    for came in every:
        if came.staleness:
            scale = staleness_weight(came.staleness, POWER)
            accumulator.fold_late(sent(came), came.samples, came.base, now, scale)
        else:
            accumulator.fold(sent(came), came.samples)
    return accumulator.mean(now)


@given(arrivals, vectors)
def test_late_and_fresh_updates_come_to_the_closed_form(every: list[Came], now: Vector) -> None:
    mean = fold_all(every, now)
    for entry, place in zip(LAYOUT.entries, LAYOUT.slices().values(), strict=True):
        over, under = np.zeros(entry.size), 0.0
        for came in every:
            n = part_weights(came.samples).get(entry.part, 0) * (1 + came.staleness) ** -POWER
            shift = now[place].astype(np.float64) - came.base[place] if came.staleness else 0.0
            over, under = over + n * (came.numbers[place].astype(np.float64) + shift), under + n
        expected = over / under if under else now[place]
        np.testing.assert_allclose(mean[place], expected, rtol=1e-5, atol=TOLERANCE)


@given(arrivals, vectors, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(every: list[Came], now: Vector, lot: Random) -> None:
    shuffled = list(every)
    lot.shuffle(shuffled)
    np.testing.assert_allclose(fold_all(shuffled, now), fold_all(every, now), rtol=1e-5, atol=TOLERANCE)


@given(arrivals, vectors)
def test_an_update_that_began_from_the_weights_of_now_is_moved_nowhere(every: list[Came], now: Vector) -> None:
    fresh = [came._replace(staleness=0) for came in every]
    accumulator = Accumulator(LAYOUT)
    for came in fresh:
        accumulator.fold_late(sent(came), came.samples, now, now, 1.0)
    np.testing.assert_allclose(accumulator.mean(now), fold_all(fresh, now), rtol=1e-5, atol=TOLERANCE)


@given(vectors, vectors, vectors, st.integers(1, 9))
def test_a_late_update_alone_moves_the_weights_by_what_its_device_has_learned(
    numbers: Vector, base: Vector, now: Vector, staleness: int
) -> None:
    mean = fold_all([Came(staleness, {"a": 1, "b": 1}, numbers, base)], now)
    expected = now.astype(np.float64) + numbers - base
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=TOLERANCE)


def test_a_late_update_of_another_shape_is_refused_and_changes_nothing() -> None:
    now, accumulator = np.zeros(LAYOUT.size, np.float32), Accumulator(LAYOUT)
    accumulator.fold(np.ones(LAYOUT.size, np.float32), {"a": 1, "b": 1})
    before = accumulator.mean(now).tobytes()
    with pytest.raises(WeightsError, match="expected 8 numbers"):
        accumulator.fold_late(np.ones(3, np.float32), {"a": 1, "b": 1}, now, now, 0.5)
    assert accumulator.mean(now).tobytes() == before
