from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.overlap import MAX_OVERLAP_TASKS, TAG_ALONE, Selection, hoa_groups, tag_groups
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import COSINE, LETTERS, TAG, matrices, random_matrix

Losses = dict[frozenset[str], dict[str, float]]


def letters(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(group) for group in text.split())


@pytest.mark.parametrize(
    ("groups", "chosen", "serves", "value"),
    [
        # All in one: the means of four, onto s (.1154 + .0489 + .0045 + .0088) / 4, and so on.
        (1, "sdnkt", "sdnkt", (0.1776 + 0.7925 + 0.4478 + 0.7349 + 0.4331) / 4),
        # Onto s (.1154 + .0489) / 2, onto d (.4136 + .2914) / 2, onto n (.1398 + .2210) / 2; k .6897 and t .3037.
        (2, "sdn kt", "sdn kt", 0.08215 + 0.3525 + 0.1804 + 0.6897 + 0.3037),
        # Task d is in two groups: n is better off with d alone (.2210) than with s and d, and d with s (.4136).
        (3, "sd dn kt", "sd n kt", 0.1154 + 0.4136 + 0.2210 + 0.6897 + 0.3037),
        (4, "sd dn kt", "sd n kt", 1.7434),  # every task has its best partner already: a fourth group serves nobody
    ],
)
def test_tag_on_its_published_matrix(groups: int, chosen: str, serves: str, value: float) -> None:
    selection = tag_groups(TAG, groups)
    assert (selection.groups, selection.serves) == (letters(chosen), letters(serves))
    assert selection.value == pytest.approx(value, abs=1e-9)


def test_tag_on_the_published_cosines() -> None:
    # d and n help each other most (.9116 both ways), s gets most from d (.2596): d is in two groups.
    selection = tag_groups(COSINE, 3)
    assert (selection.groups, selection.serves) == (letters("sd dn kt"), letters("s dn kt"))
    assert selection.value == pytest.approx(0.2596 + 2 * 0.9116 + 2 * 2.968)


def best_tag_value(matrix: AffinityMatrix, count: int) -> float:
    """By trying every family of at most ``count`` groups."""
    n, values = len(matrix.tasks), matrix.off_diagonal
    scores = {}
    for size in range(1, n + 1):
        for group in itertools.combinations(range(n), size):
            for j in group:
                alone = TAG_ALONE if n > 1 else 0.0
                scores[group, j] = sum(values[i, j] for i in group) / (size - 1) if size > 1 else alone
    groups = sorted({group for group, _ in scores})
    families = (f for k in range(1, count + 1) for f in itertools.combinations(groups, k))
    return max(
        sum(max((scores[g, j] for g in family if j in g), default=-np.inf) for j in range(n)) for family in families
    )


@settings(deadline=None)
@given(matrices(1, 4), st.data())
def test_tag_finds_the_best_of_all_families_of_groups(matrix: AffinityMatrix, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, min(3, len(matrix.tasks))))
    selection = tag_groups(matrix, groups)
    assert selection.value == pytest.approx(best_tag_value(matrix, groups), abs=1e-9)
    check(selection, matrix.tasks, groups)
    assert all(len(group) > 1 for group in selection.groups) or len(matrix.tasks) == 1


def check(selection: Selection, tasks: tuple[str, ...], groups: int) -> None:
    """Every task is served once, by a group that holds it, and every group serves somebody."""
    assert 1 <= len(selection.groups) == len(selection.serves) <= groups
    assert sorted(task for served in selection.serves for task in served) == sorted(tasks)
    for group, served in zip(selection.groups, selection.serves, strict=True):
        assert served
        assert set(served) <= set(group)


def test_tag_never_gets_worse_by_one_more_group() -> None:
    matrix = random_matrix(9, 0)
    values = [tag_groups(matrix, groups).value for groups in range(1, 10)]
    assert values == sorted(values)


