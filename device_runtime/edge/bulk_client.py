"""The client of a bulk connection: QoS 0 only, payloads never copied. ``Link`` drives it as it drives the library's.

A general client library takes a large message apart into many small reads and copies it several times on its way
(measured with paho-mqtt 2.2: a third of the processor time of a round). This one receives a payload into the memory it
stays in and sends it from where it lies. What is not about bytes, from reconnecting to back-off, is the link's.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from device_runtime.edge import packets
from device_runtime.edge.address import Address
from device_runtime.edge.packets import Connack, NotMqtt, Packet

log = logging.getLogger(__name__)

_Socket = socket.socket  # the client has a method of that name
CONNECT_S = 5.0  # for TCP, and again for TLS: as long as the client library waits
READS = 16  # of a socket at a time, so that what is to be sent does not wait while a fast sender goes on
_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Code(NamedTuple):
    """A reason code of MQTT 5."""

    value: int

    @property
    def is_failure(self) -> bool:
        """Whether it refuses something."""
        return self.value >= packets.FAILURE

    def __str__(self) -> str:
        return f"reason code {self.value:#04x}"


class Flags(NamedTuple):
    """What the callbacks ``on_connect`` and ``on_disconnect`` ask about."""

    session_present: bool = False
    is_disconnect_packet_from_server: bool = False


class Told(NamedTuple):
    """The properties of a CONNACK."""

    MaximumPacketSize: int | None


class Message(NamedTuple):
    """A message that arrived."""

    topic: str
    payload: memoryview
    retain: bool


class Sending:
    """A message on its way; done when its last byte was written, or its connection is gone."""

    rc = 0  # it was taken: what cannot be written now waits

    def __init__(self, pieces: list[memoryview]) -> None:
        self.pieces = pieces
        self._done = threading.Event()

    def finish(self) -> None:
        """Nothing of it is left to be written."""
        self._done.set()

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait until it is done, or ``timeout`` seconds have passed."""
        self._done.wait(timeout)

    def is_published(self) -> bool:
        """Whether it is done."""
        return self._done.is_set()


