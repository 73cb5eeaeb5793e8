from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.split import MAX_TASKS, Split, SplitSearch, best_split, partitions, splits_by_number, value_of
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import COSINE, LETTERS, TAG, matrices, named, random_matrix

Groups = tuple[tuple[str, ...], ...]


def letters(text: str) -> Groups:
    return tuple(tuple(group) for group in text.split())


def every_split(matrix: AffinityMatrix, groups: int) -> list[Split]:
    named_groups = (
        tuple(tuple(matrix.tasks[i] for i in group) for group in partition)
        for partition in partitions(len(matrix.tasks), groups)
    )
    return [Split(value_of(matrix, partition), partition) for partition in named_groups]


def brute_force(matrix: AffinityMatrix, counts: range) -> list[Split]:
    """Every split, the best first."""
    return sorted((split for k in counts for split in every_split(matrix, k)), key=lambda split: -split.value)


@pytest.mark.parametrize(
    ("groups", "best", "value"),
    [
        (1, "sdnkt", 0.12929),
        (2, "sdn kt", 0.3217),
        (3, "sd n kt", 0.32535),
        (4, "s d n kt", 0.26925),
        (5, "s d n k t", 0.12929),
    ],
)
def test_the_published_matrix_splits_as_the_released_code_splits_it(groups: int, best: str, value: float) -> None:
    split = best_split(TAG, groups)
    assert split.groups == letters(best)
    assert split.value == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(("groups", "second", "value"), [(2, "sd nkt", 0.2185), (3, "s dn kt", 0.32139)])
def test_the_published_matrix_has_the_known_runner_up(groups: int, second: str, value: float) -> None:
    split = SplitSearch(TAG, groups).runner_up()
    assert split is not None
    assert split.groups == letters(second)
    assert split.value == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(
    ("groups", "best"), [(1, "sdnkt"), (2, "sdn kt"), (3, "sd n kt"), (4, "sd n kt"), (5, "sd n kt")]
)
def test_at_most_gives_fewer_groups_where_the_released_code_does(groups: int, best: str) -> None:
    assert best_split(TAG, groups, at_most=True).groups == letters(best)


@pytest.mark.parametrize(("groups", "best"), [(2, "sdn kt"), (3, "s dn kt"), (4, "s d n kt")])
def test_cosine_similarities_give_the_known_splits(groups: int, best: str) -> None:
    assert best_split(COSINE, groups).groups == letters(best)


def test_at_three_groups_cosines_swap_the_two_best_of_the_lookahead() -> None:
    lookahead, cosine = SplitSearch(TAG, 3), SplitSearch(COSINE, 3)
    assert (lookahead.best().groups, lookahead.runner_up()) == (letters("sd n kt"), every(TAG, "s dn kt"))
    assert (cosine.best().groups, cosine.runner_up()) == (letters("s dn kt"), every(COSINE, "sd n kt"))


def every(matrix: AffinityMatrix, text: str) -> Split:
    return Split(value_of(matrix, letters(text)), letters(text))


@given(matrices())
def test_all_in_one_and_all_alone_have_the_same_value(matrix: AffinityMatrix) -> None:
    n = len(matrix.tasks)
    together, alone = value_of(matrix, [matrix.tasks]), value_of(matrix, [[task] for task in matrix.tasks])
    assert together == pytest.approx(alone, abs=1e-10)
    assert together == pytest.approx(matrix.off_diagonal.sum() / max(n * (n - 1), 1), abs=1e-10)


@given(matrices(), st.data())
def test_no_split_is_better_than_the_best(matrix: AffinityMatrix, data: st.DataObject) -> None:
    groups, at_most = data.draw(st.integers(1, len(matrix.tasks))), data.draw(st.booleans())
    search = SplitSearch(matrix, groups, at_most)
    ranked = brute_force(matrix, range(1 if at_most else groups, groups + 1))
    best, runner_up = search.best(), search.runner_up()
    assert best.value == pytest.approx(ranked[0].value, abs=1e-10)
    assert best in ranked
    if len(ranked) == 1:
        assert runner_up is None
    else:
        assert runner_up in ranked
        assert runner_up != best
        assert runner_up is not None
        assert runner_up.value == pytest.approx(ranked[1].value, abs=1e-10)


