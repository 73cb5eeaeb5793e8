"""``mas-edge compare``: one job by several methods, from several seeds, side by side."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mas_edge.federation.methods import names


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "compare",
        help="run a job by several methods, from several seeds, and compare what comes of it",
        description="Simulate a job by several methods, each from the same seeds, one process a run, and write tables "
        "(Markdown, CSV, JSON) and pictures. Started again with the same --out, it goes on where it was, and runs only "
        f"what is not there yet. Methods: {', '.join(names())}; not every-N: see --exhaustive.",
        epilog="example: mas-edge data rooms --out rooms && mas-edge compare rooms/job.toml --data rooms "
        "--methods one-by-one all-in-one mas-2 mas-3 --seeds 0 1 2 --out comparison",
    )
    parser.add_argument("job", type=Path, metavar="JOB", help="the job file (TOML)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data folder for each virtual device")
    parser.add_argument("--methods", nargs="+", required=True, metavar="M", help="such as one-by-one mas-2")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="S", help="default: 0")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where runs, tables and pictures go")
    parser.add_argument(
        "--reference", default="", metavar="M", help="compare with this method (default: one-by-one, or the first)"
    )
    parser.add_argument(
        "--workers", type=int, default=_cores(), metavar="N", help="runs at a time (default: the cores, %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default cpu)")
    parser.add_argument(
        "--exhaustive", action="store_true", help="rank the split of every mas-N among all of its size: trains them all"
    )
    parser.add_argument("--json", action="store_true", help="print the whole comparison as one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare; Ctrl-C ends every run and leaves a state from which the same command goes on."""
    from mas_edge.cli.compare_progress import watching
    from mas_edge.simulation.compare import Choice, compare
    from mas_edge.simulation.report import write_report

    choice = Choice(
        job=args.job, data=args.data, out=args.out, methods=args.methods, seeds=args.seeds, reference=args.reference,
        workers=args.workers, device=args.device, exhaustive=args.exhaustive, command=_command(args),
    )  # fmt: skip
    with _interruptible(), watching(args.out, sys.stderr) as watcher:
        compared = compare(choice, watcher)
    if not compared.results:
        return compared.failures[0].exit_code  # what went wrong was said when it did
    report = write_report(compared, args.out)
    print(report.json if args.json else report.markdown, end="")
    print(f"written: {', '.join(map(str, report.files))}", file=sys.stderr)
    return compared.failures[0].exit_code if compared.failures else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command(args: argparse.Namespace) -> str:
    """The command, with what it was given and what changes a number."""
    words = ["mas-edge", "compare", str(args.job), "--data", str(args.data), "--methods", *args.methods]
    words += ["--seeds", *map(str, args.seeds), "--out", str(args.out)]
    words += ["--reference", args.reference] if args.reference else []
    words += ["--workers", str(args.workers)]
    words += ["--device", args.device] if args.device != "cpu" else []
    return shlex.join(words + (["--exhaustive"] if args.exhaustive else []))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and a polite end reach us as KeyboardInterrupt, even behind a shell's ``&``, which ignores Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
