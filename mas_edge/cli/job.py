"""``mas-edge job``: start, pause, resume or abort the job of a run, from another terminal."""

from __future__ import annotations

import argparse
import getpass
import time
from pathlib import Path
from typing import get_args

import msgspec

from mas_edge.federation.control import JobVerb
from mas_edge.orchestrator import view
from mas_edge.orchestrator.orders import OrderStore, told
from mas_edge.protocol.errors import ServerError
from mas_edge.web.served import is_served

ANSWER_S = 10.0  # an orchestrator that works looks for orders twice a second
LOOK_S = 0.1
VERBS: tuple[JobVerb, ...] = get_args(JobVerb)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "job",
        help="start, pause, resume or abort the job of a run",
        epilog="example: mas-edge job runs/watch pause",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run")
    parser.add_argument("verb", nargs="?", choices=("status", *VERBS), default="status", help="default: status")
    parser.add_argument("--json", action="store_true", help="print the mode and the last orders as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Place an order, wait for the orchestrator's word on it if one works, and say how the job stands."""
    view.read(args.state, last_events=0)  # there is a run
    if args.verb != "status":
        _order(args.state, args.verb, quiet=args.json)
    mode = told(args.state) or "running"
    if args.json:
        store = OrderStore(args.state)
        try:
            orders = store.latest(10)
        finally:
            store.close()
        print(msgspec.json.format(msgspec.json.encode({"mode": mode, "orders": orders}), indent=2).decode())
    else:
        print(f"the job is {mode}")
    return 0


def _order(directory: Path, verb: JobVerb, *, quiet: bool) -> None:
    """Place an order; whoever works in the directory takes it, now or when it is started again."""
    store = OrderStore(directory)
    try:
        number = store.place(verb, f"command line of {getpass.getuser()}")
        if not is_served(directory):
            if not quiet:
                print("noted; nobody serves this run now: it is done as soon as `mas-edge serve` is started again")
            return
        deadline = time.monotonic() + ANSWER_S
        while (order := store.order(number)) and order.answer is None and time.monotonic() < deadline:
            time.sleep(LOOK_S)
    finally:
        store.close()
    if order is None or order.answer is None:
        message = f"the orchestrator has not taken the order within {ANSWER_S:g} s; it is noted"
        raise ServerError(message)
    if order.answer:
        raise ServerError(order.answer)
