"""The contact sheet: what a few rooms of several buildings look like, with every target beside the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mas_edge.datasets.rooms.scene import Building
from mas_edge.datasets.rooms.targets import BY_LETTER, TASKS, Array, targets_of, view

ROOMS = 2  # of each building
GAP = 3  # shown pixels between images
SHOWN = 128  # pixels along a side of each image on the sheet
DPI = 100
COLOURS = np.array(  # of the classes: wall, floor, ceiling, box, ball, column, picture, rug
    [[214, 204, 186], [150, 111, 79], [240, 240, 240], [31, 119, 180], [214, 39, 40], [44, 160, 44], [148, 103, 189],
     [255, 187, 60]],
) / 255  # fmt: skip

Colours = NDArray[np.float64]  # [H, W, 3] in [0, 1]


def draw_sheet(buildings: list[Building], split: int, size: int, path: Path) -> None:
    """Write a PNG: a row for each of the first rooms of ``buildings``, a column for the picture and each task."""
    letters = "".join(kind.letter for kind in TASKS)
    rows = [row for of in buildings for row in _rows(of, split, size, letters)]
    mosaic = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    pitch = SHOWN + GAP
    left, top = 40, 25  # pixels for the titles
    width, height = left + mosaic.shape[1], top + mosaic.shape[0]
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.figimage(mosaic, xo=left, yo=0, origin="upper", resize=False)
    for column, title in enumerate(["picture", *(f"{kind.letter}  {kind.name}" for kind in TASKS)]):
        at = (left + pitch * column + SHOWN / 2) / width
        figure.text(at, 1 - top / 2 / height, title, ha="center", va="center", fontsize=8)
    for number, of in enumerate(buildings):
        at = 1 - (top + pitch * ROOMS * (number + 0.5)) / height
        figure.text(
            left / 2 / width, at, f"building {of.number:02d}", rotation=90, ha="center", va="center", fontsize=8
        )
    FigureCanvasAgg(figure).print_png(str(path))


def _rows(of: Building, split: int, size: int, letters: str) -> list[list[Colours]]:
    """The tiles of one building, a list for each room."""
    seen = view(of, split, 0, ROOMS, size)
    targets = targets_of(seen, letters)
    return [
        [_tile(seen.picture[room].transpose(1, 2, 0))]
        + [_tile(_coloured(letter, targets[BY_LETTER[letter].name][room])) for letter in letters]
        for room in range(ROOMS)
    ]


def _tile(image: Array) -> Colours:
    """Enlarge to ``SHOWN`` pixels, with a white gap to the right and below."""
    index = np.arange(SHOWN) * len(image) // SHOWN
    return np.pad(image[index][:, index], [(0, GAP), (0, GAP), (0, 0)], constant_values=1).astype(np.float64)


def _coloured(letter: str, target: Array) -> Array:
    """A target [H, W] or [channels, H, W] as colours [H, W, 3]."""
    if letter == "s":
        return np.asarray(COLOURS[target])
    if letter == "n":
        return np.asarray(target.transpose(1, 2, 0) / 2 + 0.5)
    if letter == "a":
        return target.transpose(1, 2, 0)
    if letter == "c":  # bulges red, hollows blue
        return np.asarray(colormaps["RdBu_r"](np.clip(target.sum(axis=0) / 2 + 0.5, 0, 1))[..., :3])
    share = (target - target.min()) / max(float(np.ptp(target)), 1e-6)
    return np.asarray(colormaps["viridis" if letter == "d" else "gray"](share)[..., :3])
