"""The command ``mas-edge``: one file a verb; this file only dispatches."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.metadata import version

from mas_edge.protocol.errors import EdgeError

VERBS = ("demo", "serve", "status", "data", "split")
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="mas-edge",
        description="Federated multi-task learning on edge devices: merge, train, measure affinity, split, deploy.",
        epilog="exit codes: 0 done, 2 usage, 3 job, 4 data, 5 broker, 6 orchestrator, 7 device, 8 wire, 130 Ctrl-C",
    )
    parser.add_argument("--version", action="version", version=f"mas-edge {version('mas-edge')}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        importlib.import_module(f"mas_edge.cli.{verb}").add_parser(verbs)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return code
