"""Names beside points so that none covers another name or a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

GAP = 9.0  # points between a name and its point
# Where a name may stand, the preferred places first: the direction, and how the text is aligned to it.
SIDES: list[tuple[float, float, str, str]] = [
    (1, 0.6, "left", "bottom"), (1, -0.6, "left", "top"), (-1, 0.6, "right", "bottom"), (-1, -0.6, "right", "top"),
    (0, 1, "center", "bottom"), (0, -1, "center", "top"),
]  # fmt: skip
STEPS = (1.0, 1.8, 2.8, 4.0)  # farther away if all is taken near by
POINT = 7.0  # points around a marker that stay free


def place_labels(figure: Figure, axis: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each name of ``points`` (x, y, name, colour) where it covers least; its point is near by."""
    FigureCanvasAgg(figure).draw()  # a layout decides where points lie
    figure.set_layout_engine("none")  # and has to stay: names are placed by it
    dots = figure.dpi / 72
    taken = [_around(axis.transData.transform((x, y)), POINT * dots) for x, y, _, _ in points]
    inside = axis.get_window_extent()
    for x, y, name, colour in points:
        best: tuple[float, Any, Bbox] | None = None
        for step in STEPS:
            for dx, dy, ha, va in SIDES:
                text = axis.annotate(
                    name, (x, y), xytext=(dx * GAP * step, dy * GAP * step), textcoords="offset points",
                    ha=ha, va=va, fontsize=9, color=colour,
                )  # fmt: skip
                box = text.get_window_extent()
                cost = sum(_overlap(box, other) for other in taken) + 4 * _outside(box, inside)
                if best is None or cost < best[0]:
                    if best:
                        best[1].remove()
                    best = (cost, text, box)
                else:
                    text.remove()
            if best and best[0] == 0:
                break
        if best:
            taken.append(best[2])


def _around(center: Any, reach: float) -> Bbox:
    x, y = center
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _overlap(one: Bbox, other: Bbox) -> float:
    """The area that both cover, in square pixels."""
    width = float(min(one.x1, other.x1) - max(one.x0, other.x0))
    height = float(min(one.y1, other.y1) - max(one.y0, other.y0))
    return max(0.0, width) * max(0.0, height)


def _outside(box: Bbox, frame: Bbox) -> float:
    """The area of ``box`` that ``frame`` does not cover, in square pixels."""
    return float(box.width * box.height) - _overlap(box, frame)
