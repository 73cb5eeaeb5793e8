"""Affinity as it changes over the merged rounds: a heat map for some of them, and for the mean of all."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mas_edge.mas.merge import MERGED

Matrix = NDArray[np.float64]  # [n, n]: row = source, column = recipient

SHOWN = 5  # rounds beside the mean
NUMBERS = 9  # tasks up to which the values are written


def draw_heatmaps(result: dict[str, Any], title: str, dpi: int) -> Figure:
    """Return the picture of a run that measured affinity; tasks stand as its groups do, which the mean shows framed.

    Each panel is scaled by its own largest value: affinities shrink with the learning rate, their pattern is what
    counts. The diagonal plays no part and is left grey.
    """
    tasks, groups = result["affinity"]["tasks"], _partition(result)
    order = [tasks.index(task) for task in ([task for group in groups for task in group] or tasks)]
    named = [tasks[i] for i in order]
    panels = [(f"round {index + 1}", matrix) for index, matrix in _chosen(_rounds(result))]
    panels.append(("mean of all rounds", np.array(result["affinity"]["matrix"], np.float64)))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = max(2.0, 0.42 * len(tasks))
    figure = Figure(figsize=(size * columns + 2.4, (size + 0.5) * rows + 1.1), layout="constrained", dpi=dpi)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for number, (axis, (name, matrix)) in enumerate(zip(axes.flat, panels, strict=False)):
        mean = number == len(panels) - 1
        _panel(axis, matrix[np.ix_(order, order)], name, with_numbers=len(tasks) <= NUMBERS)
        bottom, left = number + columns >= len(panels), number % columns == 0
        axis.set_xticks(range(len(named)), named if bottom else [], rotation=40, ha="right", fontsize=7)
        axis.set_yticks(range(len(named)), named if left else [], fontsize=7)
        if mean:
            _frame(axis, [len(group) for group in groups])
    scale = "; numbers: tenths of the panel's largest" if len(tasks) <= NUMBERS else ""
    figure.suptitle(f"Affinity of {title}; frames: the groups{scale}", fontsize=10)
    figure.supxlabel("recipient: whose loss changes", fontsize=8)
    figure.supylabel("source: whose gradient steps", fontsize=8)
    return figure


def _partition(result: dict[str, Any]) -> list[list[str]]:
    """The groups of the run if each task is in one of them, else none: frames cannot show groups that overlap."""
    groups: list[list[str]] = result["split"]["groups"] if result["split"] else []
    named = [task for group in groups for task in group]
    return groups if sorted(named) == sorted(result["affinity"]["tasks"]) else []


def _rounds(result: dict[str, Any]) -> list[tuple[int, Matrix]]:
    """The mean over the devices of each merged round that measured, by its number."""
    return [
        (record["index"], np.array(record["affinity"], np.float64))
        for record in result["rounds"]
        if record["kind"] == "train" and record["group"] == MERGED and record["affinity"] is not None
    ]


def _chosen(rounds: list[tuple[int, Matrix]]) -> list[tuple[int, Matrix]]:
    """The first, the last, and some between, at equal distances."""
    if len(rounds) <= SHOWN:
        return rounds
    return [rounds[round(at)] for at in np.linspace(0, len(rounds) - 1, SHOWN)]


def _panel(axis: Axes, matrix: Matrix, title: str, with_numbers: bool) -> None:
    n = len(matrix)
    off = np.abs(matrix[~np.eye(n, dtype=bool)])
    reach = float(off.max()) if off.size and off.max() > 0 else 1.0
    axis.set_facecolor("#e6e6e6")
    axis.imshow(np.where(np.eye(n, dtype=bool), np.nan, matrix), cmap="RdBu", vmin=-reach, vmax=reach)
    for i in range(n if with_numbers else 0):
        for j in range(n):
            if i != j:
                colour = "w" if abs(matrix[i, j]) > 0.6 * reach else "#222222"
                tenths = round(matrix[i, j] / reach * 10)
                text = f"{tenths:+}".replace("-", "−") if tenths else "0"
                axis.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
    axis.set_title(f"{title}: largest {reach:.2g}", fontsize=8)


def _frame(axis: Axes, sizes: list[int]) -> None:
    start = 0
    for size in sizes:
        corner = (start - 0.5, start - 0.5)
        axis.add_patch(Rectangle(corner, size, size, fill=False, edgecolor="#111111", linewidth=2))
        start += size
