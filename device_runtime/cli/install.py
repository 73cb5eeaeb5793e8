"""``mas-edge-device install``: have this system start the agent at boot and keep it up."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from device_runtime import service
from device_runtime.cli import run as running
from device_runtime.engines.choice import candidates
from device_runtime.holdings import look
from device_runtime.home_assistant import topics_of
from device_runtime.membership import membership
from device_runtime.policy.file import read_policy
from device_runtime.trust.anchor import read_root


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "install",
        help="have this system start the agent at boot and keep it up",
        description="Write and enable a service that runs the agent with these options: a systemd unit (Jetson, "
        "Raspberry Pi, Linux; of the system when run as root, else of this user), or a service of Termux with a script "
        "for Termux:Boot (Android). Says each file it writes and each command it runs.",
        epilog="example: sudo mas-edge-device install --service --broker mqtt://192.0.2.7 --name pi-kitchen "
        "--data /srv/watch",
    )
    parser.add_argument("--service", action="store_true", required=True, help="as a service; nothing else can be yet")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done, with the files' contents")
    parser.add_argument("--json", action="store_true", help="print steps, files and hints as one JSON object")
    running.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Install the service, or show what that means."""
    host = service.Host.here()
    state = (args.state or host.state / args.name).absolute()
    member = membership(args.name, args.fleet, args.broker, state)
    if args.home_assistant:
        topics_of(args.home_assistant, member.fleet, args.name)
    # A service that could never train is not installed: it would be started again and again.
    look(args.data)
    candidates(args.engine)
    if args.policy:
        read_policy(args.policy)
    if args.trust:
        read_root(args.trust)
    options = running.words_of(argparse.Namespace(**{**vars(args), "state": state}))
    log = args.log_file.absolute() if args.log_file else None
    agent = service.Agent(args.name, tuple(_command(options)), args.data.absolute(), state, log)
    if host.manager == "systemd":
        service.check_access((*agent.argv, sys.prefix, sys.base_prefix), agent.data, state, host.state / args.name)
    installation = service.plan(agent, host)
    if args.json:
        print(json.dumps(_described(installation, state, dry=args.dry_run), indent=2))
        return 0
    if args.dry_run:
        _show(installation)
        return 0
    service.install(installation, state, print)
    for hint in installation.hints:
        print(f"note: {hint}")
    return 0


def _described(installation: service.Installation, state: Path, *, dry: bool) -> dict[str, object]:
    """Install, unless it is only to be tried: what was done, or would be."""
    steps: list[str] = []
    if dry:
        steps += installation.steps()
    else:
        service.install(installation, state, steps.append)
    files = {file.path: file.text for file in installation.files}
    return {"installed": not dry, "steps": steps, "files": files, "hints": list(installation.hints)}


def _command(options: list[str]) -> Iterator[str]:
    yield from (sys.executable, "-m", "device_runtime", "run", *options)


def _show(installation: service.Installation) -> None:
    for step in installation.steps():
        print(f"would {step}")
    for file in installation.files:
        print(f"\n# {file.path} (mode {file.mode:o})\n{file.text}", end="")
