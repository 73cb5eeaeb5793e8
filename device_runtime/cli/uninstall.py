"""``mas-edge-device uninstall``: undo what ``install`` did."""

from __future__ import annotations

import argparse
from pathlib import Path

from device_runtime import service
from device_runtime.cli.install import directory_of


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "uninstall",
        help="undo `install`",
        description="Stop the service of a device and remove the files that `install` wrote, but none that was "
        "changed since. Models, programs and updates stay in the state directory.",
        epilog="example: sudo mas-edge-device uninstall --name pi-kitchen",
    )
    parser.add_argument("--name", required=True, help="the device's name, as it was installed")
    parser.add_argument("--state", type=Path, metavar="DIR", help="its state directory, if `install` was given one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Undo the installation."""
    service.uninstall(directory_of(args.name, args.state), print)
    return 0
