"""The page of a report: one file that needs nothing else, no script and no network; every number is a ``RunNumbers``'s.

What stands here only chooses words and digits. The page is ``report.html.jinja`` beside this file.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mas_edge.reporting.numbers import AffinityNumbers, Joules, RunNumbers
from mas_edge.reporting.plots import loss_chart, rounds_chart

TEMPLATE = "report.html.jinja"
SHOWN_ROUNDS = 8  # heat maps of rounds beside the mean: a row of a laptop's page
NUMBERS = 12  # tasks up to which a cell has room for its number
SHOWN_DEVICES = 200  # rows; the rest is in the JSON
SHOWN_EVENTS = 60
_T = TypeVar("_T")
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


def page_of(numbers: RunNumbers) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "duration": duration, "size": size, "loss": loss, "percent": percent, "moment": moment, "joules": joules,
        "words": words, "count": count, "signed": signed,
    }  # fmt: skip
    split, affinity = numbers.split, numbers.affinity
    groups = list(split.groups) if split else []
    order = grouped_order(numbers)
    return environment.get_template(TEMPLATE).render(
        n=numbers, groups=groups, order=order, reach=_strongest(numbers),
        heat=None if affinity is None else Heat(affinity),
        frames=frames(numbers, order), shown_rounds=[] if affinity is None else spaced(affinity.rounds, SHOWN_ROUNDS),
        charts=[(task, Markup(loss_chart(task, groups))) for task in numbers.tasks if task.curve],  # noqa: S704 - ours
        rounds_chart=Markup(rounds_chart(numbers.rounds)) if numbers.rounds else "",  # noqa: S704 - ours
        has_constant=any(task.constant_loss is not None for task in numbers.tasks),
        most_devices=SHOWN_DEVICES, most_events=SHOWN_EVENTS, with_numbers=len(order) <= NUMBERS,
    )  # fmt: skip


def grouped_order(numbers: RunNumbers) -> list[int]:
    """The places of the tasks in the order of their groups; as in the job where groups overlap or there are none."""
    tasks = [task.name for task in numbers.tasks]
    named = list(chain.from_iterable(numbers.split.groups.values())) if numbers.split else []
    return [tasks.index(task) for task in named] if sorted(named) == sorted(tasks) else list(range(len(tasks)))


def frames(numbers: RunNumbers, order: Sequence[int]) -> list[int]:
    """For each task in that order the number of its group, -1 where there is none to frame."""
    if numbers.split is None or sum(map(len, numbers.split.groups.values())) != len(order):
        return [-1] * len(order)
    return [number for number, group in enumerate(numbers.split.groups.values()) for _ in group]


def spaced(items: Sequence[_T], most: int) -> list[_T]:
    """At most so many, at equal distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]


def _strongest(numbers: RunNumbers) -> float:
    """The length of the longest bar of what tasks receive."""
    received = numbers.split.received if numbers.split else []
    return max((abs(value) for each in received for value in (each.within, each.across) if value), default=1.0)


class Heat:
    """Colours and digits of one kind of matrix: a power of ten for all cells, so that a cell is two digits."""

    def __init__(self, affinity: AffinityNumbers) -> None:
        self.shown = affinity.mean if affinity.mean is not None else affinity.rounds[-1].matrix
        reach = _reach(self.shown)
        self.exponent = math.floor(math.log10(reach)) if reach else 0

    def style(self, matrix: Sequence[Sequence[float | None]], i: int, j: int) -> str:
        """Blue where the source helps, red where it harms, as strong as its share of the matrix' largest."""
        value, reach = matrix[i][j], _reach(matrix)
        if i == j or value is None or not reach:
            return "background:var(--none)"
        strength = min(1.0, abs(value) / reach) ** 0.7 * 0.85  # below 1: black digits stay readable on it
        return f"background:rgba(var({'--helps' if value > 0 else '--harms'}),{strength:.2f})"

    def text(self, value: float | None) -> str:
        """In units of the power of ten."""
        if value is None:
            return "–"
        digits = signed(value / 10**self.exponent, 1)
        return "0" if digits in ("+0.0", "−0.0") else digits


def _reach(matrix: Sequence[Sequence[float | None]]) -> float:
    """The largest absolute value off the diagonal."""
    return max(
        (abs(v) for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j and v is not None), default=0.0
    )


# ---------------------------------------------------------------------- digits


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{hours} h {minutes} min" if days == 0 else f"{days} d {hours} h"


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a digit before the point; decimal, as networks are billed."""
    unit = max((name for name in UNITS if count >= UNITS[name]), key=lambda name: UNITS[name], default="B")
    return f"{count:.0f} B" if unit == "B" else f"{count / UNITS[unit]:.3g} {unit}"


def loss(value: float | None) -> str:
    """Four digits; what is smaller than a thousandth with its power of ten."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.4g}".replace("-", "−")
    digits, _, exponent = f"{value:.3e}".partition("e")
    return f"{digits}·10{str(int(exponent)).translate(RAISED)}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share of 1 as per cent."""
    return "–" if share is None else f"{100 * share:.3g} %".replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a real minus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def moment(seconds: float) -> str:
    """A time of this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def joules(values: Joules) -> str:
    """Measured and estimated apart; the latter behind an ≈."""
    marks = {"measured": "", "estimated": "≈ "}
    return " + ".join(f"{marks[quality]}{value:,.1f} J" for quality, value in values.items() if quality in marks) or "–"


def count(value: float) -> str:
    """Large numbers with a prefix: 12, 3.4 k, 5.6 M, 7.8 G, 9.1 T."""
    for prefix in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.3g}{prefix}"
        value /= 1000
    return f"{value:.3g} T"


def words(name: str) -> str:
    """A name of ours as words."""
    return name.replace("_", " ")
