"""``mas-edge web``: the page and the API on a run's state directory, whether or not somebody serves it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "web",
        help="show a run in a browser, and answer programs that ask (HTTP API, Prometheus metrics)",
        epilog="example: mas-edge web runs/watch --http 127.0.0.1:8880",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run")
    add_http(parser, "127.0.0.1:8880")
    parser.set_defaults(run=run)


def add_http(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options that say where to listen."""
    parser.add_argument("--http", default=default, metavar="HOST:PORT", help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME",
        help="a further name or address by which browsers reach this machine; again for more",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from mas_edge.web.server import parse_address, serve  # a web framework: not for other verbs

    address = parse_address(args.http)
    print(f"{args.state} is shown at {address.url}", file=sys.stderr)
    serve(args.state, address, args.host_name)
    return 0
