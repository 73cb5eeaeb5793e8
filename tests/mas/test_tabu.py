from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.mas import tabu
from mas_edge.mas.affinity import AffinityMatrix, self_affinities
from mas_edge.mas.bound import Relaxation, upper_bound
from mas_edge.mas.limits import fitting_sets, largest_groups
from mas_edge.mas.solvers import ExactSolver, TabuSolver, is_exact
from mas_edge.mas.split import splits_by_number, value_of
from mas_edge.mas.subsets import Floats
from mas_edge.mas.tabu import Labels, Problem
from tests.mas.matrices import matrices, named, random_matrix


def problem_of(matrix: AffinityMatrix, loads: Floats | None = None) -> Problem:
    n, values = len(matrix.tasks), matrix.off_diagonal
    return Problem(values + values.T, self_affinities(matrix), np.zeros((0, n)) if loads is None else loads)


def groups_of(matrix: AffinityMatrix, labels: Labels) -> list[list[str]]:
    return [[matrix.tasks[i] for i in np.flatnonzero(labels == group)] for group in range(int(labels.max()) + 1)]


@settings(max_examples=20, deadline=None)
@given(matrices(2), st.integers(0, 100), st.data())
def test_the_search_counts_in_the_objective(matrix: AffinityMatrix, seed: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(matrix.tasks)))
    labels = tabu.search(problem_of(matrix), groups, seed, starts=2)
    assert problem_of(matrix).value(labels) / len(labels) == pytest.approx(
        value_of(matrix, groups_of(matrix, labels)), abs=1e-9
    )


def test_the_search_alone_finds_nearly_every_optimum_of_random_matrices() -> None:
    found = []
    for n in (8, 12):
        matrix = random_matrix(n, n)
        optima = [split.value for split in splits_by_number(matrix)]
        for groups in range(2, n):
            labels = tabu.search(problem_of(matrix), groups, seed=0)
            found.append(value_of(matrix, groups_of(matrix, labels)) >= optima[groups - 1] - 1e-12)
    assert len(found) == 16
    assert sum(found) >= 15


@settings(max_examples=20, deadline=None)
@given(matrices(3, 7), st.data())
def test_both_solvers_agree_on_small_problems(matrix: AffinityMatrix, data: st.DataObject) -> None:
    n, problem = len(matrix.tasks), problem_of(matrix)
    low = data.draw(st.integers(1, n))
    counts = range(low, data.draw(st.integers(low, n)) + 1)
    exact, searched = ExactSolver(problem, counts), TabuSolver(problem, counts, seed=0)
    best, good = exact.best(counts), searched.best(counts)
    values = [value_of(matrix, [[matrix.tasks[i] for i in g] for g in groups]) for groups in (best, good)]
    assert values[1] == pytest.approx(values[0], abs=1e-9)
    second = searched.runner_up(counts)
    assert bool(second) == bool(exact.runner_up(counts))
    assert not second or sorted(second) != sorted(good)


def test_the_seed_decides_and_nothing_else() -> None:
    problem = problem_of(random_matrix(24, 0))
    assert tabu.search(problem, 5, seed=3).tolist() == tabu.search(problem, 5, seed=3).tolist()


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 9), st.integers(0, 10**6), st.data())
def test_no_group_is_over_a_limit_where_one_fits(n: int, seed: int, data: st.DataObject) -> None:
    matrix, groups = random_matrix(n, seed), data.draw(st.integers(1, n))
    loads = np.random.default_rng(seed).uniform(0.1, 0.6, size=(2, n))
    problem = problem_of(matrix, loads)
    best, good = ExactSolver(problem, [groups]).best([groups]), TabuSolver(problem, [groups], 0).best([groups])
    assert bool(best) == bool(good)
    fitting = fitting_sets(loads)
    assert all(fitting[sum(2**i for i in group)] for group in good)


@settings(deadline=None)
@given(matrices(2, 7), st.data())
def test_no_partition_exceeds_the_bound(matrix: AffinityMatrix, data: st.DataObject) -> None:
    n, problem = len(matrix.tasks), problem_of(matrix)
    groups, at_most, steps = data.draw(st.integers(1, n)), data.draw(st.booleans()), data.draw(st.integers(1, 60))
    counts = range(1 if at_most else groups, groups + 1)
    reached = problem.value(_labels(ExactSolver(problem, counts).best(counts)))
    largest = np.full(n, n if at_most else n - groups + 1)
    bound = upper_bound(Relaxation(problem.both_ways, problem.alone, largest, groups, at_most), reached, steps)
    assert bound >= reached - 1e-9 * (1 + abs(reached))


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 7), st.integers(0, 10**6), st.data())
def test_no_partition_that_keeps_the_limits_exceeds_the_bound(n: int, seed: int, data: st.DataObject) -> None:
    loads = np.random.default_rng(seed).uniform(0.1, 0.6, size=(2, n))
    problem, groups = problem_of(random_matrix(n, seed), loads), data.draw(st.integers(1, n))
    best = ExactSolver(problem, [groups]).best([groups])
    if best:
        reached = problem.value(_labels(best))
        relaxed = Relaxation(problem.both_ways, problem.alone, largest_groups(loads), groups)
        assert upper_bound(relaxed, reached, steps=30) >= reached - 1e-9
        assert TabuSolver(problem, [groups], 0).bound([groups], reached) >= reached - 1e-9


def _labels(groups: tuple[tuple[int, ...], ...]) -> Labels:
    labels = np.empty(sum(map(len, groups)), np.int64)
    for number, group in enumerate(groups):
        labels[list(group)] = number
    return labels


def test_the_bound_closes_most_of_the_gap_of_the_naive_one() -> None:
    problem = problem_of(random_matrix(12, 0))
    optimum = problem.value(_labels(ExactSolver(problem, [3]).best([3])))
    relaxed = Relaxation(problem.both_ways, problem.alone, np.full(12, 10), 3)
    naive, bound = upper_bound(relaxed, optimum, steps=1), upper_bound(relaxed, optimum)
    assert optimum <= bound <= optimum + (naive - optimum) / 3


def test_the_bound_is_tight_where_the_groups_are_clear() -> None:
    cluster = np.arange(24) % 4
    matrix = named(np.where(cluster[:, None] == cluster, 1.0, 0.0) + 0.02 * random_matrix(24, 0).values)
    problem = problem_of(matrix)
    reached = problem.value(cluster)
    relaxed = Relaxation(problem.both_ways, problem.alone, np.full(24, 21), 4)
    assert reached <= upper_bound(relaxed, reached) <= 1.001 * reached


@pytest.mark.parametrize(
    ("n", "counts", "exact"),
    [
        (16, range(1, 17), True),
        (18, range(1, 19), True),
        (20, [7], True),
        (20, [2], True),
        (20, range(1, 21), False),
        (21, [2], False),
    ],
)
def test_the_exact_search_is_taken_where_it_is_quick(n: int, counts: range | list[int], exact: bool) -> None:
    assert is_exact(n, counts) is exact
