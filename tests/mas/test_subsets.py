from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mas_edge.mas.affinity import AffinityMatrix, self_affinities
from mas_edge.mas.exact import ExactSearch
from mas_edge.mas.split import partitions, value_of
from mas_edge.mas.subsets import LEAF_TASKS, best_halves, group_gains, members, subset_sums, subsets_with_first
from tests.mas.matrices import matrices


@given(st.integers(1, 2**12))
def test_a_mask_is_the_sum_of_its_members(mask: int) -> None:
    assert sum(2**task for task in members(mask)) == mask
    assert list(members(mask)) == sorted(set(members(mask)))


def test_subset_sums_stand_at_their_masks() -> None:
    assert subset_sums(np.array([1.0, 10.0, 100.0])).tolist() == [0, 1, 10, 11, 100, 101, 110, 111]


def test_the_subsets_of_a_set_that_hold_its_first_task() -> None:
    assert sorted(subsets_with_first(0b10110).tolist()) == [0b00010, 0b00110, 0b10010, 0b10110]


@given(matrices())
def test_the_gain_of_a_group_is_what_it_adds_to_the_value(matrix: AffinityMatrix) -> None:
    values, alone = matrix.off_diagonal, self_affinities(matrix)
    gains, n = group_gains(values + values.T, alone), len(matrix.tasks)
    for mask in range(1, 2**n):
        inside = [matrix.tasks[i] for i in members(mask)]
        others = [[task] for task in matrix.tasks if task not in inside]
        rest = sum(alone[matrix.tasks.index(task)] for [task] in others)
        assert gains[mask] + rest == pytest.approx(n * value_of(matrix, [inside, *others]), abs=1e-9)


@given(st.integers(0, 5), st.data())
def test_the_best_halves_are_the_best_of_all_pairs_of_parts(p: int, data: st.DataObject) -> None:
    numbers = arrays(np.float64, 2**p, elements=st.floats(-100, 100))
    first, second = data.draw(numbers), data.draw(numbers)
    expected = [max(first[h] + second[b - h] for h in range(b + 1) if h & b == h) for b in range(2**p)]
    assert best_halves(first, second).tolist() == expected


def test_problems_too_large_for_one_gather_are_put_together_from_smaller_ones() -> None:
    rng, p = np.random.default_rng(0), LEAF_TASKS + 2
    first, second = rng.normal(size=2**p), rng.normal(size=2**p)
    best = best_halves(first, second)
    for b in [0, 1, 2**p - 1, *rng.integers(2**p, size=20).tolist()]:
        assert best[b] == max(first[h] + second[b - h] for h in range(b + 1) if h & b == h)


@given(st.integers(1, 6), st.data())
def test_the_exact_search_finds_the_best_partition_that_is_not_forbidden(n: int, data: st.DataObject) -> None:
    gains = data.draw(arrays(np.float64, 2**n, elements=st.floats(-100, 100) | st.just(-np.inf)))
    counts = data.draw(st.sets(st.integers(1, n), min_size=1))
    search = ExactSearch(gains, counts)
    for count in counts:
        totals = [sum(gains[sum(2**i for i in g)] for g in partition) for partition in partitions(n, count)]
        chosen = search.best([count])
        if max(totals) == -np.inf:
            assert chosen == ()
        else:
            assert len(chosen) == count
            assert sum(gains[mask] for mask in chosen) == pytest.approx(max(totals), abs=1e-9)
