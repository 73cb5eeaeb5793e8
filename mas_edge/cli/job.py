"""``mas-edge job``: start, pause, resume or abort the job of a run, from another terminal."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import get_args

import msgspec

from mas_edge.cli.answers import wait_for_answer, whoever_types
from mas_edge.federation.control import JobVerb
from mas_edge.federation.flow import OVER
from mas_edge.orchestrator import view
from mas_edge.orchestrator.orders import FILE, MAX_WAITING, JobOrder, OrderStore
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting.standing import Standing, standing_of, state_of

VERBS: tuple[JobVerb, ...] = get_args(JobVerb)
SHOWN = 10  # orders as JSON, newest first


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "job",
        help="start, pause, resume or abort the job of a run",
        epilog="example: mas-edge job runs/watch pause",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run, or a demo's --out")
    parser.add_argument("verb", nargs="?", choices=("status", *VERBS), default="status", help="default: status")
    parser.add_argument("--json", action="store_true", help="print the mode and the last orders as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Place an order, wait for the orchestrator's word on it if one works, and say how the job stands."""
    state = state_of(args.state)
    phase = view.read(state, last_events=0).phase  # there is a run
    if args.verb != "status":
        _order(state, args.verb, phase, quiet=args.json)
        phase = view.read(state, last_events=0).phase
    standing, orders = standing_of(state), _orders(state)
    if args.json:
        shown = {"mode": standing.control, "phase": phase, "served": standing.served, "orders": orders[:SHOWN]}
        print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
    else:
        print(_sentence(phase, standing, [order.verb for order in reversed(orders) if order.answer is None]))
    return 0


def _sentence(phase: str, standing: Standing, waiting: list[JobVerb]) -> str:
    if phase in OVER:
        return f"the job is {phase}"
    waits = f"; orders that wait: {', '.join(waiting)}" if waiting else ""
    if standing.served:
        return f"the job is {standing.control}{waits}"
    held_up = "" if standing.control == "running" else f", and it is {standing.control}"
    return f"nobody serves the job now{held_up}{waits}"


def _orders(state: Path) -> list[JobOrder]:
    """The newest orders, newest first."""
    if not (state / FILE).is_file():
        return []
    with closing(OrderStore(state)) as store:
        return store.latest(MAX_WAITING)


def _order(directory: Path, verb: JobVerb, phase: str, *, quiet: bool) -> None:
    """Place an order; whoever works in the directory takes it, now or when it is started again."""
    if phase in OVER:
        message = f"the job is {phase}: there is nothing to {verb}"
        raise ServerError(message)
    store = OrderStore(directory)
    try:
        number = store.place(verb, whoever_types())
        wait_for_answer(directory, lambda: _answer(store, number), quiet=quiet)
    finally:
        store.close()


def _answer(store: OrderStore, number: int) -> str | None:
    order = store.order(number)
    return order.answer if order else None
