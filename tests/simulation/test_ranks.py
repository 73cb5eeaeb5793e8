"""The place of a split among all of its size, on losses made up so that it is known."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from mas_edge.protocol.errors import JobError
from mas_edge.simulation.pairs import rows_of
from mas_edge.simulation.ranks import place_of, ranking_of, split_ranks
from tests.simulation.outcomes import outcome

TASKS = ["a", "b", "c"]
# Of each task in each group of one or two. The normalised totals of the splits, a's halved, by hand and before they
# are divided by the number of tasks: ab|c 1 + 2 + 1, ac|b 1 + 1 + 3, bc|a 2 + 2 + 3.
LOSSES = {"a": [4.0], "b": [3.0], "c": [1.0], "ab": [2.0, 2.0], "ac": [2.0, 1.0], "bc": [2.0, 3.0]}


def result(losses: dict[str, list[float]] = LOSSES, affinity: list[list[float]] | None = None) -> dict[str, Any]:
    records = [
        {"kind": "evaluate", "phase": "group_evaluation", "outcome": "complete", "tasks": list(group),
         "losses": dict(zip(group, found, strict=True))}
        for group, found in losses.items()
    ]  # fmt: skip
    merged = {**records[0], "phase": "merged_evaluation", "tasks": TASKS, "losses": dict.fromkeys(TASKS, 99.0)}
    return {
        "job": {"tasks": [{"name": name, "unit": 10.0 if name == "c" else 1.0} for name in TASKS]},
        "constant_loss": {"a": 2.0, "b": 1.0},  # c has a loss of one's own: none is known
        "rounds": [merged, {**records[0], "outcome": "abandoned", "losses": {}}, *records],
        "affinity": None if affinity is None else {"tasks": TASKS, "matrix": affinity},
    }


def test_all_splits_are_there_the_best_first() -> None:
    ranking = ranking_of(result(), 2, seed=3)
    assert [split.groups for split in ranking.splits] == [[["a", "b"], ["c"]], [["a", "c"], ["b"]], [["a"], ["b", "c"]]]
    assert [split.normalised for split in ranking.splits] == pytest.approx([4 / 3, 5 / 3, 7 / 3])
    assert [split.raw for split in ranking.splits] == pytest.approx([2 + 2 + 10, 2 + 10 + 3, 4 + 2 + 30])
    assert (ranking.groups, ranking.seed, ranking.normalised_spearman) == (2, 3, None)


def test_the_affinity_is_correlated_with_the_totals() -> None:
    """a and b help each other most, b and c least: the affinity orders all three splits rightly."""
    ranking = ranking_of(result(affinity=[[0, 5, 3], [5, 0, 1], [3, 1, 0]]), 2, seed=0)
    values = [split.value for split in ranking.splits]
    assert values == sorted(values, key=lambda value: -(value or 0.0))
    assert ranking.normalised_spearman == pytest.approx(-1)
    assert ranking.raw_spearman == pytest.approx(-1)


@pytest.mark.parametrize(
    ("groups", "rank", "to_mean", "to_worst"),
    [
        ([["c"], ["b", "a"]], 1, 1 - 4 / (16 / 3), 1 - 4 / 7),
        ([["b"], ["a", "c"]], 2, 1 - 5 / (16 / 3), 1 - 5 / 7),
        ([["b", "c"], ["a"]], 3, 1 - 7 / (16 / 3), 0.0),
    ],
)
def test_a_split_has_a_place(groups: list[list[str]], rank: int, to_mean: float, to_worst: float) -> None:
    place = place_of(groups, ranking_of(result(), 2, seed=0), "normalised")
    assert (place.rank, place.of) == (rank, 3)
    assert [place.best, place.mean, place.worst] == pytest.approx([4 / 3, 16 / 9, 7 / 3])
    assert [place.margin_to_mean, place.margin_to_worst] == pytest.approx([to_mean, to_worst])


def test_only_splits_of_that_size_and_seed_have_a_place() -> None:
    outcomes = {
        ("mas-2", 0): outcome([1, 1], groups=[["a", "b"], ["c"]]),
        ("mas-2", 1): outcome([1, 1], groups=[["a", "b"], ["c"]]),
        ("mas-3", 0): outcome([1, 1], groups=[["a"], ["b"], ["c"]]),
        ("tag-2", 0): outcome([1, 1], groups=[["a", "b"], ["b", "c"]]),  # overlapping
    }
    found = split_ranks(rows_of(outcomes, "mas-2", {}), [ranking_of(result(), 2, seed=0)])
    assert [(rank.method, rank.seed, rank.raw.rank) for rank in found] == [("mas-2", 0, 1)]


def test_a_group_that_was_not_evaluated_is_missed() -> None:
    for left_out in map("".join, combinations(TASKS, 2)):
        losses = {group: found for group, found in LOSSES.items() if group != left_out}
        with pytest.raises(JobError, match=r"no loss of .* in group"):
            ranking_of(result(losses), 2, seed=0)
