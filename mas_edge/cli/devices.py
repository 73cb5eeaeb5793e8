"""``mas-edge devices``: who takes part in a run, and how each of them does."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from mas_edge.cli.progress import if_slow
from mas_edge.cli.tables import columns
from mas_edge.protocol.messages import Quality
from mas_edge.reporting.numbers import DeviceNumbers
from mas_edge.reporting.reading import read_numbers
from mas_edge.reporting.runs import age

MARKS: dict[Quality, str] = {"measured": "", "estimated": "~"}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "devices",
        help="list a run's devices: engine, rounds, reports, CPU, energy, last seen, what is wrong",
        description="List the devices of a run. REPORTS are those that counted, of the rounds that the device was "
        "told; ~ stands before energy that is estimated.",
        epilog="example: mas-edge devices runs/watch --json",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of `serve`, or the --out of `demo`")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    with if_slow(f"reading {args.state}"):
        devices = read_numbers(args.state).devices
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(devices), indent=2).decode())
        return 0
    heads = ("DEVICE", "STATE", "ENGINE", "REPORTS", "REFUSED", "CPU", "ENERGY", "SEEN", "PROBLEM")
    print("\n".join(columns(heads, [_row(each) for each in devices]) if devices else ["no device has been seen yet"]))
    return 0


def _row(each: DeviceNumbers) -> tuple[str, ...]:
    energy = " + ".join(f"{MARKS[of]}{joules:.1f} J" for of, joules in each.joules.items() if of in MARKS)
    return (
        each.name, "online" if each.online else "away", each.engine or "-", f"{each.reports} of {each.selected}",
        str(each.refused), f"{each.cpu_seconds:.1f} s", energy or "-", age(each.last_seen), each.problem,
    )  # fmt: skip
