"""``mas-edge swarm``: many virtual devices on a real broker, to see what it and an orchestrator bear."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from mas_edge.job import load_job

REPORT_S = 5.0  # between two lines of what there is


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "swarm",
        help="connect many virtual devices that learn nothing: a load test",
        description="Connect N virtual devices to the fleet of a job, in one process. They take plans, download, and "
        "send back updates as large as the job's; what they send is of no use. Start it several times with other "
        "numbers (--first) to use several processors or machines. Ctrl-C ends it.",
        epilog="example: mas-edge serve job.toml --state load --broker mqtt://192.0.2.7 & "
        "mas-edge swarm job.toml --broker mqtt://192.0.2.7 --devices 500",
    )
    parser.add_argument("job", type=Path, metavar="JOB", help="the job file (TOML)")
    parser.add_argument("--broker", required=True, metavar="URL", help="the MQTT broker")
    parser.add_argument("--devices", type=_count, default=100, metavar="N", help="how many (default 100)")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="number of the first one (default 0)")
    parser.add_argument("--state", type=Path, metavar="DIR", help="for their files; default: a temporary directory")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve the devices until SIGINT or SIGTERM."""
    from mas_edge.simulation.swarm import Swarm

    job = load_job(args.job)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="mas-edge-swarm-") as temporary:
        swarm = Swarm(
            args.broker, job.fleet, args.devices, args.state or Path(temporary), first=args.first,
            tasks=[task.name for task in job.tasks], input_shape=job.data.input_shape, engine=job.engines[0],
        )  # fmt: skip
        swarm.run(_Reporter(swarm, stop))
    return 0


class _Reporter:
    """Whether to stop; says every REPORT_S seconds what has changed."""

    def __init__(self, swarm: object, stop: threading.Event) -> None:
        self._swarm, self._stop = swarm, stop
        self._next, self._said = 0.0, ""

    def __call__(self) -> bool:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_S
            said = str(self._swarm)
            if said != self._said:
                self._said = said
                print(said, file=sys.stderr)
        return self._stop.is_set()


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 100_000:  # their names have five digits
        message = f"expected a number from 1 to 100000, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)
