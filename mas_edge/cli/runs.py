"""``mas-edge runs``: every run below a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from mas_edge.cli.progress import if_slow
from mas_edge.cli.tables import columns
from mas_edge.reporting.runs import RunSummary, age, runs_below
from mas_edge.reporting.standing import Standing


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "runs",
        help="list every run below a folder: phase, rounds, age, what came of it",
        description="List every run in or below DIR, the newest first. LOSS is the mean over tasks of how the test "
        "loss has changed since before training.",
        epilog="example: mas-edge runs runs demo-out",
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[Path()], metavar="DIR", help="default: this folder")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    with if_slow("reading runs"):
        found = runs_below(args.folders)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return 0
    readable = [each for each in found if not each.problem]
    heads = ("RUN", "PHASE", "ROUNDS", "DEVICES", "AGE", "LOSS", "STATE")
    lines = columns(heads, [_row(each) for each in readable]) if readable else []
    lines += [f"{each.state}: {each.problem}" for each in found if each.problem]
    print("\n".join(lines or [f"no run below {', '.join(map(str, args.folders))}"]))
    return 0


def _row(each: RunSummary) -> tuple[str, ...]:
    phase = Standing(control=each.control, served=each.served).words(each.phase)
    change = "-" if each.loss_change is None else f"{100 * each.loss_change:+.0f} %"
    return (
        each.run, phase, f"{each.rounds} of {each.planned_rounds}", f"{each.devices_online} of {each.devices}",
        age(each.last_sign), change, each.state,
    )  # fmt: skip
