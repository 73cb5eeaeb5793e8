"""``mas-edge report``: one page about a run, and the same numbers for tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from mas_edge.cli.progress import Progress
from mas_edge.whole_file import write_text


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="write one page about a run: results, affinity, split, time, bytes, energy, devices",
        description="Write everything about a run into one HTML file that needs no network and no script. It may be "
        "asked for at any time; a run that goes on is reported as far as it is.",
        epilog="example: mas-edge report runs/watch --out report.html",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="the --state of `serve`, or the --out of `demo`")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: report.html, unless --json)")
    parser.add_argument("--json", action="store_true", help="print the same numbers as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the run once, and write what was asked for."""
    from mas_edge.reporting.reading import read_numbers

    numbers = read_numbers(args.run_dir)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(numbers), indent=2).decode())
    target = args.out or (None if args.json else Path("report.html"))
    if target is not None:
        with Progress(sys.stderr).step(f"draw {target}"):
            from mas_edge.reporting.page import page_of  # matplotlib: a second, and not for --json

            write_text(target, page_of(numbers))
    return 0
