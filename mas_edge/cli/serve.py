"""``mas-edge serve``: orchestrate one job on a fleet until it is done."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from pathlib import Path

from device_runtime.cli import INTERRUPTED
from mas_edge.job import load_job


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
    parser.add_argument("--json", action="store_true", help="print the result as JSON at the end")
    parser.add_argument("--quiet", action="store_true", help="only warnings")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the job is done; SIGINT and SIGTERM leave a state to go on from."""
    from mas_edge.orchestrator.service import run_job  # the whole service: not for other verbs

    logging.basicConfig(
        level=logging.WARNING if args.quiet else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.path.insert(0, str(args.job.resolve().parent))  # where a user keeps the modules that the job names
    result = run_job(load_job(args.job), args.state, args.broker, stop)
    if args.json:
        print(json.dumps(result, indent=2))
    return 0 if result["done"] else INTERRUPTED
