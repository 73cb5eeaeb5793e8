"""``mas-edge demo``: a whole MAS run on this machine, on real data, with ten device processes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "demo",
        help="run the whole job on this machine: ten device processes, real smart-watch recordings",
        epilog="example: mas-edge demo --out demo-out --json demo-out/result.json",
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the result goes (default: OUT/result.json)")
    parser.add_argument("--broker", default="embedded", help="embedded, managed, or a URL (default: %(default)s)")
    parser.add_argument("--job", type=Path, metavar="FILE", help="another job file on the same data")
    parser.add_argument("--fresh", action="store_true", help="do not go on with an interrupted run in OUT")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; Ctrl-C ends every process and leaves a state from which the same command goes on."""
    from mas_edge.demo.run import run_demo  # plots and tables: not for other verbs

    run_demo(args.out, args.json or args.out / "result.json", args.broker, args.job, fresh=args.fresh)
    return 0
