# mypy: ignore-errors
"""An MQTT 3.1.1 client for MicroPython: one connection, QoS 0 and 1, a last will; payloads may be streamed.

A packet that is larger than the heap is no harm: what comes on a topic of ``streams`` is handed over as a reader, and
``publish_from`` writes what a reader gives. Blocking, but never longer than STALL_MS without a byte.
"""

import select
import socket
import struct
import time

from .wire import Refused

KEEPALIVE_S = 20
PING_MS = 8000  # a second ping still fits into the keep-alive
STALL_MS = 10000  # a packet that began and does not go on for so long: the connection is dead
PIECE = 1024  # bytes of the one buffer


class Lost(Exception):
    """The connection is gone, or the broker refused it; the text says why."""


class Client:
    """A connection to a broker.

    ``on_message(topic, payload)`` is called from ``poll``; ``on_stream(topic, length, reader)`` for topics in
    ``streams``, where ``reader(view)`` fills a buffer; what it leaves unread is read and dropped.
    """

    def __init__(self, config, name, will_topic, will, on_message, on_stream):
        self._config, self._name = config, name
        self._will = (will_topic, will)
        self._on_message, self._on_stream = on_message, on_stream
        self.streams = set()
        self._buffer = memoryview(bytearray(PIECE))
        self._socket = self._poll = None
        self._packet = 0
        self._left = 0  # of a streamed payload

    def connect(self):
        """Connect with a clean session. Raises Lost."""
        self.close()
        try:
            self._open()
            flags, payload = 2 | 4 | 8 | 32, b""  # clean session; the will: there, QoS 1, retained
            user, password = self._config.get("user"), self._config.get("password")
            for text in (self._config.get("client") or self._name, self._will[0], self._will[1], user, password):
                payload += b"" if text is None else _text(text)
            flags |= (128 if user is not None else 0) | (64 if password is not None else 0)
            self._send(0x10, _text("MQTT") + struct.pack(">BBH", 4, flags, KEEPALIVE_S) + payload)
            if self._read_byte() != 0x20 or self._length() != 2:
                raise Lost("the broker does not speak MQTT 3.1.1")
            self._read_byte()
            code = self._read_byte()
        except (OSError, Refused, MemoryError) as error:
            self.close()
            address = "%s:%d" % (self._config["broker"], self._config.get("port", 1883))
            raise Lost("cannot connect to %s: %s" % (address, str(error) or "out of memory"))
        if code:
            self.close()
            message = "the broker refuses this device with code %d" % code
            raise Lost(message)
        self._heard = self._asked = time.ticks_ms()

    def _open(self):
        config = self._config
        address = socket.getaddrinfo(config["broker"], config.get("port", 1883), 0, socket.SOCK_STREAM)[0][-1]
        self._socket = socket.socket()
        self._socket.settimeout(STALL_MS / 1000)  # also of what is written: a broker that takes nothing is gone
        self._socket.connect(address)
        if config.get("ca"):
            from . import secure

            plain = self._socket
            try:
                self._socket = secure.context(config).wrap_socket(plain, server_hostname=config["broker"])
            except (OSError, ValueError) as error:
                raise OSError(secure.why(error))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def close(self):
        """Drop the connection; the broker says the last will."""
        if self._socket:
            self._socket.close()
        self._socket = None

    def disconnect(self):
        """Leave politely: no last will."""
        try:
            self._send(0xE0, b"")
        except (OSError, AttributeError):
            pass
        self.close()

    def subscribe(self, topic, qos):
        """Ask for a topic; the broker's answer is not waited for, as all that is missed comes again."""
        self._guarded(0x82, self._number() + _text(topic) + bytes((qos,)))

    def publish(self, topic, payload, qos=1, retain=False):
        """Send a message. A PUBACK is not waited for: it is not delivery, and all that matters is said again."""
        head = _text(topic) + (self._number() if qos else b"")
        self._guarded(0x30 | qos << 1 | (1 if retain else 0), head + payload)

    def publish_from(self, topic, header, length, reader):
        """Send ``header`` and ``length`` bytes that ``reader(view)`` fills in, QoS 0."""
        head = _text(topic) + header
        try:
            self._write(b"\x30" + _varint(len(head) + length) + head)
            while length:
                view = self._buffer[: min(length, PIECE)]
                reader(view)
                self._write(view)
                length -= len(view)
        except OSError as error:
            self._lose(error)

    def poll(self, wait_ms):
        """Take in what comes within ``wait_ms``, one packet at most; keep the connection alive. Raises Lost."""
        now = time.ticks_ms()
        if time.ticks_diff(now, self._heard) > 2 * PING_MS + STALL_MS:
            self._lose("nothing heard of the broker")
        if time.ticks_diff(now, self._asked) > PING_MS:
            self._asked = now
            self._guarded(0xC0, b"")
        try:
            if not self._poll.poll(wait_ms):
                return False
            self._take()
        except OSError as error:
            self._lose(error)
        self._heard = time.ticks_ms()
        return True

    def _take(self):
        first = self._read_byte()
        length = self._length()
        if first >> 4 != 3:
            self._left = length
            self._drop()
            return
        topic = str(self._read(struct.unpack(">H", self._read(2))[0]), "utf-8")
        qos = first >> 1 & 3
        number = bytes(self._read(2)) if qos else b""
        self._left = length - 2 - len(topic.encode()) - len(number)
        if topic in self.streams:
            self._on_stream(topic, self._left, self._fill)
            self._drop()
        elif self._left > self._config["max_control"]:
            self._drop()  # no message for a board is so large
        else:
            try:
                payload = bytearray(self._left)
            except MemoryError:
                payload = None
            if payload is None:
                self._drop()  # it comes again, when there is more room
            else:
                self._fill(memoryview(payload))
                self._on_message(topic, payload)
        if number:
            self._send(0x40, number)

    def _fill(self, view):
        try:
            if len(view) > self._left:
                raise OSError("a frame ends before its data")
            self._read_into(view)
        except OSError as error:
            self._lose(error)  # not an error of the reader's, such as of the flash
        self._left -= len(view)

    def _drop(self):
        while self._left:
            self._fill(self._buffer[: min(self._left, PIECE)])

    def _read(self, count):
        data = bytearray(count)
        self._read_into(memoryview(data))
        return data

    def _read_byte(self):
        return self._read(1)[0]

    def _length(self):
        number = shift = 0
        while True:
            byte = self._read_byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7

    def _read_into(self, view):
        place = 0
        while place < len(view):
            if not self._poll.poll(STALL_MS):
                raise OSError("the broker fell silent in a packet")
            # one read may give less than was asked for: recv, not readinto, which would block for the rest
            piece = (
                self._socket.recv(min(len(view) - place, PIECE))
                if hasattr(self._socket, "recv")
                else (self._socket.read(min(len(view) - place, PIECE)))
            )
            if not piece:
                raise OSError("the broker closed the connection")
            view[place : place + len(piece)] = piece
            place += len(piece)

    def _number(self):
        self._packet = self._packet % 65535 + 1
        return struct.pack(">H", self._packet)

    def _guarded(self, first, body):
        try:
            self._send(first, body)
        except OSError as error:
            self._lose(error)

    def _send(self, first, body):
        if self._socket is None:
            raise OSError("not connected")
        self._write(bytes((first,)) + _varint(len(body)) + body)

    def _write(self, data):
        view = memoryview(data)
        while len(view):
            sent = self._socket.write(view)
            view = view[sent or 0 :]

    def _lose(self, why):
        self.close()
        message = "connection lost: %s" % why
        raise Lost(message)


def _text(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(data)) + data


def _varint(number):
    data = b""
    while True:
        number, low = number >> 7, number & 127
        data += bytes((low | (128 if number else 0),))
        if not number:
            return data
