"""Files from web servers, HTTP or HTTPS: bounded in time and bytes, gone on with where a connection ended early.

Nothing of a server is believed here: what comes is checked by whoever asked for it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from device_runtime.edge.address import Address, why_unreachable
from device_runtime.edge.tls import client_context
from mas_edge.protocol.errors import DeviceError

BLOCK_BYTES = 64 * 1024
SILENCE_S = 20.0  # without a byte: the link is dead
PATIENCE_S = 120.0  # for one request: 100 KB at 1 KB/s; a server that trickles on is an attack
RETRIES = 4  # of a request whose connection ended early; each goes on where the last one ended


class WebError(DeviceError):
    """A file cannot be had; ``status``: what the server answered, 0 if it did not; ``slow``: it took too long."""

    def __init__(self, message: str, status: int = 0, *, slow: bool = False) -> None:
        super().__init__(message)
        self.status, self.slow = status, slow


@dataclass(frozen=True)
class Site:
    """A server of the fleet: its ``address`` (https://HOST:PORT), who vouches for it, and our certificate (files)."""

    address: str
    ca: str
    certificate: str

    def context(self) -> ssl.SSLContext:
        """How to connect, with the certificate as it is now: it is renewed from time to time.

        Raises:
            BrokerError: a file cannot be used.
        """
        return client_context(self.ca, self.certificate)


def pieces(url: str, context: ssl.SSLContext | None = None, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes ``begin`` to ``end`` (None: all) of a file, as they come, and never more than that.

    Raises:
        WebError: it cannot be had; at once if it is not there, else between two pieces.
    """
    reading = _Reading(url, context, begin, end)
    reading.open()  # here, not in the generator: what is not found is said before the first piece
    return reading.pieces()


@dataclass
class _Reading:
    url: str
    context: ssl.SSLContext | None
    at: int
    end: int | None

    def open(self) -> None:
        place = urlsplit(self.url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(place.scheme)
        if kind is None or not place.hostname:
            message = f"{self.url} is no address of a web server: expected http:// or https://"
            raise WebError(message)
        options = {"context": self.context} if place.scheme == "https" and self.context else {}
        self._connection = kind(place.hostname, place.port, timeout=SILENCE_S, **options)
        part = bool(self.at) or self.end is not None
        last = "" if self.end is None else self.end - 1
        try:
            self._connection.request("GET", place.path, headers={"Range": f"bytes={self.at}-{last}"} if part else {})
            self._answer = self._connection.getresponse()
        except (OSError, UnicodeError) as error:
            self._connection.close()
            tls = place.scheme == "https"
            port = place.port or (http.client.HTTPS_PORT if tls else http.client.HTTP_PORT)
            why = why_unreachable(error, Address(place.hostname, port, tls=tls, scheme=place.scheme))
            message = f"{self.url} cannot be fetched: {why}"
            raise WebError(message) from None
        except http.client.HTTPException:
            self._connection.close()
            message = f"{self.url} cannot be fetched: it does not answer as a web server"
            raise WebError(message) from None
        if self._answer.status != (http.client.PARTIAL_CONTENT if part else http.client.OK):
            self._close()
            message = f"{self.url}: the server answers {self._answer.status} {self._answer.reason}"
            raise WebError(message, self._answer.status)

    def pieces(self) -> Iterator[bytes]:
        retries, until = RETRIES, time.monotonic() + PATIENCE_S
        try:
            while True:
                yield from self._until_it_ends(until)
                if self.at == self.end or (self.end is None and not self._answer.length):
                    return  # what was asked for, or announced, has come
                if retries == 0:
                    message = f"{self.url} ended early {RETRIES + 1} times"
                    raise WebError(message)
                retries -= 1
                self._close()
                self.open()
        finally:
            self._close()

    def _close(self) -> None:
        """Both: the answer of a server that closes the connection has taken the socket over."""
        self._answer.close()
        self._connection.close()

    def _until_it_ends(self, until: float) -> Iterator[bytes]:
        """What this connection brings."""
        while block := self._read():
            self.at += len(block)
            if time.monotonic() > until:
                message = f"{self.url} takes longer than {PATIENCE_S:g} s"
                raise WebError(message, slow=True)
            yield block

    def _read(self) -> bytes:
        most = BLOCK_BYTES if self.end is None else min(BLOCK_BYTES, self.end - self.at)
        try:
            return self._answer.read1(most) if most else b""
        except (OSError, http.client.HTTPException):  # it ended early
            return b""
