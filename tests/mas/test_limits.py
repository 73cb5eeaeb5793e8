from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.mas.cost_table import costs_from_csv
from mas_edge.mas.limits import (
    Costs,
    GroupLimit,
    fewest_groups,
    fits,
    fitting_sets,
    largest_groups,
    loads_of,
    packed,
    surely_needed,
)
from mas_edge.mas.split import best_split, partitions, splits_by_number
from mas_edge.mas.subsets import members
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import LETTERS, TAG

HEADS = {"s": 5.0, "d": 4.0, "n": 3.0, "k": 2.0, "t": 1.0}
MEMORY = GroupLimit("memory", Costs(10.0, HEADS), 19.0)  # 9 for the heads of a group


def test_a_group_costs_its_encoder_and_its_heads() -> None:
    assert Costs(10.0, HEADS).of(["s", "t"]) == 16.0


@pytest.mark.parametrize(
    ("groups", "best"),
    [
        (2, "sd nkt"),  # sdn, kt is better and takes 12
        (3, "sd n kt"),
    ],
)
def test_a_group_over_its_limit_is_not_chosen(groups: int, best: str) -> None:
    assert best_split(TAG, groups, limits=[MEMORY]).groups == tuple(tuple(group) for group in best.split())


def test_what_fits_to_the_last_unit_fits() -> None:
    assert best_split(TAG, 1, limits=[GroupLimit("memory", Costs(10.0, HEADS), 25.0)]).groups == (LETTERS,)
    tenths = GroupLimit("step seconds", Costs(0.1, dict.fromkeys(LETTERS, 0.1)), 0.6)  # 5 x 0.1 + 0.1 is over 0.6
    assert best_split(TAG, 1, limits=[tenths]).groups == (LETTERS,)


def test_too_few_groups_for_a_limit_are_refused_with_the_resource_and_the_number_that_fits() -> None:
    roomy = GroupLimit("parameters", Costs(1.0, HEADS), 100.0)
    with pytest.raises(JobError) as caught:
        best_split(TAG, 1, limits=[roomy, MEMORY])
    assert str(caught.value) == (
        "cannot split 5 tasks into 1 group within the limit of memory (at most 19 a group): "
        "the smallest number that fits is 2; ask for 2 groups or more, or raise the limit"
    )


def test_limits_that_only_together_are_too_tight_are_named_together() -> None:
    # By memory s, d and n, k fill two groups; by time s, t and d, n, k fit. Together n goes with k only, and s, d, t
    # take 5 of the time.
    first = GroupLimit("memory", Costs(0.0, {"s": 2, "d": 2, "n": 3, "k": 1, "t": 0}), 4.0)
    second = GroupLimit("step time", Costs(0.0, {"s": 1, "d": 1, "n": 2, "k": 0, "t": 3}), 4.0)
    assert len(best_split(TAG, 2, limits=[first]).groups) == len(best_split(TAG, 2, limits=[second]).groups) == 2
    with pytest.raises(JobError, match=r"limit of memory .* and step time .*: the smallest number that fits is 3;"):
        best_split(TAG, 2, limits=[first, second])


def test_a_task_that_does_not_fit_alone_is_named() -> None:
    with pytest.raises(JobError, match=r"task 's' alone takes 15 memory \(10 of them .*\), and a group may take 14"):
        best_split(TAG, 5, limits=[GroupLimit("memory", Costs(10.0, HEADS), 14.0)])


def test_numbers_of_groups_that_cannot_fit_are_left_out() -> None:
    assert [len(split.groups) for split in splits_by_number(TAG, [MEMORY])] == [2, 3, 4, 5]


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_a_cost_that_is_no_cost_is_refused(cost: float) -> None:
    with pytest.raises(JobError, match="cost of the encoder"):
        Costs(cost, {})
    with pytest.raises(JobError, match="cost of s is"):
        Costs(0.0, {"s": cost})


