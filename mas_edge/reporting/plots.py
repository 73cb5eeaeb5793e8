"""The curves of a report as SVG that takes its colours from the page: legible in the light, in the dark, on paper."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mas_edge.mas.merge import MERGED
from mas_edge.reporting.numbers import RoundNumbers, TaskNumbers

# Matplotlib only knows fixed colours: these stand for the page's variables, and are replaced by them afterwards.
INK, FAINT, MERGED_LINE = "#010101", "#020202", "#030303"
GROUP_LINES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
VARIABLES = {INK: "--ink", FAINT: "--line", MERGED_LINE: "--merged"} | {
    colour: f"--group-{number}" for number, colour in enumerate(GROUP_LINES)
}
SIZE = (3.6, 2.1)  # inches of 72 points: three charts stand side by side on a laptop, one fills a phone
WIDE = (11.2, 1.9)
MOST_BARS = 200  # a bar is an element of the page: more are narrower than a pixel each


def loss_chart(task: TaskNumbers, groups: Sequence[str]) -> str:
    """The training loss of a task by round, and its test losses as rings; ``groups``: those of the split, in order."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axis = figure.subplots()
    for group in dict.fromkeys(point.group for point in task.curve):
        points = [point for point in task.curve if point.group == group]
        axis.plot(
            [point.round for point in points], [point.loss for point in points], linewidth=1.6,
            color=colour_of(group, groups), marker="o" if len(points) == 1 else "", markersize=3,
        )  # fmt: skip
    last = max((point.round for point in task.curve), default=0)
    merged = max((point.round for point in task.curve if point.group == MERGED), default=0)
    for stage, at in (("untrained", 0), ("merged", merged), ("split", last)):
        if stage in task.stages:
            axis.plot(
                [at], [task.stages[stage].loss], marker="o", markersize=5, markerfacecolor="none", color=INK, ls=""
            )
    if task.constant_loss is not None:
        axis.axhline(task.constant_loss, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
    if 0 < merged < last:
        axis.axvline(merged + 0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    low, high = axis.get_ylim()
    axis.set_ylim(min(0.0, low), high + 0.06 * (high - min(0.0, low)))  # room for a ring at the top
    axis.set_xlabel("round", fontsize=8, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return _svg(figure, axis, f"Losses of {task.name}")


def rounds_chart(rounds: Sequence[RoundNumbers]) -> str:
    """The seconds of each round that closed, in the order in which they opened; abandoned ones are crossed."""
    figure = Figure(figsize=WIDE, layout="constrained")
    axis = figure.subplots()
    numbers, seconds = range(1, len(rounds) + 1), [each.seconds for each in rounds]
    if len(rounds) <= MOST_BARS:
        axis.bar(numbers, seconds, width=0.8, color=MERGED_LINE)
    else:
        axis.fill_between(numbers, seconds, step="mid", color=MERGED_LINE, linewidth=0)
    failed = [(number, each.seconds) for number, each in enumerate(rounds, 1) if each.outcome == "abandoned"]
    axis.plot([at for at, _ in failed], [seconds for _, seconds in failed], "x", color=INK, markersize=5)
    axis.set_xlim(0.4, len(rounds) + 0.6)
    axis.set_ylabel("seconds", fontsize=8, color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    return _svg(figure, axis, "Seconds of each round")


def colour_of(group: str, groups: Sequence[str]) -> str:
    """The stand-in for the colour of a network; beyond six groups colours come again."""
    return GROUP_LINES[list(groups).index(group) % len(GROUP_LINES)] if group in groups else MERGED_LINE


def _svg(figure: Figure, axis: Axes, title: str) -> str:
    """The picture as an element of a page: text stays text, no date, names of its own, colours by variable."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=7.5, colors=INK, length=0)
    figure.patch.set_alpha(0)
    axis.patch.set_alpha(0)
    written = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    prefix = re.sub(r"\W", "-", title.lower())
    text = re.sub(r'(id="|#)((?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|p[0-9a-f]{10}|m[0-9a-f]{10})\w*)',
                  rf"\1{prefix}-\2", text)  # fmt: skip
    text = re.sub(r"font-family: [^;\"]*;", "", text)  # the page's own typeface
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{_attribute(title)}">',
                  text, count=1)  # fmt: skip


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
