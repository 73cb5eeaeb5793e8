"""Names beside points so that none covers another name or a point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
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
POINT, LINE = 7.0, 2.0  # points around a marker, and beside a line, that stay free
LINE_COSTS = 0.3  # how bad it is to cover a line, beside covering a name or a marker

Place = tuple[float, float]


def place_labels(
    figure: Figure, axis: Axes, points: Sequence[tuple[float, float, str, str]], lines: Sequence[tuple[Place, Place]]
) -> None:
    """Write each name of ``points`` (x, y, name, colour) where it covers least; its point is near by.

    ``lines``: from where to where others are drawn; names keep off them where they can.
    """
    FigureCanvasAgg(figure).draw()  # a layout decides where points lie
    figure.set_layout_engine("none")  # and has to stay: names are placed by it
    dots = figure.dpi / 72
    taken = [_around(axis.transData.transform((x, y)), POINT * dots) for x, y, _, _ in points]
    thin = [box for line in lines for box in _along(axis.transData.transform(line), LINE * dots)]
    inside = axis.get_window_extent()
    for x, y, name, colour in points:
        best: tuple[float, dict[str, Any], Bbox] | None = None
        for step, side in product(STEPS, SIDES):
            look = {**_stand(side, step), "color": colour, "fontsize": 9, "zorder": 4}
            text = axis.annotate(name, (x, y), **look)
            box = text.get_window_extent()
            text.remove()
            cost = sum(_overlap(box, other) for other in taken) + 4 * _outside(box, inside)
            cost += LINE_COSTS * sum(_overlap(box, other) for other in thin) + step  # all else equal: near by
            if best is None or cost < best[0]:
                best = (cost, {**look, "arrowprops": _leader(colour) if step > 1 else None}, box)
        if best:
            axis.annotate(name, (x, y), **best[1])
            taken.append(best[2])


def _stand(side: tuple[float, float, str, str], step: float) -> dict[str, Any]:
    dx, dy, ha, va = side
    return {"xytext": (dx * GAP * step, dy * GAP * step), "textcoords": "offset points", "ha": ha, "va": va}


def _leader(colour: str) -> dict[str, Any]:
    """A thin line from a name that is far from its point."""
    return {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}


def _around(center: Any, reach: float) -> Bbox:
    x, y = center
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _along(ends: Any, reach: float) -> list[Bbox]:
    """Small boxes on the way between two ends."""
    (x0, y0), (x1, y1) = ends
    steps = int(max(abs(x1 - x0), abs(y1 - y0)) / (2 * reach)) + 1
    return [_around((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps), reach) for i in range(steps + 1)]


def _overlap(one: Bbox, other: Bbox) -> float:
    """The area that both cover, in square pixels."""
    width = float(min(one.x1, other.x1) - max(one.x0, other.x0))
    height = float(min(one.y1, other.y1) - max(one.y0, other.y0))
    return max(0.0, width) * max(0.0, height)


def _outside(box: Bbox, frame: Bbox) -> float:
    """The area of ``box`` that ``frame`` does not cover, in square pixels."""
    return float(box.width * box.height) - _overlap(box, frame)
