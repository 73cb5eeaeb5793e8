"""``mas-edge-device uninstall``: undo what ``install`` did."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from device_runtime import service
from device_runtime.cli.run import device_name
from device_runtime.membership import states_of
from mas_edge.protocol.errors import DeviceError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "uninstall",
        help="undo `install`",
        description="Stop the service of a device and remove the files that `install` wrote, but none that was "
        "changed since. Models, programs and updates stay in the state directory.",
        epilog="example: sudo mas-edge-device uninstall --name pi-kitchen",
    )
    parser.add_argument("--name", required=True, type=device_name, help="the device's name, as it was installed")
    parser.add_argument("--state", type=Path, metavar="DIR", help="its state directory, if `install` was given one")
    parser.add_argument("--json", action="store_true", help="print the steps as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Undo the installation."""
    state = service.installed_at([args.state] if args.state else _states(args.name))
    if not args.json:
        service.uninstall(state, print)
        return 0
    steps: list[str] = []
    service.uninstall(state, steps.append)
    print(json.dumps({"steps": steps}, indent=2))
    return 0


def _states(name: str) -> list[Path]:
    """Where ``install`` may have put it: also where no manager of services runs any more."""
    try:
        return [service.Host.here().state / name, *states_of(name)]
    except DeviceError:
        return states_of(name)