# Measured by hand: b helps a (1.0 -> 0.8), c harms a (1.2), a helps b (0.9), c harms b (1.1), a helps c (0.7), b harms
# c (1.3).
BY_HAND: Losses = {
    frozenset("a"): {"a": 1.0}, frozenset("b"): {"b": 1.0}, frozenset("c"): {"c": 1.0},
    frozenset("ab"): {"a": 0.8, "b": 0.9}, frozenset("ac"): {"a": 1.2, "c": 0.7}, frozenset("bc"): {"b": 1.1, "c": 1.3},
}  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "chosen", "serves", "value"),
    [
        # The mean of the pairs: a (.8 + 1.2) / 2, b (.9 + 1.1) / 2, c (.7 + 1.3) / 2, each 1.
        (1, "abc", "abc", 3.0),
        # ab and ac: a is served by ab, and helps c in ac without being served there: .8 + .9 + .7. Without overlap the
        # best is ab and c: .8 + .9 + 1.
        (2, "ab ac", "ab c", 2.4),
        (3, "ab ac", "ab c", 2.4),
    ],
)
def test_hoa_on_a_case_worked_by_hand(groups: int, chosen: str, serves: str, value: float) -> None:
    selection = hoa_groups(("a", "b", "c"), BY_HAND, groups)
    assert (selection.groups, selection.serves) == (letters(chosen), letters(serves))
    assert selection.value == pytest.approx(value)


def test_hoa_leaves_a_task_alone_that_everybody_harms() -> None:
    # c loses beside a (1.4) and beside b (1.3), and has 1 alone. a has .7 beside c, but with two groups c is alone and
    # ab serves a and b: .8 + .9 + 1. A third group serves a beside c.
    losses = BY_HAND | {frozenset("ac"): {"a": 0.7, "c": 1.4}}
    two, three = (hoa_groups(("a", "b", "c"), losses, groups) for groups in (2, 3))
    assert (two.groups, two.serves) == (letters("ab c"), letters("ab c"))
    assert two.value == pytest.approx(2.7)
    assert (three.groups, three.serves) == (letters("ac ab c"), letters("a b c"))
    assert three.value == pytest.approx(2.6)


def predicted(losses: Losses, group: tuple[str, ...], task: str) -> float:
    if len(group) == 1:
        return losses[frozenset(group)][task]
    return float(np.mean([losses[frozenset((i, task))][task] for i in group if i != task]))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 10**6), st.data())
def test_hoa_finds_the_best_of_all_families_of_groups(n: int, seed: int, data: st.DataObject) -> None:
    rng, tasks = np.random.default_rng(seed), LETTERS[:n]
    losses = {
        frozenset(group): {task: float(rng.uniform()) for task in group}
        for size in (1, 2)
        for group in itertools.combinations(tasks, size)
    }
    count = data.draw(st.integers(1, min(3, n)))
    groups = [g for size in range(1, n + 1) for g in itertools.combinations(tasks, size)]
    best = min(
        sum(min((predicted(losses, g, task) for g in family if task in g), default=np.inf) for task in tasks)
        for k in range(1, count + 1)
        for family in itertools.combinations(groups, k)
    )
    selection = hoa_groups(tasks, losses, count)
    assert selection.value == pytest.approx(best)
    check(selection, tasks, count)


@pytest.mark.parametrize("groups", [0, 6])
def test_a_number_of_groups_that_cannot_be_is_refused(groups: int) -> None:
    with pytest.raises(JobError, match=f"cannot split 5 tasks into {groups} groups: expected .* from 1 to 5"):
        tag_groups(TAG, groups)


def test_too_many_tasks_are_refused() -> None:
    with pytest.raises(JobError, match=f"the search handles at most {MAX_OVERLAP_TASKS}"):
        tag_groups(random_matrix(MAX_OVERLAP_TASKS + 1, 0), 2)


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_a_loss_that_was_not_measured_is_named(loss: float | None) -> None:
    pair = {"a": 1.2} | ({} if loss is None else {"c": loss})
    with pytest.raises(JobError, match=r"loss of task 'c' in group \['a', 'c'\] is .*: expected a finite number"):
        hoa_groups(("a", "b", "c"), BY_HAND | {frozenset("ac"): pair}, 2)
