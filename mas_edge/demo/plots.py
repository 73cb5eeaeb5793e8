"""The pictures of a run: loss curves through the split, and the affinity as a heat map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mas_edge.mas.affinity import readable_power

Result = dict[str, Any]


def plot_losses(result: Result, path: Path) -> None:
    """One panel a task: train loss per round, and the test losses after each phase."""
    tasks = [task["name"] for task in result["job"]["tasks"]]
    split_at = max((r["index"] + 1 for r in result["rounds"] if r["phase"] == "merge"), default=0)
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for number, axis in enumerate(axes.flat):
        if number >= len(tasks):
            axis.set_visible(False)
        else:
            _losses_of(axis, result, tasks[number], split_at)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    _save(figure, path)


def _losses_of(axis: Any, result: Result, task: str, split_at: int) -> None:
    rounds = [r for r in result["rounds"] if r["kind"] == "train" and task in r["losses"]]
    axis.plot([r["index"] + 1 for r in rounds], [r["losses"][task] for r in rounds], color="#3b6ea5", label="train")
    ends = {"initial": 0, "merged": split_at, "split": result["job"]["federation"]["rounds"]}
    tested = [(at, result["evaluation"][s][task]["loss"]) for s, at in ends.items() if task in _stage(result, s)]
    axis.plot([at for at, _ in tested], [loss for _, loss in tested], "o", color="#c2571a", label="test")
    constant = (result["constant_loss"] or {}).get(task)
    if constant is not None:
        axis.axhline(constant, color="#888888", linewidth=1, linestyle=":", label="best constant")
    axis.axvline(split_at, color="#bbbbbb", linewidth=1, linestyle="--", label="split")
    axis.set_title(task, fontsize=10)
    axis.set_xlabel("round", fontsize=8)
    axis.set_ylim(bottom=0)
    axis.tick_params(labelsize=8)


def _stage(result: Result, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = result["evaluation"].get(stage, {})
    return found


def plot_affinity(result: Result, path: Path) -> None:
    """The matrix that decided the split, with the groups framed; the diagonal plays no part and is left grey."""
    tasks, matrix = result["affinity"]["tasks"], result["affinity"]["matrix"]
    order = [task for group in result["split"]["groups"] for task in group]
    values = [[matrix[tasks.index(i)][tasks.index(j)] for j in order] for i in order]
    off_diagonal = [abs(v) for i, row in enumerate(values) for j, v in enumerate(row) if i != j]
    reach = max(off_diagonal, default=1.0) or 1.0
    power = readable_power(values)
    shown = [[float("nan") if i == j else v for j, v in enumerate(row)] for i, row in enumerate(values)]
    figure = Figure(figsize=(1.0 * len(order) + 2.2, 0.85 * len(order) + 1.6), layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("#e6e6e6")
    image = axis.imshow(shown, cmap="RdBu", vmin=-reach, vmax=reach)
    for i in range(len(order)):
        for j in range(len(order)):
            dark = i != j and abs(values[i][j]) > 0.6 * reach
            axis.text(
                j,
                i,
                f"{values[i][j] / 10**power:+.2f}",
                ha="center",
                va="center",
                fontsize=8,
                color="w" if dark else "#222",
            )
    start = 0
    for group in result["split"]["groups"]:
        size = len(group)
        corner = (start - 0.5, start - 0.5)
        axis.add_patch(Rectangle(corner, size, size, fill=False, edgecolor="#111111", linewidth=2))
        start += size
    axis.set_xticks(range(len(order)), order, rotation=30, ha="right")
    axis.set_yticks(range(len(order)), order)
    axis.set_xlabel("recipient: whose loss changes")
    axis.set_ylabel("source: whose gradient steps")
    unit = f", in units of $10^{{{power}}}$" if power else ""
    axis.set_title(f"Affinity{unit} (frames: the split)", fontsize=10)
    figure.colorbar(image, ax=axis, shrink=0.8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure).print_png(str(path))
