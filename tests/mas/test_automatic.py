from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.automatic import choose_split, gain_error
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.split import best_split, value_of
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import COSINE, LETTERS, TAG, matrices, named, random_matrix


def heads_of(matrix: AffinityMatrix, encoder: float = 1.0, head: float = 0.1) -> Costs:
    return Costs(encoder, dict.fromkeys(matrix.tasks, head))


def planted(n: int, clusters: int, noise: float = 0.0, seed: int = 0) -> AffinityMatrix:
    cluster = np.arange(n) % clusters
    values = np.where(cluster[:, None] == cluster, 0.3, 0.05)
    return named(values + noise * np.random.default_rng(seed).normal(size=(n, n)))


@pytest.mark.parametrize("matrix", [TAG, COSINE])
def test_the_published_matrices_pay_for_two_groups(matrix: AffinityMatrix) -> None:
    choice = choose_split(matrix, heads_of(matrix), share=0.7)
    assert choice.split.groups == (("s", "d", "n"), ("k", "t"))
    assert [row.groups for row in choice.candidates if row.chosen] == [2]
    assert choice.reason.startswith("2 groups gain ")


def test_the_table_of_the_published_matrix() -> None:
    # An encoder of 1 and five heads of .1: merged 1.5, N groups N + .5, of which the groups train for 70 %.
    rows = choose_split(TAG, heads_of(TAG), share=0.7).candidates
    assert [row.groups for row in rows] == [1, 2, 3, 4, 5]
    assert [row.gain for row in rows] == pytest.approx([0, 0.1924, 0.1961, 0.1400, 0], abs=1e-4)
    assert [row.cost for row in rows] == pytest.approx([0.3 + 0.7 * (n + 0.5) / 1.5 for n in range(1, 6)])
    assert [row.noise for row in rows] == [0.0] * 5
    assert [row.split.value for row in rows] == [best_split(TAG, n).value for n in range(1, 6)]


@pytest.mark.parametrize(("n", "clusters"), [(6, 2), (6, 3), (9, 3), (12, 2), (12, 3), (12, 4)])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_as_many_groups_pay_as_were_planted(n: int, clusters: int, noise: float) -> None:
    matrix = planted(n, clusters, noise)
    choice = choose_split(matrix, heads_of(matrix), share=0.7, errors=np.full((n, n), noise))
    assert len(choice.split.groups) == clusters


def test_affinities_that_are_all_the_same_pay_for_no_split() -> None:
    matrix = named(np.full((5, 5), 0.2))
    choice = choose_split(matrix, heads_of(matrix), share=0.7)
    assert len(choice.split.groups) == 1
    assert choice.reason == "no split gains anything over all in one: stay with 1 group"


def test_pure_noise_seldom_pays_for_a_split_once_its_size_is_known() -> None:
    with_errors, without = 0, 0
    for seed in range(40):
        matrix = named(0.2 + 0.05 * np.random.default_rng(seed).normal(size=(5, 5)))
        with_errors += len(choose_split(matrix, heads_of(matrix), 0.7, np.full((5, 5), 0.05)).split.groups) > 1
        without += len(choose_split(matrix, heads_of(matrix), 0.7).split.groups) > 1
    assert with_errors <= 10
    assert without >= 38


def test_larger_heads_make_more_groups_pay() -> None:
    # Three clear groups, but two of them nearly one: two groups are nearly as good.
    cluster = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    close = np.where(np.minimum.outer(cluster, cluster) >= 1, 0.24, 0.0)
    matrix = named(np.where(cluster[:, None] == cluster, 0.3, close))
    encoder_heavy = choose_split(matrix, heads_of(matrix, 1.0, 0.05), share=0.7)
    head_heavy = choose_split(matrix, heads_of(matrix, 1.0, 5.0), share=0.7)
    assert (len(encoder_heavy.split.groups), len(head_heavy.split.groups)) == (2, 3)


def test_numbers_of_groups_that_do_not_fit_are_left_out() -> None:
    limit = GroupLimit("parameters", Costs(100.0, dict.fromkeys(LETTERS, 10.0)), 120.0)  # two heads a group
    choice = choose_split(TAG, heads_of(TAG), share=0.7, limits=[limit])
    assert [row.groups for row in choice.candidates] == [3, 4, 5]
    assert choice.split.groups == (("s", "d"), ("n",), ("k", "t"))


def test_where_no_split_gains_the_limits_decide() -> None:
    matrix = named(np.where(np.eye(3), 0.0, np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])))
    limit = GroupLimit("parameters", Costs(1.0, dict.fromkeys(matrix.tasks, 1.0)), 3.0)
    choice = choose_split(matrix, heads_of(matrix), share=0.7, limits=[limit])
    assert len(choice.split.groups) == 2
    assert "the best that fit the limits" in choice.reason


def test_the_noise_is_that_of_the_best_of_all_splits_of_a_number() -> None:
    errors = np.full((5, 5), 0.02)
    row = choose_split(TAG, heads_of(TAG), 0.7, errors).candidates[1]
    assert row.noise == pytest.approx(gain_error(TAG, row.split.groups, errors) * math.sqrt(2 * math.log(15)))


@settings(deadline=None)
@given(matrices(1, 6), st.data())
def test_the_error_of_a_gain_is_that_of_a_linear_form(matrix: AffinityMatrix, data: st.DataObject) -> None:
    n = len(matrix.tasks)
    split = best_split(matrix, data.draw(st.integers(1, n)))

    def gain(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        changed = AffinityMatrix(matrix.tasks, values)
        return value_of(changed, split.groups) - value_of(changed, [matrix.tasks])

    errors = np.random.default_rng(n).uniform(size=(n, n))
    units = [np.eye(n * n)[place].reshape(n, n) for place in range(n * n)]
    expected = math.sqrt(sum((gain(unit) * float((unit * errors).sum())) ** 2 for unit in units))
    assert gain_error(matrix, split.groups, errors) == pytest.approx(expected, abs=1e-12)


def test_a_single_task_stays_in_one_group() -> None:
    matrix = named(np.array([[3.0]]))
    assert choose_split(matrix, heads_of(matrix), share=0.7, errors=np.ones((1, 1))).split.groups == (("task0",),)


def test_beyond_the_exact_search_the_planted_groups_pay_too() -> None:
    matrix = planted(24, 4, 0.02)
    choice = choose_split(matrix, heads_of(matrix), share=0.7)
    assert len(choice.split.groups) == 4
    assert choice.split.bound is not None


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(JobError, match="share of the rounds after the split"):
        choose_split(TAG, heads_of(TAG), share)


@pytest.mark.parametrize("errors", [np.zeros((4, 4)), -np.ones((5, 5)), np.full((5, 5), np.nan)])
def test_errors_that_are_none_are_refused(errors: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(JobError, match="standard errors of the affinities: expected 5 x 5 numbers"):
        choose_split(TAG, heads_of(TAG), 0.7, errors)


def test_every_task_needs_a_cost() -> None:
    with pytest.raises(JobError, match="no cost for the head"):
        choose_split(random_matrix(3, 0), Costs(1.0, {}), 0.7)
