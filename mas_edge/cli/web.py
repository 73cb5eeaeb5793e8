"""``mas-edge web``: the page and the API on a run's state directory, whether or not somebody serves it."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.cli.log import add_log_options, begin_log, say
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting.standing import state_of

if TYPE_CHECKING:
    from mas_edge.web.server import Serving

DEFAULT = "127.0.0.1:8880"  # beside a fleet's 8883 and 8884; programs of other people like 8080

NICE = 5  # on a small board the rounds go first: a page may wait


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "web",
        help="show a run in a browser, and answer programs that ask (HTTP API, Prometheus metrics)",
        epilog="example: mas-edge web runs/watch --http 127.0.0.1:8880",
    )
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of the run, or a demo's --out")
    parser.add_argument(
        "--http", default=DEFAULT, metavar="HOST:PORT", help="where to listen (default: %(default)s, this machine only)"
    )
    parser.add_argument("--fleet", type=Path, metavar="DIR", help="the fleet whose devices can be approved and revoked")
    add_http(parser)
    add_log_options(parser)
    parser.set_defaults(run=run)


def add_http(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how ``--http`` is reached."""
    parser.add_argument(
        "--host-name", action="append", default=[], metavar="NAME",
        help="with --http: a further name or address by which browsers reach this machine; again for more",
    )  # fmt: skip
    parser.add_argument(
        "--http-cert", type=Path, metavar="FILE",
        help="with --http: serve HTTPS with this certificate (PEM; default with --fleet: the fleet's own)",
    )  # fmt: skip
    parser.add_argument("--http-key", type=Path, metavar="FILE", help="its key, if it is in a file of its own")
    parser.add_argument(
        "--http-insecure", action="store_true",
        help="with --http on a network and without a certificate: tokens and answers cross it unencrypted",
    )  # fmt: skip
    parser.add_argument(
        "--http-tokens", action="store_true",
        help="with --http on this machine only: require a token here, too (others may have accounts on it)",
    )  # fmt: skip


def serving_of(args: argparse.Namespace) -> Serving:
    """How a run is to be served, by the options.

    Raises:
        ServerError: an option makes no sense, or a package is missing.
    """
    try:
        from mas_edge.web.server import FLEET_CERTIFICATE, Serving, parse_address
    except ImportError as error:
        message = f"--http needs the package {error.name}: pip install 'mas-edge[server]'"
        raise ServerError(message) from None
    address = parse_address(args.http)
    certificate = args.http_cert
    if certificate is None and args.fleet is not None and not args.http_insecure and not address.is_loopback:
        certificate = args.fleet / FLEET_CERTIFICATE
    names = args.host_name
    return Serving(
        address, names, args.fleet, certificate, args.http_key, args.http_insecure, args.http_tokens
    )  # fmt: skip


@contextlib.contextmanager
def beside_serve(args: argparse.Namespace) -> Iterator[None]:
    """What keeps the page running beside ``mas-edge serve --http``; without that, nothing.

    Raises:
        ServerError: see ``serving_of``; or nothing can listen there.
    """
    if not args.http:
        yield
        return
    serving = serving_of(args)
    from mas_edge.web.beside import beside
    from mas_edge.web.server import check

    for note in check(args.state, serving):
        say(args, note)
    with beside(args.state, *serving.address, _options(args)):
        say(args, f"the run is shown at {serving.url}")
        yield


def _options(args: argparse.Namespace) -> list[str]:
    """The same options for the process beside."""
    files = {"--fleet": args.fleet, "--http-cert": args.http_cert, "--http-key": args.http_key}
    flags = {
        "--http-insecure": args.http_insecure, "--http-tokens": args.http_tokens, "--log-json": args.log_json,
        "--quiet": args.quiet,
    }  # fmt: skip
    return [
        "--http", args.http, *(f"--host-name={name}" for name in args.host_name),
        *(f"{option}={file.resolve()}" for option, file in files.items() if file is not None),
        *(option for option, given in flags.items() if given),
    ]  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    begin_log(args)
    serving = serving_of(args)
    from mas_edge.web.server import check, serve  # a web framework: not for other verbs

    state = state_of(args.state)
    for note in check(state, serving):
        say(args, note)
    if not (state / "state.db").is_file():  # a run that is begun later is shown then; a misspelled one never
        say(args, f"there is no run in {state} yet; it is shown as soon as `mas-edge serve` has begun one there")
    with contextlib.suppress(OSError):
        os.nice(NICE)
    serve(state, serving, lambda: say(args, f"{state} is shown at {serving.url}"))
    return 0
