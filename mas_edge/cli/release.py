"""``mas-edge release``: let a device back that was left out because its reports were refused."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mas_edge.orchestrator.quarantine_desk import release


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "release",
        help="let a device back whose reports were refused until it was in quarantine",
        description="Take the strikes against a device back. A running orchestrator sees it within seconds, a stopped "
        "one when it starts. `mas-edge status` shows who is in quarantine, and why.",
        epilog="example: mas-edge release pi-kitchen --state runs/watch",
    )
    parser.add_argument("name", metavar="NAME", help="the device")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="the --state of the run")
    parser.add_argument("--json", action="store_true", help="print who is let back as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Leave word for the orchestrator."""
    release(args.state, args.name)
    if args.json:
        print(json.dumps({"released": args.name, "state": str(args.state)}))
        return 0
    print(f"{args.name} is let back as soon as the orchestrator of {args.state} looks")
    return 0