@given(matrices(), st.data())
def test_an_exact_split_is_proven_to_be_the_best(matrix: AffinityMatrix, data: st.DataObject) -> None:
    search = SplitSearch(matrix, data.draw(st.integers(1, len(matrix.tasks))), data.draw(st.booleans()))
    best, runner_up = search.best(), search.runner_up()
    assert best.optimal
    assert best.bound == best.value
    assert runner_up is None or not runner_up.optimal


@settings(deadline=None)
@given(matrices())
def test_the_splits_by_number_are_the_best_of_each_number(matrix: AffinityMatrix) -> None:
    splits = splits_by_number(matrix)
    assert splits == tuple(best_split(matrix, count) for count in range(1, len(matrix.tasks) + 1))
    assert all(split.optimal for split in splits)


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.data())
def test_of_the_splits_that_keep_the_limits_the_best_is_found(n: int, seed: int, data: st.DataObject) -> None:
    matrix = random_matrix(n, seed)
    heads = {task: float(cost) for task, cost in zip(matrix.tasks, data.draw(head_costs(n)), strict=True)}
    limit = GroupLimit(
        "memory", Costs(3, heads), 3 + data.draw(st.integers(max(map(int, heads.values()), default=1), 20))
    )
    groups = data.draw(st.integers(1, n))
    fitting = [
        split
        for split in brute_force(matrix, range(groups, groups + 1))
        if all(limit.costs.of(group) <= limit.allowed for group in split.groups)
    ]
    if fitting:
        assert best_split(matrix, groups, limits=[limit]).value == pytest.approx(fitting[0].value, abs=1e-10)
        return
    fewest = next(
        k
        for k in range(groups, n + 1)
        if any(all(limit.costs.of(group) <= limit.allowed for group in s.groups) for s in every_split(matrix, k))
    )
    with pytest.raises(JobError, match=rf"limit of memory .*the smallest number that fits is {fewest};"):
        best_split(matrix, groups, limits=[limit])


def head_costs(n: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 9), min_size=n, max_size=n)


@given(matrices(), st.data())
def test_a_split_is_a_partition_in_task_order(matrix: AffinityMatrix, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(matrix.tasks)))
    split = best_split(matrix, groups)
    positions = [[matrix.tasks.index(task) for task in group] for group in split.groups]
    assert len(split.groups) == groups
    assert sorted(i for group in positions for i in group) == list(range(len(matrix.tasks)))
    assert positions == sorted(sorted(group) for group in positions)


@given(st.integers(2, 7), st.integers(0, 10**6), st.data())
def test_the_order_of_the_tasks_does_not_matter(n: int, seed: int, data: st.DataObject) -> None:
    matrix = random_matrix(n, seed)
    groups, order = data.draw(st.integers(1, n)), data.draw(st.permutations(range(n)))
    shuffled = AffinityMatrix(tuple(matrix.tasks[i] for i in order), matrix.values[np.ix_(order, order)])
    first, second = best_split(matrix, groups), best_split(shuffled, groups)
    assert second.value == pytest.approx(first.value, abs=1e-12)
    assert {frozenset(group) for group in second.groups} == {frozenset(group) for group in first.groups}


@given(matrices(2), st.data())
def test_the_diagonal_does_not_matter(matrix: AffinityMatrix, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(matrix.tasks)))
    other = AffinityMatrix(matrix.tasks, matrix.off_diagonal + np.diag(np.full(len(matrix.tasks), 1e30)))
    assert best_split(other, groups) == best_split(matrix, groups)


def test_source_and_recipient_count_alike_inside_a_group() -> None:
    transposed = AffinityMatrix(LETTERS, TAG.values.T)
    assert best_split(transposed, 2).groups == best_split(TAG, 2).groups


def test_ties_go_to_the_fewest_groups_then_to_the_first_in_order() -> None:
    indifferent = named(np.full((4, 4), 0.1))
    assert best_split(indifferent, 2).groups == (("task0",), ("task1", "task2", "task3"))
    assert best_split(indifferent, 3).groups == (("task0",), ("task1",), ("task2", "task3"))
    assert best_split(indifferent, 4, at_most=True).groups == (indifferent.tasks,)


