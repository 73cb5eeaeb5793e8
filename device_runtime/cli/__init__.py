"""The command ``mas-edge-device``: one file a verb; this file only dispatches."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from mas_edge.protocol.errors import DeviceError, EdgeError

VERBS = ("join", "run", "check", "doctor", "install", "uninstall")
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C
CUT_OFF = 141  # and for one whose output nobody reads any more


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="mas-edge-device",
        description="The agent that trains, evaluates and deploys models on this device.",
        epilog="exit codes: 0 done, 2 usage, 4 data folder, 5 broker, 7 device, 8 wire, 130 Ctrl-C",
    )
    return with_verbs(parser, "device_runtime.cli", VERBS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    return execute(build_parser(), argv)


def with_verbs(parser: argparse.ArgumentParser, package: str, verbs: Sequence[str]) -> argparse.ArgumentParser:
    """Add ``--version`` and the verbs, each a module of ``package``; they import what they need only when they run."""
    parser.add_argument("--version", action="version", version=f"{parser.prog} {_version()}")
    adding = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in verbs:
        importlib.import_module(f"{package}.{verb}").add_parser(adding)
    return parser


def _version() -> str:
    try:
        return version("mas-edge")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


def execute(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, not_permitted: int = DeviceError.exit_code
) -> int:
    """Run the verb that ``argv`` names; an error of ours becomes one line and its exit code.

    ``not_permitted``: the code where the system forbids this user a file, wherever that is noticed.
    """
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except PermissionError as error:
        what = error.filename or "what this needs"
        print(f"error: this user may not use {what}: run this as its owner, or give the right to", file=sys.stderr)
        return not_permitted
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough of it: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CUT_OFF
    return code