class BulkClient:
    """One connection at a time to the broker at ``address``, in MQTT 5 (``five``) or 3.1.1; encrypted with
    the context ``tls``.

    The methods and callbacks are those of the client library that ``Link`` needs; ``publish`` may be called from any
    thread, all others from the link's own.
    """

    def __init__(
        self, address: Address, name: str, keepalive_s: int, *, five: bool, tls: ssl.SSLContext | None
    ) -> None:
        self.on_connect: Callable[..., None]
        self.on_disconnect: Callable[..., None]
        self.on_message: Callable[..., None]
        self.on_subscribe: Callable[..., None]
        self.on_socket_register_write: Callable[..., None]
        self._address, self._name, self._five, self._tls = address, name, five, tls
        self._keepalive_s = self._agreed_s = keepalive_s
        self._socket: _Socket | None = None
        self._reader = packets.Reader()
        self._out: deque[Sending] = deque()
        self._lock = threading.Lock()  # of ``_out``
        self._identifier = 0
        self._last_in = self._last_out = 0.0
        self._pinged: float | None = None  # since when an answer is waited for

    def socket(self) -> _Socket | None:
        """The connection's socket; None when there is none."""
        return self._socket

    def reconnect(self) -> None:
        """Open a connection and say who we are. Raises OSError if it cannot be opened."""
        sock = socket.create_connection((self._address.host, self._address.port), CONNECT_S)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self._address.host)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self._drop_queued()
        self._socket, self._reader, self._pinged = sock, packets.Reader(), None
        self._last_in = self._last_out = time.monotonic()
        self._agreed_s = self._keepalive_s
        user, password = self._address.user, self._address.password
        self._queue(packets.connect(self._name, self._keepalive_s, user, password, five=self._five))

    # --- sending -----------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes | bytearray, _qos: int = 0, _retain: bool = False) -> Sending:
        """Queue a message with QoS 0; its payload must not change before it is written."""
        head = packets.publish_head(topic, len(payload), five=self._five)
        return self._queue(head, payload)

    def subscribe(self, topic: str, _qos: int = 0) -> None:
        """Receive ``topic`` on this connection, with QoS 0."""
        self._queue(packets.subscribe(self._next_identifier(), topic, five=self._five))

    def unsubscribe(self, topic: str) -> None:
        """Receive ``topic`` no longer."""
        self._queue(packets.unsubscribe(self._next_identifier(), topic, five=self._five))

    def disconnect(self) -> None:
        """Say goodbye after what is queued; the broker then hangs up."""
        self._queue(packets.GOODBYE)

    def want_write(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._out)

    def loop_write(self) -> None:
        """Write as much as the socket takes now."""
        while self._socket is not None and self._out:
            sending = self._out[0]
            try:
                count = self._send(self._socket, sending.pieces)
            except _AGAIN:
                return
            except OSError:
                self._close()
                return
            self._last_out = time.monotonic()
            if not _advance(sending.pieces, count):
                return
            self._out.popleft()
            sending.finish()

    def _send(self, sock: _Socket, pieces: list[memoryview]) -> int:
        # A TLS socket has no sendmsg; it copies what it encrypts anyway.
        return sock.send(pieces[0]) if self._tls is not None else sock.sendmsg(pieces)

    def _queue(self, *pieces: bytes | bytearray) -> Sending:
        sending = Sending([memoryview(piece) for piece in pieces if piece])
        with self._lock:
            self._out.append(sending)
        self.on_socket_register_write()
        return sending

    def _next_identifier(self) -> int:
        self._identifier = self._identifier % 0xFFFF + 1
        return self._identifier

    # --- receiving ---------------------------------------------------------------------------------------------------

    def loop_read(self) -> None:
        """Take in what has come; calls back for every packet that is whole."""
        for _ in range(READS):
            sock = self._socket
            if sock is None:
                return
            try:
                count = sock.recv_into(self._reader.room())
            except _AGAIN:
                return
            except OSError:
                count = 0
            if not count:
                self._close()
                return
            self._last_in, self._pinged = time.monotonic(), None
            try:
                for packet in self._reader.advance(count):
                    self._take(packet)
            except NotMqtt as problem:
                log.warning("%s: %s sent %s", self._name, self._address, problem)
                self._close()

    def _take(self, packet: Packet) -> None:
        match packet.kind:
            case packets.PUBLISH:
                self._on_publish(packet)
            case packets.CONNACK:
                self._on_connack(packets.read_connack(packet, self._five))
            case packets.SUBACK:
                codes = [Code(value) for value in packets.read_suback(packet, self._five)]
                self.on_subscribe(self, None, 0, codes, None)
            case packets.DISCONNECT if self._five:
                self._close(Flags(is_disconnect_packet_from_server=True), packets.read_disconnect(packet))
            case packets.PINGRESP | packets.UNSUBACK:
                pass  # that it came is all it says
            case _:
                message = f"a packet that begins with {packet.first:#04x}"
                raise NotMqtt(message)

    def _on_publish(self, packet: Packet) -> None:
        topic, payload, retained = packets.read_publish(packet, self._five)
        try:
            message = Message(topic.decode(), payload, retained)
        except UnicodeDecodeError:
            log.warning("%s: a message on a topic that is not UTF-8 is dropped", self._name)
            return
        self.on_message(self, None, message)

    def _on_connack(self, answer: Connack) -> None:
        if answer.keep_alive_s is not None:
            self._agreed_s = answer.keep_alive_s
        told = Told(answer.maximum_packet)
        self.on_connect(self, None, Flags(answer.session_present), Code(answer.code), told)
        if answer.code >= packets.FAILURE:
            self._close()

    # --- the clock ---------------------------------------------------------------------------------------------------

    def loop_misc(self) -> None:
        """Keep the connection alive, or end it when the broker does not answer."""
        now, most = time.monotonic(), self._agreed_s
        if self._socket is None or not most:
            return
        if self._pinged is not None:
            if now - self._pinged >= most:
                self._close()
        elif max(now - self._last_in, now - self._last_out) >= most:
            self._pinged = now
            self._queue(packets.PINGREQ)

    def _close(self, flags: Flags = Flags(), code: int = packets.FAILURE) -> None:  # noqa: B008 - it is immutable
        sock, self._socket = self._socket, None
        if sock is None:
            return
        with contextlib.suppress(OSError):
            sock.close()
        self._drop_queued()
        self.on_disconnect(self, None, flags, Code(code), None)

    def _drop_queued(self) -> None:
        """What was queued for a connection is lost with it."""
        with self._lock:
            lost, self._out = self._out, deque()
        for sending in lost:
            sending.finish()


def _advance(pieces: list[Any], count: int) -> bool:
    """Take ``count`` bytes off the front; returns whether nothing is left."""
    while pieces and count >= len(pieces[0]):
        count -= len(pieces.pop(0))
    if pieces:
        pieces[0] = pieces[0][count:]
    return not pieces
