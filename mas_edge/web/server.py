"""The process: uvicorn on one address, until it is asked to end."""

from __future__ import annotations

import logging
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import uvicorn

from mas_edge.protocol.errors import ServerError
from mas_edge.web.app import make_app
from mas_edge.web.guard import LOOPBACK

DEFAULT_PORT = 8880  # beside the fleet's 8883 and 8884; a user's own programs like 8080
# Connections at a time: the live streams, and a browser's six for each of them.
MAX_CONNECTIONS = 256
DRAIN_S = 2  # a live stream never ends by itself


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        """For a browser on this machine."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


def parse_address(text: str) -> Address:
    """HOST:PORT, :PORT, PORT or HOST; an IPv6 address in brackets.

    Raises:
        ServerError: it is none of these.
    """
    host, _, port = text.rpartition(":") if ":" in text and not text.endswith("]") else (text, "", "")
    if text.isdecimal():
        host, port = "", text
    host = host.strip("[]") or "127.0.0.1"
    if port and (not port.isdecimal() or not 0 < int(port) < 2**16):
        message = f"{text!r} is no address; expected HOST:PORT, such as 127.0.0.1:{DEFAULT_PORT}"
        raise ServerError(message)
    return Address(host, int(port or DEFAULT_PORT))


def serve(directory: Path, address: Address, names: Collection[str] = ()) -> None:
    """Serve the run in ``directory`` until SIGINT or SIGTERM. ``names``: further ones that this machine is reached by.

    Raises:
        ServerError: nothing can listen there.
    """
    hosts = {*LOOPBACK, address.host, *names}
    config = uvicorn.Config(
        make_app(directory, hosts), host=address.host, port=address.port, log_config=None, access_log=False,
        server_header=False, timeout_graceful_shutdown=DRAIN_S, limit_concurrency=MAX_CONNECTIONS, ws="none",
        lifespan="on",
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that the address is taken
        message = f"cannot listen on {address.url}: it is taken, or not this machine's; choose another --http"
        raise ServerError(message) from None
    if not server.started:
        logging.getLogger(__name__).warning("the API on %s ended before it began", address.url)
