"""``mas-edge job``: start, pause, resume or abort the job of a run, from another terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import msgspec

from mas_edge.cli.answers import wait_for_answer, whoever_types
from mas_edge.federation.control import JobVerb
from mas_edge.orchestrator import view
from mas_edge.orchestrator.orders import OrderStore, told

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
        number = store.place(verb, whoever_types())
        wait_for_answer(directory, lambda: _answer(store, number), quiet=quiet)
    finally:
        store.close()


def _answer(store: OrderStore, number: int) -> str | None:
    order = store.order(number)
    return order.answer if order else None
