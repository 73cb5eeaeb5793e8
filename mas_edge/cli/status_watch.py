"""A run as it goes on: a picture on a terminal, a line for each thing that happened elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mas_edge.cli.rollout import lines_of as rollout_lines
from mas_edge.cli.status import shown
from mas_edge.demo.live import picture_of
from mas_edge.federation.flow import OVER
from mas_edge.orchestrator.rollout_store import remembered
from mas_edge.orchestrator.store import MAX_EVENTS
from mas_edge.orchestrator.view import Follower, Snapshot
from mas_edge.reporting.standing import Standing, standing_of

LOOK_S = 1.0  # a person sees no faster
SHOWN_DEVICES = 12  # what is left of a terminal of 24 lines beside phase, rounds and losses


def watch(state: Path, *, as_json: bool) -> None:
    """Show the run in ``state`` until it is done or aborted. Raises ServerError if there is none."""
    with closing(Follower(state, last_events=MAX_EVENTS)) as follower:
        looks = _looks(follower, state)
        if as_json:
            _print_json(looks)
        elif sys.stdout.isatty():
            _show(looks, state)
        else:
            _print_events(looks)


def _looks(follower: Follower, state: Path) -> Iterator[tuple[Snapshot, Standing]]:
    """The run as it is, about every second, to its end."""
    while True:
        snapshot = follower.look()
        yield snapshot, standing_of(state)
        if snapshot.phase in OVER:
            return
        time.sleep(LOOK_S)


def _show(looks: Iterator[tuple[Snapshot, Standing]], state: Path) -> None:
    with Live(auto_refresh=False) as live:
        for snapshot, standing in looks:
            live.update(frame(snapshot, standing, state), refresh=True)


def frame(snapshot: Snapshot, standing: Standing, state: Path) -> RenderableType:
    """One picture: the job, how it stands, its devices, and a rollout if there is one."""
    remarks = [Text(f"{about}: {remark}", style="bold") for about, remark in standing.remarks(snapshot.phase).items()]
    rollout = [Text(line, no_wrap=True, overflow="ellipsis") for line in rollout_lines(remembered(state))]
    return Group(picture_of(snapshot), *remarks, _devices(snapshot), *rollout)


def _devices(snapshot: Snapshot) -> RenderableType:
    """Those who have a problem first, then those who are away."""
    served = Counter(name for record in snapshot.rounds if record.kind == "train" for name in record.reports)
    busy = {name for open_round in snapshot.open_rounds for name in open_round.selected}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("device", "state", "engine", "reports"):
        table.add_column(head, justify="right" if head == "reports" else "left", no_wrap=True)
    table.add_column("problem", overflow="ellipsis", no_wrap=True)
    ordered = sorted(snapshot.devices, key=lambda each: (not each.problem, each.online, each.name))
    for each in ordered[:SHOWN_DEVICES]:
        stands = "in a round" if each.online and each.name in busy else "online" if each.online else "away"
        problem = Text(each.problem or each.standing.reason)
        table.add_row(Text(each.name), stands, Text(each.engine), str(served[each.name]), problem)
    if len(ordered) > SHOWN_DEVICES:
        table.add_row(f"and {len(ordered) - SHOWN_DEVICES} more")
    return table


def _print_events(looks: Iterator[tuple[Snapshot, Standing]]) -> None:
    """Lines for a file or a pipe: where it stands, then what happens; the log tells each event once."""
    told: float | None = None
    known: dict[str, str] = {}
    for snapshot, standing in looks:
        if told is None:
            print(f"run {snapshot.run}: {snapshot.phase}, {len(snapshot.rounds)} rounds closed", flush=True)
            told = snapshot.events[-1].time if snapshot.events else 0.0
        for event in [event for event in snapshot.events if event.time > told]:
            stamp = time.strftime("%H:%M:%S", time.localtime(event.time))
            print(f"{stamp} {event.level:<8}{event.text}", flush=True)
            told = event.time
        remarks = standing.remarks(snapshot.phase)
        for about, remark in remarks.items():
            if known.get(about) != remark:
                print(f"{about}: {remark}", flush=True)
        known = remarks


def _print_json(looks: Iterator[tuple[Snapshot, Standing]]) -> None:
    """The state as one line whenever something in it has changed: of rounds and events only what is new."""
    before: Snapshot | None = None
    stood: Standing | None = None
    for snapshot, standing in looks:
        if snapshot is not before or standing != stood:
            rounds = len(before.rounds) if before else 0
            told = before.events[-1].time if before and before.events else 0.0
            events = [event for event in snapshot.events if event.time > told]
            line = msgspec.structs.replace(snapshot, rounds=snapshot.rounds[rounds:], events=events)
            print(msgspec.json.encode(shown(line, standing)).decode(), flush=True)
            before, stood = snapshot, standing
