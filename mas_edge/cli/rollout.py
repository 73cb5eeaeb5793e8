"""``mas-edge rollout``: bring a run's models to the fleet in stages, and stop, go on or go back."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec

from device_runtime.memory import in_units, parse_size
from mas_edge.cli.answers import wait_for_answer, whoever_types
from mas_edge.federation.rollout import RolloutSpec, Verb, check_spec
from mas_edge.orchestrator import view
from mas_edge.orchestrator.rollout_store import FILE, Remembered, RolloutOrder, RolloutStore, Wish, remembered
from mas_edge.protocol.errors import EdgeError, ServerError

VERBS: tuple[Verb, ...] = ("pause", "resume", "abort", "rollback")
SHOWN_FAILURES = 10
SHOWN_ORDERS = 10
_OPTIONS = (  # of what is begun with --to
    "then", "halt_on", "soak", "answer", "seed", "max_latency", "max_slowdown", "max_memory", "max_regression",
)  # fmt: skip
_FIELD = re.compile(r"(?P<what>.*) - at `\$\.(?P<field>\w+).*")  # of msgspec's word on a RolloutSpec
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "rollout",
        help="bring a run's models to the devices in stages; pause, resume, abort, roll back",
        epilog="example: mas-edge rollout runs/watch --to 1% --then 10% --then 100% --halt-on 5%",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run")
    parser.add_argument("verb", nargs="?", choices=("status", *VERBS), default="status", help="default: status")
    parser.add_argument(
        "--to", type=_stage_of, metavar="SHARE", help="begin, with this share of the devices: 1%% or 0.01"
    )
    parser.add_argument(
        "--then", type=_stage_of, action="append", default=[], metavar="SHARE", help="the next stage; again for more"
    )
    parser.add_argument(
        "--halt-on", type=_share, default=0.05, metavar="SHARE",
        help="stop when more than this share of the devices so far fail (default: 5%%)",
    )  # fmt: skip
    parser.add_argument(
        "--soak", type=float, default=60.0, metavar="S",
        help="seconds that a stage's devices are healthy before the next begins (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--answer", type=float, default=600.0, metavar="S",
        help="a device that is silent for so long has failed (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    parser.add_argument(
        "--max-latency", type=float, default=5.0, metavar="S",
        help="seconds that a device may take for one sample (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--max-slowdown", type=float, default=0.0, metavar="X",
        help="... and at most so many times what it takes with its present model (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--max-memory", type=_size, default=0, metavar="SIZE",
        help="what a model may add to the agent's memory, such as 64M (default: no limit)",
    )  # fmt: skip
    parser.add_argument(
        "--max-regression", type=_share, metavar="SHARE",
        help="a group's model whose error on a device's own test data is above that of the model of all tasks by more "
        "than this gives way to that one, and counts as failed (default: not compared)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the status as JSON")
    parser.set_defaults(run=run, of_a_beginning={name: parser.get_default(name) for name in _OPTIONS})


def run(args: argparse.Namespace) -> int:
    """Place an order, wait for the orchestrator's word on it if one works, and show where the rollout stands."""
    snapshot = view.read(args.state, last_events=0)  # there is a run
    if args.to is not None:
        if args.verb != "status":
            message = f"give either --to, to begin a rollout, or {args.verb}"
            raise ServerError(message)
        _order(args.state, Wish(spec=_spec(args), who=whoever_types()), quiet=args.json)
    elif given := [name for name, usual in args.of_a_beginning.items() if getattr(args, name) != usual]:
        option = given[0].replace("_", "-")
        message = f"--{option} belongs to a rollout that is begun: give --to as well, such as --to 10%"
        raise ServerError(message)
    elif args.verb != "status":
        _order(args.state, Wish(verb=args.verb, who=whoever_types()), quiet=args.json)
    found, orders = remembered(args.state), _orders(args.state)
    if args.json:
        state, standings = (found.state, found.standings) if found else (None, {})
        told = {"state": state, "standings": standings, "orders": orders}
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return 0
    lines = lines_of(found) + [_order_line(order) for order in orders[:1]]
    print("\n".join(lines or [f"no rollout of {snapshot.run} yet: begin one with --to"]))
    return 0


