"""The options of every verb that serves: what it logs, how, and where to."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mas_edge.reporting import logs

log = logging.getLogger(__name__)


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``, ``--log-json`` and ``--log-file``."""
    parser.add_argument("--quiet", action="store_true", help="only warnings")
    parser.add_argument(
        "--log-json", action="store_true",
        help="log JSON objects: time, level, message, job, round, device",
    )  # fmt: skip
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="log into FILE as well; it is renamed at 10 MB")


def begin_log(args: argparse.Namespace) -> None:
    """Log as the options say.

    Raises:
        ServerError: the file cannot be written.
    """
    logs.configure(logging.WARNING if args.quiet else logging.INFO, as_json=args.log_json, file=args.log_file)


def say(args: argparse.Namespace, text: str) -> None:
    """Tell the operator on stderr; where that holds JSON, as one more line of the log."""
    if args.log_json:
        log.info(text)
    else:
        print(text, file=sys.stderr)
