"""The tables at the end of a run."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from mas_edge.mas.affinity import readable_power

Result = dict[str, Any]
WAITING = ("fetch", "load")  # seconds of a device that are not its own work: the network's, and a first import's


def print_summary(console: Console, result: Result) -> None:
    """Print affinity, split, test losses before and after, cost per phase, deployment."""
    if result["affinity"]:
        console.print(_affinity(result))
    if result["split"]:
        console.print(_split(result))
    console.print(_losses(result))
    console.print(_phases(result))
    for source, entry in result["energy"]["sources"].items():
        error = f" (off by up to {entry['error']:.0%})" if entry["quality"] == "estimated" else ""
        console.print(f"joules above idle, {entry['quality']} by {source}{error}", markup=False, highlight=False)
    if push := result["split_push"]:
        console.print(
            f"split push: {_bytes(push['program_bytes'])} of graphs, {_bytes(push['weights_bytes'])} of weights "
            "(devices take the weights out of the all-in-one network they hold)"
        )
    if deployment := result["deployment"]:
        console.print(
            f"deployed: {deployment['healthy']} of {deployment['devices']} devices healthy on the split models"
        )
        for device, reason in deployment["reasons"].items():
            console.print(f"  {device}: {reason}", style="red")


def _affinity(result: Result) -> Table:
    tasks, matrix = result["affinity"]["tasks"], result["affinity"]["matrix"]
    power = readable_power(matrix)
    unit = f", in units of 1e{power}" if power else ""
    table = Table(title=f"Affinity: how a step on the row's task helps the column's{unit}", title_justify="left")
    table.add_column("")
    for task in tasks:
        table.add_column(task, justify="right")
    for i, task in enumerate(tasks):
        values = [f"{value / 10**power:+.3f}" for value in matrix[i]]
        cells = [f"[dim]{value}[/]" if i == j else value for j, value in enumerate(values)]
        table.add_row(task, *cells)
    return table


def _split(result: Result) -> str:
    split = result["split"]
    lines = [f"split (value {split['value']:.4g}):"]
    lines += [f"  group-{number}: {', '.join(group)}" for number, group in enumerate(split["groups"])]
    if split["runner_up"]:
        groups = " | ".join(", ".join(group) for group in split["runner_up"])
        lines.append(f"  runner-up (value {split['runner_up_value']:.4g}): {groups}")
    return "\n".join(lines)


def _losses(result: Result) -> Table:
    stages = [stage for stage in ("initial", "merged", "split") if stage in result["evaluation"]]
    names = {"initial": "untrained", "merged": "merged", "split": "split"}
    constants = result["constant_loss"] or {}
    table = Table(title="Test loss (metric) over all devices", title_justify="left")
    table.add_column("task")
    if constants:
        table.add_column("best constant", justify="right")
    for stage in stages:
        table.add_column(names[stage], justify="right")
    for task in result["job"]["tasks"]:
        name = task["name"]
        cells = [f"{constants[name]:.4f}" if name in constants else "-"] if constants else []
        for stage in stages:
            found = result["evaluation"][stage].get(name)
            cells.append(f"{found['loss']:.4f} ({found['metric']:.3f})" if found else "-")
        table.add_row(name, *cells)
    return table


def _phases(result: Result) -> Table:
    table = Table(title="Cost per phase", title_justify="left")
    for column in ("phase", "rounds", "wall s", "device s", "device CPU s", "joules", "sent", "received"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name, phase in result["phases"].items():
        table.add_row(
            name.replace("_", " "), str(phase["rounds"]), f"{phase['wall_seconds']:.1f}",
            f"{_own_work(phase):.1f}", f"{phase['device_cpu_seconds']:.1f}", _joules(result, name),
            _bytes(phase["sent_bytes"]), _bytes(phase["received_bytes"]),
        )  # fmt: skip
    return table


def _joules(result: Result, phase: str) -> str:
    """What was measured, and what was estimated behind a ~; never their sum."""
    marks = {"measured": "", "estimated": "~"}
    qualities = result["energy"]["phases"].get(phase, {})
    return " + ".join(f"{marks[each]}{sum(joules.values()):.1f}" for each, joules in qualities.items()) or "-"


def _own_work(phase: dict[str, Any]) -> float:
    return float(sum(seconds for activity, seconds in phase["device_seconds"].items() if activity not in WAITING))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
