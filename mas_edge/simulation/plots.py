"""The pictures of a comparison: loss against cost, tasks, affinity over the rounds, splits, and all splits ranked."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mas_edge.simulation.compare import Compared, Comparison, Result
from mas_edge.simulation.heatmaps import draw_heatmaps
from mas_edge.simulation.labels import place_labels
from mas_edge.simulation.pairs import Spread, Summary
from mas_edge.simulation.ranks import Ranking, SplitRank

# Okabe and Ito's colours: told apart by people who see fewer; more methods repeat them with other markers and hatches.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")
MARKERS, HATCHES = "osD^vPX*", ("", "////", "....", "xxxx")
CHOSEN = ("mas", "tag", "hoa")  # methods whose groups are a choice
DPI = 150
BARS = 48  # beside each other in one row of a picture


def draw_all(compared: Compared, out: Path) -> dict[str, str]:
    """Draw what there is to draw into ``out``; returns the titles by file name. Pictures of nothing are not made."""
    comparison = compared.comparison
    table: dict[str, tuple[str, Callable[[Path], bool]]] = {
        "teaser.png": ("Test loss against device time", lambda path: draw_teaser(comparison, path)),
        "per-task.png": ("Change of each task", lambda path: draw_tasks(comparison, path)),
        "affinity.png": ("Affinity over the merged rounds", lambda path: draw_affinity(compared, path)),
        "splits.png": ("Groups", lambda path: draw_splits(compared, path)),
        "ranks.png": ("All splits", lambda path: draw_ranks(comparison, path)),
    }
    drawn = {}
    for name, (title, draw) in table.items():
        (out / name).unlink(missing_ok=True)  # of an earlier comparison
        if draw(out / name):
            drawn[name] = title
    return drawn


def draw_teaser(comparison: Comparison, path: Path) -> bool:
    """Normalised total against device seconds, a point a method; lower left is better, as in the paper's first figure.

    A line joins the methods that no other beats in both. Bars: one standard deviation over the seeds.
    """
    if not comparison.summaries:
        return False
    figure = Figure(figsize=(6.4, 4.4), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    points, lines = [], []
    for number, summary in enumerate(comparison.summaries):
        x, y = summary.numbers["device_seconds"], summary.numbers["normalised_total"]
        axis.errorbar(
            x.mean, y.mean, xerr=x.deviation, yerr=y.deviation, fmt=MARKERS[number // len(COLOURS) % len(MARKERS)],
            color=_colour(number), markersize=9, capsize=3, elinewidth=1.2, zorder=3,
        )  # fmt: skip
        points.append((x.mean, y.mean, summary.method, _colour(number)))
        dx, dy = x.deviation or 0.0, y.deviation or 0.0
        lines += [((x.mean - dx, y.mean), (x.mean + dx, y.mean)), ((x.mean, y.mean - dy), (x.mean, y.mean + dy))]
    front = _front([(x, y) for x, y, _, _ in points])
    axis.plot([x for x, _ in front], [y for _, y in front], color="#bbbbbb", linewidth=1, linestyle="--", zorder=1)
    axis.set_xlim(left=0)
    axis.margins(x=0.15, y=0.18)
    axis.autoscale_view()
    axis.set_xlim(left=0)
    axis.set_xlabel("device time: CPU seconds of training and affinity")
    axis.set_ylabel("total test loss (normalised, mean over tasks)")
    axis.set_title(f"{comparison.job.name}: {_seeds(comparison)}", fontsize=10)
    axis.grid(color="#eeeeee", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
    place_labels(figure, axis, points, [*lines, *pairwise(front)])
    return _save(figure, path)


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both, from left to right."""
    return sorted(p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points))


