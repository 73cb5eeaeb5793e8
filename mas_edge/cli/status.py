"""``mas-edge status``: where a run stands."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from mas_edge.cli.rollout import lines_of as rollout_lines
from mas_edge.federation.methods import planned_rounds
from mas_edge.orchestrator import view
from mas_edge.orchestrator.result import energy_of
from mas_edge.orchestrator.rollout_store import remembered
from mas_edge.orchestrator.view import Snapshot
from mas_edge.reporting.standing import Standing, standing_of, state_of


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "status",
        help="show where a run stands: phase, rounds, losses, devices, events",
        epilog="example: mas-edge status --state runs/watch --watch",
    )
    parser.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="the --state of the run, or a demo's --out"
    )
    parser.add_argument("--events", type=int, default=10, metavar="N", help="last lines of the log (default 10)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON; with --watch a line a change")
    parser.add_argument("--watch", action="store_true", help="go on showing it until the run is done, or Ctrl-C")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the state once, or as long as it changes."""
    state = state_of(args.state)
    if args.watch:
        from mas_edge.cli.status_watch import watch  # rich: not for a look

        watch(state, as_json=args.json)
        return 0
    snapshot = view.read(state, last_events=max(0, args.events))
    standing = standing_of(state)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(shown(snapshot, standing)), indent=2).decode())
    else:
        print("\n".join([*lines_of(snapshot, standing), *rollout_lines(remembered(state))]))
    return 0


def shown(snapshot: Snapshot, standing: Standing) -> dict[str, Any]:
    """The state for programs."""
    found: dict[str, Any] = {**msgspec.to_builtins(snapshot), **msgspec.to_builtins(standing)}
    return found


def lines_of(snapshot: Snapshot, standing: Standing) -> list[str]:
    """The state in words."""
    planned = planned_rounds(snapshot.job)
    training = [r for r in snapshot.rounds if r.kind == "train" and r.outcome != "abandoned"]
    merged = sum(r.phase == "merge" for r in training)
    online = sum(device.online for device in snapshot.devices)
    lines = [
        f"run      {snapshot.run}",
        f"phase    {snapshot.phase}",
        *(f"{about:<9}{remark}" for about, remark in standing.remarks(snapshot.phase).items()),
        f"rounds   {merged} of {planned[0]} merged, {len(training) - merged} of {planned[1]} after the split",
        f"devices  {online} of {len(snapshot.devices)} online",
    ]
    lines += [f"open     {r.round_id}: {r.reports} of {len(r.selected)} reports" for r in snapshot.open_rounds]
    if training:
        last = {record.group: record for record in training}
        for group, record in last.items():
            losses = "  ".join(f"{task} {loss:.4f}" for task, loss in record.losses.items())
            lines.append(f"losses   {group} (round {record.index}): {losses}")
    lines += energy_lines(snapshot)
    if snapshot.split:
        groups = "  |  ".join(", ".join(group) for group in snapshot.split.groups)
        lines.append(f"split    {groups}  (value {snapshot.split.value:.4g})")
    served = Counter(name for record in training for name in record.selected)
    for device in snapshot.devices:
        state = "online" if device.online else "away"
        lines.append(
            f"  {device.name:<20} {state:<7} {device.engine:<12} {served[device.name]} rounds {device.problem}".rstrip()
        )
    for event in snapshot.events:
        lines.append(f"{time.strftime('%H:%M:%S', time.localtime(event.time))} {event.level:<8} {event.text}")
    return lines


def energy_lines(snapshot: Snapshot) -> list[str]:
    """What the work took, measured and estimated apart, by group and activity; nothing if no device said."""
    energy = energy_of(snapshot.rounds)
    lines = []
    for group, qualities in energy["groups"].items():
        for quality, activities in qualities.items():
            parts = ", ".join(f"{name} {joules:.1f}" for name, joules in activities.items() if joules)
            lines.append(f"energy   {group}: {sum(activities.values()):.1f} J {quality} ({parts})")
    for source, entry in energy["sources"].items():
        error = f", {entry['error']:.0%} up or down" if entry["quality"] == "estimated" else ""
        lines.append(f"         {entry['quality']} by {source}{error}: {', '.join(entry['devices'])}")
    return lines