def _orders(directory: Path) -> list[RolloutOrder]:
    """The newest orders, newest first; a look leaves no file behind."""
    if not (directory / FILE).is_file():
        return []
    with closing(RolloutStore(directory)) as store:
        return store.orders(SHOWN_ORDERS)


def _order_line(order: RolloutOrder) -> str:
    what = "waits" if order.answer is None else f"refused: {order.answer}" if order.answer else "done"
    return f"order    {order.verb}{f', {order.who}' if order.who else ''}: {what}"


def lines_of(found: Remembered | None) -> list[str]:
    """Where a rollout stands, in words; nothing if there was none."""
    if found is None:
        return []
    state, spec = found.state, found.state.spec
    stages = Counter(_stage(found, device) for device in found.standings)
    shares = " > ".join(f"{share:.4g}" for share in spec.shares)
    of = f"stage {state.stage + 1} of {len(spec.shares)}"
    counts = ", ".join(f"{count} {stage}" for stage, count in sorted(stages.items()))
    lines = [
        f"rollout  {state.number}: {state.mode.replace('_', ' ')}, {of} ({shares} of the devices)",
        f"told     {len(found.standings)} devices{f': {counts}' if counts else ''}",
        f"sent     {in_units(state.sent_bytes)}",
    ]
    if state.reason:
        lines.append(f"because  {state.reason}")
    wrong = [
        f"  {device:<20} {group:<10} {standing.stage:<9} {standing.reason}".rstrip()
        for device, standings in found.standings.items()
        for group, standing in standings.items() if standing.reason
    ]  # fmt: skip
    more = [f"  and {len(wrong) - SHOWN_FAILURES} more"] if len(wrong) > SHOWN_FAILURES else []
    return lines + wrong[:SHOWN_FAILURES] + more


def _stage(found: Remembered, device: str) -> str:
    """That of the group that is least far."""
    held = {standing.stage for standing in found.standings[device].values()}
    return next(stage for stage in ("failed", "excused", "told", "returned", "healthy") if stage in held)


def _spec(args: argparse.Namespace) -> RolloutSpec:
    given = {
        "shares": [args.to, *args.then], "halt_on": args.halt_on, "soak_s": args.soak, "answer_s": args.answer,
        "seed": args.seed, "max_latency_s": args.max_latency, "max_slowdown": args.max_slowdown,
        "max_memory_bytes": args.max_memory, "max_regression": args.max_regression,
    }  # fmt: skip
    try:
        spec = msgspec.convert(given, RolloutSpec)
    except msgspec.ValidationError as error:
        message = f"this rollout cannot be: {_in_options(str(error))}"
        raise ServerError(message) from None
    check_spec(spec)
    return spec


def _in_options(error: str) -> str:
    """What is wrong with a field, in the words of the command line."""
    found = _FIELD.fullmatch(error)
    if found is None:
        return error
    option = found["field"].removesuffix("_s").removesuffix("_bytes").replace("_", "-")
    return f"--{option}: {found['what'].lower().replace('`float`', 'a number').replace('`int`', 'a whole number')}"


def _order(directory: Path, wish: Wish, *, quiet: bool) -> None:
    """Place an order; whoever works in the directory takes it, now or when it is started again."""
    store = RolloutStore(directory)
    try:
        number = store.place(wish)
        wait_for_answer(directory, lambda: store.answer(number), quiet=quiet)
    finally:
        store.close()


def _share(text: str) -> float:
    found = _SHARE.fullmatch(text.strip())
    if found is None:
        message = f"{text!r} is no share; expected such as 10% or 0.1"
        raise argparse.ArgumentTypeError(message)
    if found[1].isdecimal() and int(found[1]) and not found[2]:  # who types 1 for 1% would reach everybody
        message = f"{text!r} may be meant as {text}% or as {int(found[1]) * 100}%: write which"
        raise argparse.ArgumentTypeError(message)
    return float(found[1]) / (100 if found[2] else 1)


def _stage_of(text: str) -> float:
    share = _share(text)
    if not 0 < share <= 1:
        message = f"{text!r} is no stage; expected more than 0% and at most 100% of the devices"
        raise argparse.ArgumentTypeError(message)
    return share


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except EdgeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
