"""The process: uvicorn on one address, until it is asked to end."""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvicorn

from mas_edge.protocol.errors import ServerError
from mas_edge.web.app import make_app
from mas_edge.web.connection import Connection
from mas_edge.web.door import Certificate, Door
from mas_edge.web.guard import LOOPBACK, Rules
from mas_edge.web.tokens import TokenStore

EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - to be recognized
FLEET_CERTIFICATE = "orchestrator.pem"
DRAIN_S = 2  # a live stream never ends by itself
LOOK_TICKS = 10  # of uvicorn, each 0.1 s: a renewed certificate is in use after a second, and a look is two stat()s


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


class Serving(NamedTuple):
    """How the run is served: see the options of ``mas-edge web``."""

    address: Address
    names: Sequence[str] = ()
    fleet: Path | None = None
    certificate: Path | None = None  # PEM: the chain, and the key if ``key`` is None
    key: Path | None = None
    insecure: bool = False
    tokens: bool = False

    @property
    def url(self) -> str:
        """For a browser: nobody can go to "every interface", so that a name of this machine stands there.

        Raises:
            ServerError: there is no fleet in ``fleet``.
        """
        host = self.address.host
        if host in EVERY_INTERFACE:
            host = next(iter([*self.names, *_hosts_of(self.fleet), socket.gethostname()]))
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.address.port}/"


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
        Certificate(serving.certificate, serving.key)
    _hosts_of(serving.fleet)
    notes = []
    if serving.fleet is not None and serving.certificate == serving.fleet / FLEET_CERTIFICATE:
        notes.append(f"browsers and programs have to trust {serving.fleet / 'ca.pem'}: import it, or name it to them")
    if _needs_tokens(serving):
        tokens = TokenStore(directory)
        try:
            if not tokens.all():
                notes.append(f"nobody has a token yet; make one: mas-edge token {directory} new NAME --role operate")
        finally:
            tokens.close()
    return notes


def serve(directory: Path, serving: Serving, begun: Callable[[], None]) -> None:
    """Serve the run in ``directory`` until SIGINT or SIGTERM; ``begun`` is called when somebody can connect.

    Raises:
        ServerError: see ``check``; or nothing can listen there.
    """
    check(directory, serving)
    address = serving.address
    certificate = Certificate(serving.certificate, serving.key) if serving.certificate else None
    hosts = frozenset(name.lower() for name in (*LOOPBACK, address.host, *serving.names, *_hosts_of(serving.fleet)))
    config = uvicorn.Config(
        make_app(directory, Rules(hosts, tokens=_needs_tokens(serving)), serving.fleet),
        http=Connection, log_config=None, access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=DRAIN_S, lifespan="on",
    )  # fmt: skip
    # What strangers send, such as no HTTP at all, is worth no line each of a log that has an end.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = Server(config, certificate)
    for number in (signal.SIGINT, signal.SIGTERM):  # raised once more when it has ended, which is then no failure
        signal.signal(number, server.handle_exit)
    listeners = _listen(address)
    begun()
    server.run(listeners)


class Server(uvicorn.Server):
    """uvicorn with a door for TLS, if there is a ``certificate``; who only holds a connection loses it."""

    def __init__(self, config: uvicorn.Config, certificate: Certificate | None) -> None:
        super().__init__(config)
        self._certificate = certificate
        self._door: Door | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin; with TLS connections come through our door instead of uvicorn's."""
        if self._certificate is None:
            await super().startup(sockets)
            return
        await super().startup([])
        self._door = Door(sockets or [], self._certificate, self._inside)

    def _inside(self) -> Connection:
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if counter % LOOK_TICKS == 0:
            if self._certificate is not None:
                self._certificate.look()
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.end_if_silent(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers under way end."""
        if self._door is not None:
            await self._door.close()
        await super().shutdown(sockets)


def _listen(address: Address) -> list[socket.socket]:
    """Sockets on every address that the host has, IPv4 and IPv6. Raises ServerError if there are none."""
    found: list[socket.socket] = []
    try:
        for family, _, _, _, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
            found.append(socket.create_server(where, family=family))
    except OSError as error:
        for each in found:
            each.close()
        message = (
            f"cannot listen on {address.host}:{address.port}: {error.strerror or error}; it is taken, or not this "
            "machine's: choose another --http"
        )
        raise ServerError(message) from None
    return found


class _Reached(msgspec.Struct):
    """What the page wants of fleet.json."""

    hosts: list[str]


def _hosts_of(fleet: Path | None) -> list[str]:
    """By which names a fleet's certificate is good for this machine. Raises ServerError if there is no fleet."""
    if fleet is None:
        return []
    try:
        return msgspec.json.decode((fleet / "fleet.json").read_bytes(), type=_Reached).hosts
    except (OSError, msgspec.MsgspecError) as error:
        message = f"there is no fleet in {fleet} that could be shown: {error}; make one: mas-edge fleet init {fleet}"
        raise ServerError(message) from None


def _needs_tokens(serving: Serving) -> bool:
    return serving.tokens or not serving.address.is_loopback