@pytest.mark.parametrize("allowed", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_no_limit_is_refused(allowed: float) -> None:
    with pytest.raises(JobError, match="limit of memory"):
        GroupLimit("memory", Costs(0.0, {}), allowed)


def test_every_task_needs_a_cost() -> None:
    with pytest.raises(JobError, match="no cost for the head of 'd', 'n'"):
        best_split(TAG, 2, limits=[GroupLimit("memory", Costs(0.0, {"s": 1, "k": 1, "t": 1}), 9.0)])


def test_an_encoder_that_fills_the_limit_leaves_room_for_heads_that_cost_nothing() -> None:
    assert best_split(TAG, 1, limits=[GroupLimit("memory", Costs(9.0, dict.fromkeys(LETTERS, 0.0)), 9.0)]).optimal


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6))
def test_packing_agrees_with_trying_all(n: int, resources: int, seed: int) -> None:
    loads = np.random.default_rng(seed).integers(0, 9, size=(resources, n)) / 8
    fitting = fitting_sets(loads)
    groups = [sum(2**i for i in g) for k in range(1, n + 1) for g in itertools.combinations(range(n), k)]
    assert all(fitting[mask] == fits(loads, members(mask)) for mask in groups)
    fewest = next(k for k in range(1, n + 1) if any(all(fits(loads, g) for g in split) for split in partitions(n, k)))
    found = packed(loads)
    assert surely_needed(loads) <= fewest == fewest_groups(loads, exactly=True) <= len(found)
    assert fewest_groups(loads, exactly=False) == len(found)
    assert sorted(task for group in found for task in group) == list(range(n))
    assert all(fits(loads, group) for group in found)
    largest = largest_groups(loads)
    assert all(len(members(mask)) <= largest[list(members(mask))].min() for mask in groups if fitting[mask])


def test_loads_are_shares_of_the_room_beside_the_encoder() -> None:
    assert loads_of([MEMORY], ("s", "k"))[0] == pytest.approx([5 / 9, 2 / 9])
    assert loads_of([], ("s", "k")).shape == (0, 2)


def test_a_table_of_costs_is_read() -> None:
    text = "\ufeffpart, memory,seconds\nd,2,0.5\n\nencoder,10,1e0\ns,1,0\n"
    costs = costs_from_csv(text, ("s", "d"))
    assert costs == {"memory": Costs(10.0, {"s": 1.0, "d": 2.0}), "seconds": Costs(1.0, {"s": 0.0, "d": 0.5})}
    assert list(costs["memory"].heads) == ["s", "d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a header row"),
        ("part\nencoder\n", "expected a header row"),
        ("part,a,a\nencoder,1,1\n", "each resource named once"),
        ("part,a,\nencoder,1,1\n", "expected a header row"),
        ("part,a\nencoder,1\ns,1\n", "no row for 'd'"),
        ("part,a\ns,1\nd,1\n", "no row for 'encoder'"),
        ("part,a\nencoder,1\ns,1\ns,2\nd,1\n", "'s' has 2 rows"),
        ("part,a\nencoder,1\ns,1\nd,1\nx,1\n", "row 'x' is neither 'encoder' nor a task; the tasks are s, d"),
        ("part,a\nencoder,1\ns,1,2\nd,1\n", "row 's': expected 1 numbers, one for each resource, got 2"),
        ("part,a\nencoder,1\ns,-1\nd,1\n", "row 's', column 'a': expected a number of at least 0, got '-1'"),
        ("part,a\nencoder,1\ns,many\nd,1\n", "got 'many'"),
        ("part,a\nencoder,inf\ns,1\nd,1\n", "got 'inf'"),
        ("part,a\nencoder,1_0\ns,1\nd,1\n", "got '1_0'"),
        ('part,a\nencoder,"1\n', "not comma-separated values"),
    ],
)
def test_a_table_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(JobError, match=message):
        costs_from_csv(text, ("s", "d"))
