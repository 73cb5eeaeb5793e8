"""The pictures: what is in them, and that no name covers another."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from mas_edge.simulation.compare import Compared
from mas_edge.simulation.heatmaps import draw_heatmaps
from mas_edge.simulation.labels import place_labels
from mas_edge.simulation.plots import draw_all
from mas_edge.simulation.ranks import RankedSplit, Ranking
from tests.simulation.outcomes import comparison, outcome

TASKS = ["a", "b"]
OUTCOMES = {
    (method, seed): outcome([0.5 + 0.01 * seed, 1.0], 10.0 + number)
    for number, method in enumerate(["one-by-one", "mas-2"])
    for seed in (0, 1)
}


def result(method: str, rounds: int, groups: list[list[str]]) -> dict[str, Any]:
    """What pictures read of a result: affinities of ``rounds`` merged rounds, and the groups."""
    records = [
        {"kind": "train", "group": "merged", "index": index, "affinity": [[0.0, index + 1.0], [-1.0, 0.0]]}
        for index in range(rounds)
    ]
    return {
        "job": {"method": {"name": method}},
        "split": {"groups": groups, "serves": groups},
        "affinity": {"tasks": TASKS, "matrix": [[0.0, 1.0], [-1.0, 0.0]]} if rounds else None,
        "rounds": [*records, {"kind": "train", "group": "group-0", "index": rounds, "affinity": None}],
    }


def compared(rounds: int = 3) -> Compared:
    results = {
        (method, seed): result(method.partition("-")[0], rounds if method == "mas-2" else 0, [TASKS])
        for method, seed in OUTCOMES
    }
    return Compared(comparison(OUTCOMES), results, [])


def test_every_picture_that_has_something_to_show_is_drawn(tmp_path: Path) -> None:
    assert list(draw_all(compared(), tmp_path)) == ["teaser.png", "per-task.png", "affinity.png", "splits.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in draw_all(compared(), tmp_path))


def test_a_picture_of_nothing_is_taken_away(tmp_path: Path) -> None:
    draw_all(compared(), tmp_path)
    assert "affinity.png" not in draw_all(compared(rounds=0), tmp_path)
    assert not (tmp_path / "affinity.png").exists()


def test_ranked_splits_have_a_picture(tmp_path: Path) -> None:
    splits = [RankedSplit(groups=[TASKS], normalised=1.0, raw=1.0, value=0.5)]
    ranking = Ranking(groups=1, seed=0, splits=splits, normalised_spearman=None, raw_spearman=None)
    whole = compared()
    whole.comparison.rankings.append(ranking)
    assert "ranks.png" in draw_all(whole, tmp_path)


@pytest.mark.parametrize(
    ("rounds", "titles"),
    [
        (1, ["round 1", "mean"]),
        (5, ["round 1", "round 2", "round 3", "round 4", "round 5", "mean"]),
        (13, ["round 1", "round 4", "round 7", "round 10", "round 13", "mean"]),
    ],
)
def test_heat_maps_show_the_first_round_the_last_and_some_between(rounds: int, titles: list[str]) -> None:
    figure = draw_heatmaps(result("mas", rounds, [TASKS]), "a run", dpi=50)
    shown = [axis.get_title() for axis in figure.axes if axis.get_visible()]
    assert [title.partition(":")[0].replace(" of all rounds", "") for title in shown] == titles


def test_the_mean_s_groups_are_framed_if_they_are_a_partition() -> None:
    for groups, frames in (([["a"], ["b"]], 2), ([["b", "a"]], 1), ([["a", "b"], ["b"]], 0)):
        mean = draw_heatmaps(result("mas", 2, groups), "a run", dpi=50).axes[2]
        assert len(mean.patches) == frames


def test_tasks_stand_in_the_order_of_the_groups() -> None:
    axis = draw_heatmaps(result("mas", 1, [["b"], ["a"]]), "a run", dpi=50).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a"]
    shown = np.asarray(axis.images[0].get_array())
    assert (shown[0, 1], shown[1, 0]) == (-1.0, 1.0)  # of b on a, and of a on b


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=6))
def test_no_name_covers_another(places: list[tuple[float, float]]) -> None:
    figure = Figure(figsize=(6.4, 4.4), dpi=60)
    axis = figure.subplots()
    axis.set_xlim(-2, 12)
    axis.set_ylim(-0.2, 1.2)
    place_labels(figure, axis, [(x, y, f"method-{n}", "#000000") for n, (x, y) in enumerate(places)], [])
    FigureCanvasAgg(figure).draw()
    boxes = [Text.get_window_extent(text) for text in axis.texts]  # without the leader of one that is far
    assert len(boxes) == len(places)
    for one, other in combinations(boxes, 2):
        width, height = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(width, height) <= 0.5, "names overlap"