def draw_tasks(comparison: Comparison, path: Path) -> bool:
    """The change of each task's loss against the reference, a group of bars a task."""
    shown = [s for s in comparison.summaries if s.method != comparison.reference and _changes(s)]
    if not shown:
        return False
    spreads = {
        summary.method: {**_changes(summary), "mean": summary.numbers["mean_change"]} for summary in shown
    }  # fmt: skip
    tasks = list(spreads[shown[0].method])
    each = max(1, BARS // len(shown))  # tasks in a row of the picture
    parts = [tasks[at : at + each] for at in range(0, len(tasks), each)]
    most = max(map(len, parts))
    figure = Figure(
        figsize=(max(6.4, 0.26 * most * len(shown) + 2), 2.6 * len(parts) + 1.2), layout="constrained", dpi=DPI
    )
    axes = figure.subplots(len(parts), 1, squeeze=False, sharey=True)[:, 0]
    numbers = {summary.method: number for number, summary in enumerate(comparison.summaries)}
    for axis, part in zip(axes, parts, strict=True):
        for place, (method, own) in enumerate(spreads.items()):
            _bars(axis, [own[task] for task in part], place, len(shown), numbers[method], method)
        axis.axhline(0, color="#333333", linewidth=0.8)
        if part[-1] == "mean":
            axis.axvline(len(part) - 1.5, color="#bbbbbb", linewidth=1, linestyle="--")
        axis.set_xticks(range(len(part)), part)
        axis.set_xlim(-0.6, most - 0.4)
        axis.spines[["top", "right"]].set_visible(False)
    title = f"test loss against {comparison.reference}, % (below 0 is better)"
    figure.suptitle(f"{comparison.job.name}, {_seeds(comparison)}: {title}", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(shown)), frameon=False)
    return _save(figure, path)


