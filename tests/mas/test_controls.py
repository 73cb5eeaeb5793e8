from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.controls import every_group, random_split, rank_of, ranked, stirling, worst_split
from mas_edge.mas.split import best_split, partitions, value_of
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import LETTERS, TAG, matrices


@given(matrices(), st.data())
def test_no_split_is_worse_than_the_worst(matrix: AffinityMatrix, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(matrix.tasks)))
    values = [
        value_of(matrix, [[matrix.tasks[i] for i in group] for group in split])
        for split in partitions(len(matrix.tasks), groups)
    ]
    worst = worst_split(matrix, groups)
    assert worst.value == pytest.approx(min(values), abs=1e-10)
    assert worst.value == pytest.approx(value_of(matrix, worst.groups), abs=1e-10)
    assert worst.bound == worst.value


def test_the_worst_split_of_the_published_matrix_tears_apart_what_helps_each_other() -> None:
    # dk, snt: d .0135, k .0134, s (.0489 + .0088) / 2, n (.1398 + .0765) / 2, t (.0567 + .0360) / 2.
    worst = worst_split(TAG, 2)
    assert {frozenset(group) for group in worst.groups} == {frozenset("dk"), frozenset("snt")}
    assert worst.value == pytest.approx((0.0135 + 0.0134 + 0.02885 + 0.10815 + 0.04635) / 5)


@given(st.integers(1, 9), st.integers(0, 10**6), st.data())
def test_a_random_split_is_a_partition_in_task_order(n: int, seed: int, data: st.DataObject) -> None:
    tasks, groups = list(range(n)), data.draw(st.integers(1, n))
    split = random_split(list(map(str, tasks)), groups, seed)
    assert split == random_split(list(map(str, tasks)), groups, seed)
    assert tuple(tuple(map(int, group)) for group in split) in set(partitions(n, groups))


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_every_split_is_drawn_as_often_as_every_other(groups: int) -> None:
    drawn, splits = 3000, list(partitions(5, groups))
    counts = Counter(random_split("01234", groups, seed) for seed in range(drawn))
    expected = drawn / len(splits)
    chi_square = sum((counts[tuple(tuple(map(str, g)) for g in split)] - expected) ** 2 / expected for split in splits)
    freedom = len(splits) - 1
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)  # four standard deviations above its mean


def test_a_random_split_of_many_tasks_has_the_number_of_groups_asked_for() -> None:
    assert len(random_split([str(i) for i in range(60)], 17, 1)) == 17


@given(st.integers(0, 9), st.integers(0, 10))
def test_the_stirling_number_counts_the_partitions(n: int, k: int) -> None:
    assert stirling(n, k) == sum(1 for _ in partitions(n, k)) if n <= 7 else stirling(n, k) >= 0


@pytest.mark.parametrize(("n", "k", "count"), [(9, 2, 255), (9, 3, 3025), (9, 4, 7770), (0, 0, 1), (3, 0, 0)])
def test_the_known_stirling_numbers(n: int, k: int, count: int) -> None:
    assert stirling(n, k) == count


def test_five_tasks_in_two_groups_have_thirty_groups() -> None:
    assert len(every_group(LETTERS, 2)) == 30


@given(st.integers(1, 7), st.data())
def test_every_group_is_one_of_a_partition_and_none_is_missing(n: int, data: st.DataObject) -> None:
    groups, tasks = data.draw(st.integers(1, n)), [str(i) for i in range(n)]
    occurring = {tuple(map(str, group)) for split in partitions(n, groups) for group in split}
    found = every_group(tasks, groups)
    assert len(set(found)) == len(found)
    assert set(found) == occurring


def losses_by_size(tasks: tuple[str, ...], groups: int) -> dict[frozenset[str], dict[str, float]]:
    return {
        frozenset(group): {task: len(group) + ord(task) / 1000 for task in group}
        for group in every_group(tasks, groups)
    }


def test_splits_are_ranked_by_the_losses_of_their_groups() -> None:
    # A task's loss is the size of its group: 2 x 2 + 2 x 2 = 8 for halves, 1 + 3 x 3 = 10 otherwise.
    ranking = ranked(tuple("abcd"), losses_by_size(tuple("abcd"), 2), 2)
    assert len(ranking) == 7
    names = sum(map(ord, "abcd")) / 1000
    assert [split.total - names for split in ranking] == pytest.approx([8, 8, 8, 10, 10, 10, 10])
    assert rank_of(["ab", "cd"], ranking) == rank_of([("d", "a"), ("c", "b")], ranking) == 1
    assert rank_of(["a", "bcd"], ranking) == 4


def test_the_rank_by_the_matrix_itself_is_first() -> None:
    losses = {}
    for group in every_group(LETTERS, 2):
        alone = [[task] for task in LETTERS if task not in group]
        gain = value_of(TAG, [group, *alone]) - value_of(TAG, [[task] for task in LETTERS])
        losses[frozenset(group)] = dict.fromkeys(group, -gain / len(group))
    ranking = ranked(LETTERS, losses, 2)
    best, worst = best_split(TAG, 2).groups, worst_split(TAG, 2).groups
    assert (rank_of(best, ranking), rank_of(worst, ranking), len(ranking)) == (1, 15, 15)


def test_what_cannot_be_ranked_is_refused() -> None:
    losses = losses_by_size(tuple("abc"), 2)
    with pytest.raises(JobError, match=r"no loss of 'b' in group \['b', 'c'\]"):
        ranked(tuple("abc"), losses | {frozenset("bc"): {"c": 1.0}}, 2)
    with pytest.raises(JobError, match=r"is not among the 3 that are ranked"):
        rank_of(["abc"], ranked(tuple("abc"), losses, 2))
    with pytest.raises(JobError, match=r"30 tasks have .* splits into 5 groups: expected at most"):
        ranked([str(i) for i in range(30)], {}, 5)


@pytest.mark.parametrize("groups", [0, 6])
def test_a_number_of_groups_that_cannot_be_is_refused(groups: int) -> None:
    refusal = f"cannot split 5 tasks into {groups} groups"
    with pytest.raises(JobError, match=refusal):
        random_split(LETTERS, groups, 0)
    with pytest.raises(JobError, match=refusal):
        every_group(LETTERS, groups)
