"""What a person sees while a run goes on: phase, rounds, losses per task, devices, the last words of the log."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mas_edge.federation.flow import PHASES
from mas_edge.federation.methods import planned_rounds
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.view import Snapshot


def picture_of(snapshot: Snapshot) -> RenderableType:
    """One frame."""
    return Group(
        Panel(_head(snapshot), title=f"mas-edge · {snapshot.run}", title_align="left"),
        _losses(snapshot),
        *(Text(f"{event.level:<8}{event.text}", style="dim", no_wrap=True) for event in snapshot.events[-4:]),
    )


def trained(snapshot: Snapshot) -> list[RoundRecord]:
    """The training rounds that closed with enough reports."""
    return [record for record in snapshot.rounds if record.kind == "train" and record.outcome != "abandoned"]


def _head(snapshot: Snapshot) -> RenderableType:
    total = sum(planned_rounds(snapshot.job))
    done = len(trained(snapshot))
    table = Table.grid(padding=(0, 2))
    number = PHASES.index(snapshot.phase) + 1 if snapshot.phase in PHASES else 0
    table.add_row("phase", f"[bold]{snapshot.phase.replace('_', ' ')}[/] ({number} of {len(PHASES)})")
    table.add_row("rounds", ProgressBar(total=total, completed=done, width=40), f"{done} of {total}")
    online = sum(device.online for device in snapshot.devices)
    seconds = (snapshot.finished or time.time()) - snapshot.started
    table.add_row("devices", f"{online} of {len(snapshot.devices)} online", f"{seconds:.0f} s")
    for round_ in snapshot.open_rounds:
        table.add_row("open", f"{round_.round_id}: {round_.reports} of {len(round_.selected)} reports")
    if snapshot.split:
        table.add_row("split", "  |  ".join(", ".join(group) for group in snapshot.split.groups))
    return table


def _losses(snapshot: Snapshot) -> RenderableType:
    """The first and the last training loss of each task, and a small curve."""
    table = Table(box=None, padding=(0, 2))
    for column in ("task", "train loss", "", "first", "last"):
        table.add_column(column, justify="right" if column in ("first", "last") else "left")
    for task in snapshot.job.tasks:
        curve = [record.losses[task.name] for record in trained(snapshot) if task.name in record.losses]
        if curve:
            table.add_row(task.name, sparkline(curve[-40:]), "", f"{curve[0]:.3f}", f"{curve[-1]:.3f}")
    return table


def sparkline(values: list[float]) -> str:
    """Values as bars of eight heights."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * (value - low) / span))] for value in values)