def _bars(axis: Axes, spreads: list[Spread], place: int, places: int, number: int, label: str) -> None:
    """One method's bars, at its place among the others'."""
    width = 0.8 / places
    axis.bar(
        [at + (place - (places - 1) / 2) * width for at in range(len(spreads))],
        [100 * spread.mean for spread in spreads], width * 0.92, color=_colour(number), label=label,
        hatch=HATCHES[number // len(COLOURS) % len(HATCHES)], edgecolor="#ffffff", linewidth=0,
        yerr=None if spreads[0].deviation is None else [100 * (spread.deviation or 0.0) for spread in spreads],
        error_kw={"elinewidth": 1, "ecolor": "#333333"},
    )  # fmt: skip


def _changes(summary: Summary) -> dict[str, Spread]:
    return {task: spreads["change"] for task, spreads in summary.tasks.items() if "change" in spreads}


def draw_affinity(compared: Compared, path: Path) -> bool:
    """Heat maps of some merged rounds and of their mean, of the first method and seed that measured affinity."""
    there = [key for key, result in compared.results.items() if result["affinity"] is not None]
    own = [key for key in there if key[0] in compared.comparison.methods]
    if not (found := own or there):
        return False
    method, seed = min(found, key=lambda key: (not key[0].startswith("mas"), key[1]))
    return _save(draw_heatmaps(compared.results[method, seed], f"{method}, seed {seed}", DPI), path)


def draw_splits(compared: Compared, path: Path) -> bool:
    """A line a group, a square a task; filled where the group answers for the task, hollow where it only helps."""
    comparison = compared.comparison
    blocks = _blocks(compared)
    if not blocks:
        return False
    tasks = [task.name for task in comparison.job.tasks]
    lines = sum(len(groups) for _, _, groups in blocks) + 0.6 * (len(blocks) - 1)
    figure = Figure(figsize=(0.95 * len(tasks) + 2.6, 0.22 * lines + 1.0), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    y, middles = 0.0, []
    colours = {method: _colour(number) for number, method in enumerate(comparison.methods)}
    for method, _, groups in blocks:
        middles.append(y + (len(groups) - 1) / 2)
        for group, serves in groups:
            at = [tasks.index(task) for task in group]
            colour = colours[method]
            axis.plot([min(at), max(at)], [y, y], color=colour, linewidth=1.5, zorder=1)
            faces = [colour if task in serves else "#ffffff" for task in group]
            axis.scatter(at, [y] * len(at), s=70, marker="s", c=faces, edgecolors=colour, linewidths=1.5, zorder=2)
            y += 1
        y += 0.6
    axis.set_ylim(y - 0.9, -0.7)
    axis.set_xlim(-0.5, len(tasks) - 0.5)
    axis.set_yticks(middles, [f"{method}\n{seeds}" for method, seeds, _ in blocks], fontsize=8)
    axis.set_xticks(range(len(tasks)), tasks, fontsize=8)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return _save(figure, path)


Group = tuple[tuple[str, ...], tuple[str, ...]]  # its tasks, and those that it answers for


def _blocks(compared: Compared) -> list[tuple[str, str, tuple[Group, ...]]]:
    """Method, seeds and groups; the seeds that chose the same ones together."""
    seeds: dict[tuple[str, tuple[Group, ...]], list[int]] = {}
    for row in compared.comparison.rows:
        result = compared.results[row.method, row.seed]
        if result["job"]["method"]["name"] in CHOSEN:
            seeds.setdefault((row.method, _groups(result)), []).append(row.seed)
    return [
        (method, f"seed{'' if len(own) == 1 else 's'} {', '.join(map(str, own))}", groups)
        for (method, groups), own in seeds.items()
    ]


def _groups(result: Result) -> tuple[Group, ...]:
    split: dict[str, Any] = result["split"]
    pairs = zip(split["groups"], split["serves"], strict=True)
    return tuple((tuple(group), tuple(serves)) for group, serves in pairs)


def draw_ranks(comparison: Comparison, path: Path) -> bool:
    """Every split's normalised total against what the affinity promised of it, a panel for each size and seed."""
    rankings = [ranking for ranking in comparison.rankings if ranking.splits[0].value is not None]
    if not rankings:
        return False
    columns = min(3, len(rankings))
    rows = -(-len(rankings) // columns)
    figure = Figure(figsize=(3.6 * columns, 3.2 * rows), layout="constrained", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(rankings) :]:
        axis.set_visible(False)
    for axis, ranking in zip(axes.flat, rankings, strict=False):
        axis.scatter(
            [s.value for s in ranking.splits], [s.normalised for s in ranking.splits], s=22, color="#aaaaaa"
        )  # fmt: skip
        placed = _placed(comparison, ranking)
        for methods, rank in placed:
            chosen = {frozenset(group) for group in rank.groups}
            split = next(s for s in ranking.splits if {frozenset(group) for group in s.groups} == chosen)
            label = f"{', '.join(methods)}: rank {rank.normalised.rank} of {rank.normalised.of}"
            colour = _colour(comparison.methods.index(methods[0]))
            axis.scatter([split.value], [split.normalised], s=60, color=colour, label=label, zorder=3)
        correlation = ranking.normalised_spearman
        known = "" if correlation is None else f", Spearman {correlation:+.2f}"
        axis.set_title(f"{ranking.groups} groups, seed {ranking.seed}{known}", fontsize=9)
        axis.set_xlabel("value by affinity", fontsize=8)
        axis.set_ylabel("normalised total", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.margins(0.08, 0.15)
        if placed:
            axis.legend(fontsize=7, frameon=False)
    return _save(figure, path)


def _placed(comparison: Comparison, ranking: Ranking) -> list[tuple[list[str], SplitRank]]:
    """The splits of this size that runs have chosen, with the methods that chose each."""
    found: dict[frozenset[frozenset[str]], tuple[list[str], SplitRank]] = {}
    for rank in comparison.ranks:
        if (rank.seed, len(rank.groups)) == (ranking.seed, ranking.groups):
            found.setdefault(frozenset(map(frozenset, rank.groups)), ([], rank))[0].append(rank.method)
    return list(found.values())


def _seeds(comparison: Comparison) -> str:
    several = f"{len(comparison.seeds)} seeds, bars: one standard deviation"
    return several if len(comparison.seeds) > 1 else f"seed {comparison.seeds[0]}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _save(figure: Figure, path: Path) -> bool:
    FigureCanvasAgg(figure).print_png(str(path))
    return True
