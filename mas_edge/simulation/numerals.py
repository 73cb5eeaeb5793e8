"""Numbers as tables show them: to sensible digits, never in exponents, a deviation as fine as its mean."""

from __future__ import annotations

import math
from typing import NamedTuple

from mas_edge.simulation.pairs import Spread

NONE = "–"


class Form(NamedTuple):
    """How the numbers of a column are shown."""

    scale: float = 1.0
    unit: str = ""
    signed: bool = False
    places: int | None = None  # after the point; None: as many as make three significant digits


PLAIN = Form()
LOSS = Form(places=4)
CHANGE = Form(100, " %", signed=True, places=1)
SHARE = Form(100, " %", places=1)
GIGA = Form(1e-9)
MEGA = Form(1e-6)
RATIO = Form(places=2)


def shown(value: float | None, form: Form) -> str:
    """Return the number."""
    if value is None:
        return NONE
    scaled = value * form.scale
    return _written(scaled, _places(scaled, form), form.signed) + form.unit


def spread_shown(spread: Spread | None, form: Form) -> str:
    """Return the mean, and the deviation to the same places unless it is nothing there: counts have none."""
    if spread is None:
        return NONE
    places = _places(spread.mean * form.scale, form)
    deviation = _written((spread.deviation or 0.0) * form.scale, places, signed=False)
    return shown(spread.mean, form) + (f" ± {deviation}{form.unit}" if float(deviation) else "")


def _places(value: float, form: Form) -> int:
    before = math.floor(math.log10(abs(value))) + 1 if value and math.isfinite(value) else 1
    if form.places is None:
        return max(0, 3 - before)
    return form.places if before <= 3 else 0


def _written(value: float, places: int, signed: bool) -> str:
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.lstrip("+-") if not float(text) else text.replace("-", "−")
