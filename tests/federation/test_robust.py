"""Robust aggregation: ranks against numpy, and what a minority of liars can not do."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.robust import READ_NUMBERS, Row, Rule, aggregate, change_norm, middle, shrink_to
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector

LAYOUT = Layout(
    [
        Entry("encoder.weight", [2, 3], ENCODER),
        Entry("a.weight", [3], "a"),
        Entry("b.weight", [2], "b"),
        Entry("encoder.mean", [2], ENCODER, trainable=False),
    ]
)
BOTH = frozenset({ENCODER, "a", "b"})
floats = st.floats(-1e6, 1e6, width=32)


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Numbers of some devices at some places, and how many are cut."""
    devices, places = draw(st.integers(1, 20)), draw(st.integers(1, 5))
    numbers = draw(st.lists(floats, min_size=devices * places, max_size=devices * places))
    return np.array(numbers, np.float32).reshape(devices, places), draw(st.integers(0, (devices - 1) // 2))


@given(tables())
def test_the_middle_is_the_mean_of_the_ranks_that_are_left(table: tuple[np.ndarray, int]) -> None:
    numbers, cut = table
    left = np.sort(numbers, axis=0)[cut : len(numbers) - cut].astype(np.float64)
    np.testing.assert_allclose(middle(numbers, cut), left.mean(axis=0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("devices", range(1, 12))
def test_every_order_of_zeros_and_ones_is_ranked(devices: int) -> None:
    """A network of comparisons that ranks these ranks everything (the 0-1 principle, Knuth 5.3.4)."""
    numbers = np.array(list(product([0, 1], repeat=devices)), np.float32).T
    for cut in range((devices - 1) // 2 + 1):
        expected = np.sort(numbers, axis=0)[cut : devices - cut].mean(axis=0)
        np.testing.assert_allclose(middle(numbers.copy(), cut), expected, rtol=1e-6)


CUTS = {
    ("mean", 9, 0.4): 0, ("median", 1, 0.2): 0, ("median", 2, 0.2): 0, ("median", 3, 0.2): 1, ("median", 10, 0.2): 4,
    ("trimmed", 2, 0.2): 0, ("trimmed", 3, 0.2): 1, ("trimmed", 4, 0.2): 1, ("trimmed", 10, 0.2): 2,
    ("trimmed", 10, 0.35): 3, ("trimmed", 100, 0.29): 29, ("trimmed", 4, 0.49): 1, ("trimmed", 5, 0.49): 2,
}  # fmt: skip


@pytest.mark.parametrize("case", CUTS, ids=str)
def test_how_many_are_left_out(case: tuple[str, int, float]) -> None:
    robust, devices, trim = case
    assert Rule(robust=robust, trim=trim).cut(devices) == CUTS[case]  # type: ignore[arg-type]


def rows_of(updates: list[Vector]) -> list[Row]:
    places = LAYOUT.slices()

    def row(update: Vector) -> Row:
        return Row(BOTH, lambda name, start, stop: update[places[name]][start:stop])

    return [row(update) for update in updates]


liars = st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=LAYOUT.size, max_size=LAYOUT.size), max_size=3)


@given(liars, st.integers(0, 2**32 - 1), st.sampled_from(["median", "trimmed"]))
def test_a_minority_moves_no_number_out_of_the_range_of_the_others(
    lies: list[list[float]], seed: int, how: str
) -> None:
    honest = np.random.default_rng(seed).standard_normal((7, LAYOUT.size)).astype(np.float32)
    rule, now = Rule(robust=how, trim=0.3), np.zeros(LAYOUT.size, np.float32)  # type: ignore[arg-type]
    everybody = [*(np.array(lie, np.float32) for lie in lies), *honest]
    found = np.concatenate(list(aggregate(LAYOUT, rows_of(everybody), rule, now)))
    assert (honest.min(axis=0) <= found).all()
    assert (found <= honest.max(axis=0)).all()


def test_a_part_that_nobody_sent_keeps_its_bits_and_one_that_some_sent_is_theirs() -> None:
    now = np.full(LAYOUT.size, -0.0, np.float32)
    places = LAYOUT.slices()

    def row(parts: frozenset[str], number: float) -> Row:
        return Row(parts, lambda _, start, stop: np.full(stop - start, number, np.float32))

    rows = [row(frozenset({ENCODER}), 1.0), row(frozenset({ENCODER, "a"}), 2.0), row(frozenset({ENCODER}), 9.0)]
    found = np.concatenate(list(aggregate(LAYOUT, rows, Rule(robust="median"), now)))
    assert found[places["b.weight"]].tobytes() == now[places["b.weight"]].tobytes()
    assert (found[places["a.weight"]].tolist(), found[places["encoder.mean"]].tolist()) == ([2.0] * 3, [2.0] * 2)


def test_a_change_is_shortened_and_moved_and_stays_a_finite_number() -> None:
    now, largest = np.ones(LAYOUT.size, np.float32), np.finfo(np.float32).max
    rows = [
        Row(BOTH, lambda _, start, stop: np.full(stop - start, 5.0, np.float32), shrink=0.5),
        Row(
            BOTH,
            lambda _, start, stop: np.full(stop - start, 5.0, np.float32),
            lambda _, start, stop: np.full(stop - start, 3.0, np.float32),
        ),
        Row(
            BOTH,
            lambda _, start, stop: np.full(stop - start, largest, np.float32),
            lambda _, start, stop: np.full(stop - start, -largest, np.float32),
        ),
    ]
    places = [np.concatenate(list(aggregate(LAYOUT, [row], Rule(robust="median"), now)))[0].item() for row in rows]
    assert places == [1.0 + 0.5 * 4.0, 1.0 + 2.0, pytest.approx(largest)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([{"a": 3}, {"a": 1, "b": 2}, {"b": 4, "a": 0}]))
def test_the_norm_of_a_change_is_over_what_was_sent(seed: int, samples: dict[str, int]) -> None:
    rng, places = np.random.default_rng(seed), LAYOUT.slices()
    base = rng.standard_normal(LAYOUT.size).astype(np.float32)
    sent = [e for e in LAYOUT.entries if e.part == ENCODER or samples.get(e.part)]
    update = rng.standard_normal(sum(e.size for e in sent)).astype(np.float32)
    began = np.concatenate([base[places[e.name]] for e in sent])
    expected = np.linalg.norm(update.astype(np.float64) - began)
    assert change_norm(LAYOUT, update, samples, base) == pytest.approx(expected, rel=1e-9)


def test_the_bound_is_a_number_or_the_median_of_the_round() -> None:
    assert Rule(clip_norm="auto").bound([1.0, 100.0, 2.0]) == 2.0
    assert Rule(clip_norm=3.0).bound([1.0, 100.0]) == 3.0
    assert (Rule().bound([1.0]), Rule(clip_norm="auto").bound([])) == (math.inf, math.inf)
    assert (shrink_to(4.0, 2.0), shrink_to(2.0, 2.0), shrink_to(0.0, 0.0)) == (0.5, 1.0, 1.0)


def test_large_tensors_are_read_in_pieces_that_do_not_grow_with_the_devices() -> None:
    layout, asked = Layout([Entry("w", [READ_NUMBERS // 4], ENCODER)]), []

    def read(_: str, start: int, stop: int) -> Vector:
        asked.append(stop - start)
        return np.arange(start, stop, dtype=np.float32)

    rows = [Row(frozenset({ENCODER}), read)] * 16
    found = np.concatenate(list(aggregate(layout, rows, Rule(robust="median"), np.zeros(layout.size, np.float32))))
    assert found.tolist() == list(range(layout.size))
    assert max(asked) * len(rows) <= READ_NUMBERS