@pytest.mark.parametrize("values", [np.zeros((3, 3)), np.full((3, 3), -1e99), np.full((3, 3), 5e-324)])
def test_extreme_values_are_split_like_any_other(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    assert len(best_split(named(values), 2).groups) == 2


def test_a_single_task_is_one_group_of_value_zero() -> None:
    assert best_split(named(np.array([[7.0]])), 1) == Split(0.0, (("task0",),))


def test_two_planted_clusters_are_found_among_fourteen_tasks() -> None:
    cluster = np.arange(14) * 5 % 2
    values = np.where(cluster[:, None] == cluster, 0.2, -0.1) + 0.01 * random_matrix(14, 0).values
    split = best_split(named(values), 2)
    assert split.groups == tuple(tuple(f"task{i}" for i in range(14) if cluster[i] == c) for c in (0, 1))


@pytest.mark.parametrize("groups", [2, 3, 5, 8, 20, 21])
def test_beyond_the_exact_search_a_planted_split_is_found_with_a_bound_close_above_it(groups: int) -> None:
    cluster = np.arange(22) % groups
    values = np.where(cluster[:, None] == cluster, 0.2, -0.1) + 0.005 * random_matrix(22, 0).values
    split = best_split(named(values), groups)
    assert split.groups == tuple(tuple(f"task{i}" for i in range(22) if cluster[i] == c) for c in range(groups))
    together = value_of(named(values), [[f"task{i}" for i in range(22)]])
    assert split.bound is not None
    assert split.value <= split.bound <= split.value + 0.05 * (split.value - together)


@pytest.mark.parametrize("groups", [1, 30])
def test_where_there_is_only_one_split_it_is_proven_for_any_number_of_tasks(groups: int) -> None:
    assert best_split(random_matrix(30, 1), groups).optimal


def test_at_most_is_no_worse_than_exactly_beyond_the_exact_search() -> None:
    matrix = random_matrix(21, 3)
    at_most = best_split(matrix, 5, at_most=True)
    assert at_most.value >= best_split(matrix, 5).value
    assert at_most.bound is not None
    assert at_most.bound >= at_most.value


def test_the_largest_number_of_tasks_is_split() -> None:
    matrix = random_matrix(MAX_TASKS, 5)
    search = SplitSearch(matrix, 40)
    best, runner_up = search.best(), search.runner_up()
    assert len(best.groups) == 40
    assert runner_up is not None
    assert runner_up.groups != best.groups
    assert runner_up.value <= best.value
    assert best.bound is not None
    assert value_of(matrix, best.groups) == best.value <= best.bound


def test_limits_hold_beyond_the_exact_search() -> None:
    matrix = random_matrix(25, 2)
    limit = GroupLimit("parameters", Costs(100, dict.fromkeys(matrix.tasks, 10.0)), 150)  # five heads a group
    split = best_split(matrix, 5, limits=[limit])
    assert [len(group) for group in split.groups] == [5] * 5
    assert split.bound is not None
    assert split.bound >= split.value
    with pytest.raises(JobError, match=r"25 tasks into 4 groups within the limit of parameters .* that fits is 5"):
        best_split(matrix, 4, limits=[limit])


@pytest.mark.parametrize("groups", [-1, 0, 6])
def test_a_number_of_groups_that_cannot_be_is_refused(groups: int) -> None:
    with pytest.raises(JobError, match=f"cannot split 5 tasks into {groups} groups: expected .* from 1 to 5"):
        best_split(TAG, groups)


def test_more_tasks_than_the_search_handles_are_refused() -> None:
    with pytest.raises(JobError, match=f"has {MAX_TASKS + 1} tasks: the search handles at most {MAX_TASKS}"):
        best_split(random_matrix(MAX_TASKS + 1, 0), 2)


@pytest.mark.parametrize("groups", ["sd nk", "sd nkt t", "sdnktx", ""])
def test_groups_that_are_no_partition_have_no_value(groups: str) -> None:
    with pytest.raises(JobError, match="in exactly one group"):
        value_of(TAG, letters(groups))


def test_an_empty_group_has_no_value() -> None:
    with pytest.raises(JobError, match="no empty group"):
        value_of(TAG, [LETTERS, ()])


@pytest.mark.parametrize(("n", "k", "count"), [(0, 0, 1), (3, 0, 0), (3, 4, 0), (5, 2, 15), (7, 3, 301), (9, 4, 7770)])
def test_there_are_as_many_partitions_as_the_stirling_number(n: int, k: int, count: int) -> None:
    assert sum(1 for _ in partitions(n, k)) == count


def test_partitions_are_distinct_and_complete() -> None:
    found = [partition for k in range(8) for partition in partitions(7, k)]
    assert len(set(found)) == len(found) == 877  # Bell(7)
    for partition in found:
        assert math.prod(len(group) for group in partition) > 0
        assert sorted(i for group in partition for i in group) == list(range(7))
        assert list(partition) == sorted(partition)
