"""``mas-edge serve``: orchestrate one job on a fleet until it is done."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.cli import INTERRUPTED
from device_runtime.home_assistant import DEFAULT_PREFIX
from mas_edge.cli.log import add_log_options, begin_log, say
from mas_edge.cli.passphrase import add_passphrase_file
from mas_edge.cli.web import add_http, beside_serve
from mas_edge.job import Job, load_job
from mas_edge.protocol.errors import JobError

if TYPE_CHECKING:
    from mas_edge.fleet.folder import Fleet
    from mas_edge.orchestrator.broker import Broker

ABORTED = 9  # an operator has ended the run: no failure, and nothing to start again


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "serve",
        help="orchestrate a job on a fleet; started again with the same --state it goes on",
        epilog="example: mas-edge serve models/watch.toml --state runs/watch --broker mqtt://192.0.2.7:1883",
    )
    parser.add_argument("job", type=Path, help="the job file (TOML)")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where the run is kept")
    parser.add_argument(
        "--broker", default="auto", metavar="URL|managed|embedded|auto",
        help="an MQTT broker's URL, or one to be started here (default: mosquitto if installed, else the embedded one)",
    )  # fmt: skip
    parser.add_argument(
        "--listen", default="", metavar="HOST[:PORT]",
        help="with the managed broker: where it listens (default: this machine only; with --fleet all interfaces)",
    )  # fmt: skip
    parser.add_argument(
        "--fleet", type=Path, metavar="DIR",
        help="let in only the devices of this fleet, by TLS and certificates; others join and renew meanwhile",
    )  # fmt: skip
    add_passphrase_file(parser, of="the fleet's ca.key")
    parser.add_argument(
        "--insecure", action="store_true",
        help="--listen on a network without a fleet: unencrypted, one password for everybody",
    )  # fmt: skip
    parser.add_argument(
        "--home-assistant", nargs="?", const=DEFAULT_PREFIX, default="", metavar="PREFIX",
        help="with --fleet and the managed broker: its members may show themselves to Home Assistant below this topic, "
        "and the member home-assistant may read that (default: they may not; without PREFIX: %(const)s)",
    )  # fmt: skip
    parser.add_argument(
        "--limits", type=Path, metavar="FILE",
        help="what one device may take of the orchestrator: messages, births, wants a second (TOML; default: built in)",
    )  # fmt: skip
    parser.add_argument(
        "--sign", type=Path, metavar="DIR",
        help="sign plans and models with the online keys of this repository (`mas-edge sign init`)",
    )  # fmt: skip
    parser.add_argument(
        "--stay", action="store_true",
        help="go on when the job is done: for `mas-edge rollout`, and devices that come back later",
    )  # fmt: skip
    parser.add_argument(
        "--hold", action="store_true", help="a new run waits for its first word: `mas-edge job RUN start`, or the page"
    )
    parser.add_argument(
        "--http", default="", metavar="HOST:PORT", help="show the run there: page, HTTP API, Prometheus metrics"
    )
    add_http(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON at the end")
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="write event files for TensorBoard into DIR, a folder a run"
    )
    add_log_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the job is done; SIGINT and SIGTERM leave a state to go on from."""
    begin_log(args)
    job = load_job(args.job)
    sys.path.insert(0, str(args.job.resolve().parent))  # where a user keeps the modules that the job names
    result = _serve(job, args)
    if args.json:
        print(json.dumps(result, indent=2))
    if result["phase"] == "aborted":
        print(f"the run was aborted; what it has is in {args.state}; choose another --state", file=sys.stderr)
        return ABORTED
    return 0 if result["done"] else INTERRUPTED


def _serve(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    # The whole service with torch: not for other verbs, nor before the job file is known to be fine.
    from mas_edge.orchestrator.broker import open_broker
    from mas_edge.orchestrator.limits import load_limits
    from mas_edge.orchestrator.service import run_job
    from mas_edge.orchestrator.store import Store
    from mas_edge.reporting.following import event_files

    state: Path = args.state
    limits = None if args.limits is None else load_limits(args.limits)
    fleet = None if args.fleet is None else _fleet_of(job, args.fleet, args.passphrase_file)
    Store(state).close()  # another orchestrator there is a clearer word than its broker's port being taken
    stop = threading.Event()
    with ExitStack() as serving:
        asked = open_broker(
            args.broker, state, args.listen, fleet, insecure=args.insecure, home_assistant=args.home_assistant
        )
        there = serving.enter_context(asked)
        if fleet is not None:
            _let_join(fleet, there, serving, args)
        else:
            elsewhere = " (from elsewhere: this machine's address instead)" if args.listen else ""
            print(
                f"devices connect to {there.url}{elsewhere}", file=sys.stderr
            )  # no line of a log: it has the password
        serving.enter_context(event_files(state, args.tensorboard))
        serving.enter_context(beside_serve(args))
        # Until here Ctrl-C ended us at once; from here on it asks the loop to leave in order.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        return run_job(job, state, there.url, stop, limits, args.sign, stay=args.stay, hold=args.hold)


def _fleet_of(job: Job, folder: Path, passphrase: Path | None) -> Fleet:
    from mas_edge.cli.fleet import open_fleet

    fleet = open_fleet(folder, passphrase)
    if fleet.settings.name != job.fleet:
        message = (
            f"the job is for fleet {job.fleet!r}, and {folder} holds fleet {fleet.settings.name!r}: "
            "give both the same name"
        )
        raise JobError(message)
    fleet.unlock()  # asks for the passphrase now, not when the first device comes
    return fleet


def _let_join(fleet: Fleet, broker: Broker, serving: ExitStack, args: argparse.Namespace) -> None:
    """Serve the enrolment endpoint, and act on revocations, as long as ``serving`` lasts."""
    from mas_edge.cli.fleet import root_of, shelf_of
    from mas_edge.fleet.endpoint import ALL_INTERFACES, Endpoint
    from mas_edge.fleet.guard import Guard

    shelf = shelf_of(args.sign, args.state)
    endpoint = serving.enter_context(Endpoint(fleet, ALL_INTERFACES, root_of(args.sign), shelf))

    def act() -> None:
        endpoint.renew_certificate()
        broker.renew()

    serving.enter_context(Guard(fleet, act))
    say(args, f"devices of fleet {fleet.settings.name} join at {fleet.enrolment_address}")
