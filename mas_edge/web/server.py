"""The process: uvicorn on one address, until it is asked to end."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import uvicorn

from mas_edge.protocol.errors import ServerError
from mas_edge.web.app import make_app
from mas_edge.web.guard import LOOPBACK, Rules
from mas_edge.web.tokens import TokenStore

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
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self, *, tls: bool) -> str:
        """For a browser."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if tls else 'http'}://{host}:{self.port}/"


class Serving(NamedTuple):
    """How the run is served: see the options of ``mas-edge web``."""

    address: Address
    names: Sequence[str] = ()
    fleet: Path | None = None
    certificate: Path | None = None  # PEM: the chain, and the key if ``key`` is None
    key: Path | None = None
    insecure: bool = False
    tokens: bool = False


def parse_address(text: str) -> Address:
    """HOST:PORT, or PORT on loopback; an IPv6 address in brackets.

    Raises:
        ServerError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 2**16:
        message = f"--http {text!r}: expected HOST:PORT, such as 127.0.0.1:8880"
        raise ServerError(message)
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def check(directory: Path, serving: Serving) -> list[str]:
    """Whether the run may be served so; returns what the operator should know.

    Raises:
        ServerError: it would show the run to a network in clear text, or a file cannot be used.
    """
    address, tls = serving.address, serving.certificate is not None
    if not address.is_loopback and not tls and not serving.insecure:
        message = (
            f"--http {address.host}:{address.port} is reached from other machines, and tokens would cross the network "
            "unencrypted: give --http-cert, serve a --fleet, or say --http-insecure"
        )
        raise ServerError(message)
    if serving.certificate is not None:
        _load(serving.certificate, serving.key)
    notes = []
    if _needs_tokens(serving):
        tokens = TokenStore(directory)
        try:
            if not tokens.all():
                notes.append(f"nobody has a token yet; make one: mas-edge token {directory} new NAME --role operate")
        finally:
            tokens.close()
    return notes


def serve(directory: Path, serving: Serving) -> None:
    """Serve the run in ``directory`` until SIGINT or SIGTERM.

    Raises:
        ServerError: see ``check``; or nothing can listen there.
    """
    check(directory, serving)
    address, tls = serving.address, serving.certificate is not None
    hosts = frozenset(name.lower() for name in (*LOOPBACK, address.host, *serving.names))
    config = uvicorn.Config(
        make_app(directory, Rules(hosts, tokens=_needs_tokens(serving)), serving.fleet),
        host=address.host, port=address.port, log_config=None, access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=DRAIN_S, limit_concurrency=MAX_CONNECTIONS, lifespan="on",
        ssl_certfile=serving.certificate, ssl_keyfile=serving.key,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run()
    except SystemExit:  # uvicorn's way to say that the address is taken; its log says why
        message = f"cannot listen on {address.url(tls=tls)}: it is taken, or not this machine's; choose another --http"
        raise ServerError(message) from None


def _needs_tokens(serving: Serving) -> bool:
    return serving.tokens or not serving.address.is_loopback


def _load(certificate: Path, key: Path | None) -> None:
    """Raise ServerError if these are no certificate and key."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        message = f"--http-cert {certificate} cannot be used: {error}; expected a certificate and its key as PEM"
        raise ServerError(message) from None
