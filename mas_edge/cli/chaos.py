"""``mas-edge chaos``: a soak test of one's own job: kills and spoilt packets, and whether everything still holds."""

from __future__ import annotations

import argparse
import json
import logging
import math
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_runtime.cli import INTERRUPTED

if TYPE_CHECKING:
    from mas_edge.chaos.harness import Run


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "chaos",
        help="run a job with faults: processes killed, packets lost and spoilt; check that nothing is lost",
        description="Run the job again and again on this machine, on a private broker behind a proxy that loses, "
        "delays, doubles, reorders, shortens and changes packets and cuts connections, while broker, orchestrator and "
        "devices are killed at random. After each run the invariants are checked. Exit code 1 if one did not hold.",
        epilog="example: mas-edge chaos job.toml --data recordings --minutes 10 --seed 7",
    )
    parser.add_argument("job", type=Path, metavar="JOB", help="the job file (TOML)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data folder for each device")
    parser.add_argument(
        "--minutes", type=_minutes, default=5.0, metavar="M", help="how long; the last run is finished (default 5)"
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of the first run; the others follow (default: drawn)")
    parser.add_argument(
        "--devices", default="", metavar="A,B", help="only these of the data folders (default: all; each is a process)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("chaos-out"), metavar="DIR", help="logs and states (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Soak, then print what came of it."""
    from mas_edge.chaos.soak import soak, summary_of  # processes and a broker: not for other verbs

    seed = secrets.randbelow(2**31) if args.seed is None else args.seed
    devices = [name for name in args.devices.split(",") if name]
    told = _silent if args.json else _told
    with _quiet():
        runs, interrupted = until_interrupted(
            soak(args.job, args.data, args.out, args.minutes, seed, devices, told)
        )  # fmt: skip
    if interrupted:
        print(f"interrupted; logs and states of the last run lie in {args.out}", file=sys.stderr)
    summary = summary_of(runs)
    print(json.dumps(summary, indent=2) if args.json else page(summary, args))
    return 1 if not summary["held"] else INTERRUPTED if interrupted else 0


def until_interrupted(soaking: Iterable[Run]) -> tuple[list[Run], bool]:
    """The runs until there are no more or Ctrl-C is pressed, and whether it was; if it was in the first, it is raised.

    Hours may have gone by: what was found in them counts.
    """
    runs: list[Run] = []
    try:
        for found in soaking:
            runs += [found]
    except KeyboardInterrupt:
        if runs:
            return runs, True
        raise
    return runs, False


@contextmanager
def _quiet() -> Iterator[None]:
    """Connections are lost on purpose: nobody has to hear of each."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        message = f"expected minutes, 0 for one run, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return minutes


def _told(line: str) -> None:
    print(line, flush=True)


def _silent(_line: str) -> None:
    pass


def page(summary: dict[str, Any], args: argparse.Namespace) -> str:
    """The summary for people."""
    runs = summary["runs"]
    kills = sum(len(run["kills"]) for run in runs)
    packets = sum(sum(run["faults"].values()) for run in runs)
    lines = [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {kills} kills, {packets} packets spoilt; "
        f"longest round {max(run['longest_round_s'] for run in runs):.1f} s",
        f"{'recovery from':<28}{'count':>6}{'median s':>10}{'worst s':>9}{'bound s':>9}{'above':>7}",
    ]
    for kind, found in summary["recovery"].items():
        times = f"{found['median_s']:>10.2f}{found['worst_s']:>9.2f}{found['bound_s']:>9.2f}"
        lines.append(f"{kind:<28}{found['count']:>6}{times}{found['above']:>7}")
    if summary["recovery"]:
        lines.append("(worst: the time that came nearest to its own bound, or is furthest above it)")
    failed = [run["seed"] for run in runs if run["problems"]]
    if not failed:
        return "\n".join([*lines, "every invariant held"])
    these = f" --devices {args.devices}" if args.devices else ""
    again = f"mas-edge chaos {args.job} --data {args.data}{these} --minutes 0 --out again --seed"
    lines += [f"BROKEN with seed {seed}; its files: {args.out}/seed-{seed}; again: {again} {seed}" for seed in failed]
    return "\n".join(lines)
