"""Where connections come in when there is TLS: the newest certificate, and a word to whoever speaks HTTP without it.

uvicorn would close such a connection without one, and keep for ever the certificate that it began with.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from mas_edge.protocol.errors import ServerError
from mas_edge.web.problems import body_of, problem

log = logging.getLogger(__name__)

PATIENCE_S = 10.0  # for the first byte, and for the handshake: a phone on a bad link needs seconds
MAX_WAITING = 64  # connections that have not said anything yet, or are in their handshake
# After a refusal what was on its way is read: else it would reset the connection, and the answer would be lost.
LINGER_S = 1.0
_ACCEPT_AGAIN_S = 1.0  # after the machine had no file descriptor left
_MOST_UNREAD = 64 * 1024
_CLIENT_HELLO = b"\x16"  # the first byte of TLS; in HTTP it is a letter
_PLAIN = "this port speaks HTTPS: the same address with https:// instead of http://"


class Certificate:
    """A certificate and its key from files (PEM); ``key`` None: it is in the same file. ``context`` is the newest.

    Raises:
        ServerError: they are no certificate and key.
    """

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        self._chain, self._key = chain, key
        self._seen = self._state()
        self.context = self._load()

    def look(self) -> None:
        """Take other files into use, if there are any. What cannot be used, or not yet, is said once and left."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self.context = self._load()
        except ServerError as error:
            log.error("%s; the one before stays in use", error)
        else:
            log.info("the certificate %s is in use from now on", self._chain)

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_identity(path) for path in (self._chain, self._key) if path is not None]

    def _load(self) -> ssl.SSLContext:
        # A context of its own for each: one that is in use would be half changed by a key that does not fit.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password="")  # an encrypted key is refused, not asked for
        except (OSError, ssl.SSLError) as error:
            message = (
                f"--http-cert {self._chain} cannot be used: {error}; expected a certificate and its key as PEM, "
                "the key not encrypted"
            )
            raise ServerError(message) from None
        return context


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Door:
    """Lets in who comes to ``listeners``, from ``__init__`` to ``close``; ``inside`` makes the protocol behind TLS.

    It needs a loop that runs.
    """

    def __init__(
        self, listeners: Sequence[socket.socket], certificate: Certificate, inside: Callable[[], asyncio.Protocol]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._certificate = certificate
        self._inside = inside
        self._waiting: set[asyncio.Task[None]] = set()
        self._accepting = [self._loop.create_task(self._accept(listener)) for listener in listeners]

    async def close(self) -> None:
        """Let in nobody more; who is inside stays there."""
        tasks = [*self._accepting, *self._waiting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listener)
            except OSError as error:
                log.error("no connection can be accepted now: %s", error)
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            if len(self._waiting) >= MAX_WAITING:
                connection.close()
                continue
            task = self._loop.create_task(self._let_in(connection))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _let_in(self, connection: socket.socket) -> None:
        try:
            await asyncio.wait_for(self._has_spoken(connection), PATIENCE_S)
            if connection.recv(1, socket.MSG_PEEK) != _CLIENT_HELLO:
                await self._send_away(connection)
                return
            await self._loop.connect_accepted_socket(
                self._inside, connection, ssl=self._certificate.context, ssl_handshake_timeout=PATIENCE_S
            )
        except (OSError, asyncio.TimeoutError):  # its own doing: it left, was silent, or does not trust us
            connection.close()
        except asyncio.CancelledError:
            connection.close()
            raise

    async def _has_spoken(self, connection: socket.socket) -> None:
        """Wait until there is something to read, without reading it."""
        heard = asyncio.Event()
        self._loop.add_reader(connection, heard.set)
        try:
            await heard.wait()
        finally:
            self._loop.remove_reader(connection)

    async def _send_away(self, connection: socket.socket) -> None:
        with connection:
            if not connection.recv(1, socket.MSG_PEEK):  # it has gone again
                return
            data, headers = body_of(problem(400, _PLAIN))
            head = "".join(f"{name}: {value}\r\n" for name, value in {**headers, "connection": "close"}.items())
            answer = f"HTTP/1.1 400 Bad Request\r\n{head}content-length: {len(data)}\r\n\r\n".encode() + data
            await self._loop.sock_sendall(connection, answer)
            connection.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(self._drain(connection), LINGER_S)

    async def _drain(self, connection: socket.socket) -> None:
        left = _MOST_UNREAD
        while left > 0 and (read := await self._loop.sock_recv(connection, left)):
            left -= len(read)
