"""The contact sheet: what a few rooms of several buildings look like, with every target beside the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mas_edge.datasets.rooms.scene import Building
from mas_edge.datasets.rooms.targets import BY_LETTER, TASKS, Array, targets_of, view

ROOMS = 2  # of each building
COLOURS = np.array(  # of the classes: wall, floor, ceiling, box, ball, column, picture, rug
    [[214, 204, 186], [150, 111, 79], [240, 240, 240], [31, 119, 180], [214, 39, 40], [44, 160, 44], [148, 103, 189],
     [255, 187, 60]], np.uint8,
)  # fmt: skip


def draw_sheet(buildings: list[Building], split: int, size: int, path: Path) -> None:
    """Write a PNG: a row for each of the first rooms of ``buildings``, a column for the picture and each task."""
    letters = "".join(kind.letter for kind in TASKS)
    figure = Figure(figsize=(1.3 * (len(letters) + 1), 1.3 * ROOMS * len(buildings) + 0.4), layout="constrained")
    axes = figure.subplots(ROOMS * len(buildings), len(letters) + 1, squeeze=False)
    for row, of in enumerate(buildings):
        seen = view(of, split, 0, ROOMS, size)
        targets = targets_of(seen, letters)
        for room in range(ROOMS):
            line = axes[ROOMS * row + room]
            _show(line[0], seen.picture[room].transpose(1, 2, 0), {})
            line[0].set_ylabel(f"building {of.number:02d}", fontsize=7)
            for axis, letter in zip(line[1:], letters, strict=True):
                image, style = _drawn(letter, targets[BY_LETTER[letter].name][room])
                _show(axis, image, style)
    for axis, title in zip(axes[0], ["picture", *(f"{kind.letter}  {kind.name}" for kind in TASKS)], strict=True):
        axis.set_title(title, fontsize=8)
    FigureCanvasAgg(figure).print_png(str(path))


def _show(axis: Any, image: Array, style: dict[str, Any]) -> None:
    axis.imshow(image, interpolation="nearest", **style)
    axis.set_xticks([])
    axis.set_yticks([])


def _drawn(letter: str, target: Array) -> tuple[Array, dict[str, Any]]:
    """A target [H, W] or [channels, H, W] as an image, and how matplotlib is to colour it."""
    if letter == "s":
        return COLOURS[target], {}
    if letter == "n":
        return target.transpose(1, 2, 0) / 2 + 0.5, {}
    if letter == "c":  # bulges red, hollows blue
        return target.sum(axis=0), {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    if letter == "a":
        return target.transpose(1, 2, 0), {}
    return target, {"cmap": "viridis" if letter == "d" else "gray"}
