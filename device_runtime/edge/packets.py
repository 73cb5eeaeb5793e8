"""The packets of a connection that carries QoS 0 only, in MQTT 5 and 3.1.1: bytes in, packets out. No sockets.

What large messages need and a general client library does not give: a payload is received into the memory it stays in,
and sent from the memory it lies in. Section numbers are those of the MQTT 5 standard.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

CONNACK, PUBLISH, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 0x20, 0x30, 0x90, 0xB0, 0xD0, 0xE0
PINGREQ = b"\xc0\x00"
GOODBYE = b"\xe0\x00"  # without a reason code: a normal disconnection in both versions
# The largest packet that is taken in: as much as our brokers carry (broker/README.md); more is not ours.
MAX_PACKET = 1024 * 1024
HEAD_BYTES = 16 * 1024  # where packets are looked for; what is larger than the rest of it gets memory of its own
FAILURE = 0x80  # reason codes from here on (2.4)
_SESSION_EXPIRY, _SERVER_KEEP_ALIVE, _MAXIMUM_PACKET = 0x11, 0x13, 0x27
# Bytes of each property's value (2.2.2.2); 0: a length of two bytes comes first, -1: a number of variable length.
_PROPERTY_BYTES: Mapping[int, int] = {
    0x01: 1, 0x02: 4, 0x03: 0, 0x08: 0, 0x09: 0, 0x0B: -1, 0x11: 4, 0x12: 0, 0x13: 2, 0x15: 0, 0x16: 0, 0x17: 1,
    0x19: 1, 0x1A: 0, 0x1C: 0, 0x1F: 0, 0x21: 2, 0x22: 2, 0x23: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1,
    0x2A: 1,
}  # fmt: skip
_USER_PROPERTY = 0x26  # two texts
# What the return codes of a 3.1.1 CONNACK are in MQTT 5.
_CODES_OF_THREE = {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}


class NotMqtt(Exception):  # noqa: N818 - told as the reason why a connection ended
    """The other side sent what no broker sends."""


class Packet(NamedTuple):
    """What came: the first byte, and what follows the length."""

    first: int
    body: bytearray

    @property
    def kind(self) -> int:
        """The type of the packet, its flags left out."""
        return self.first & 0xF0


class Publish(NamedTuple):
    """A message; ``payload`` is a view into the packet's own memory."""

    topic: bytes
    payload: memoryview
    retained: bool


class Connack(NamedTuple):
    """The broker's answer to a CONNECT."""

    code: int  # a reason code of MQTT 5, whatever the version
    session_present: bool
    keep_alive_s: int | None = None
    maximum_packet: int | None = None


class Reader:
    """Cuts a stream into packets: receive into ``room()``, then tell ``advance`` how much came."""

    def __init__(self) -> None:
        self._head = memoryview(bytearray(HEAD_BYTES))
        self._held = 0
        self._large: tuple[int, bytearray] | None = None
        self._large_held = 0

    def room(self) -> memoryview:
        """Where the next bytes belong; never empty."""
        if self._large is not None:
            return memoryview(self._large[1])[self._large_held :]
        return self._head[self._held :]

    def advance(self, count: int) -> list[Packet]:
        """Take note of ``count`` bytes that are in ``room()`` now; returns the packets that are whole.

        Raises:
            NotMqtt: the length of a packet is malformed, or over MAX_PACKET.
        """
        if self._large is not None:
            self._large_held += count
            first, body = self._large
            if self._large_held < len(body):
                return []
            self._large = None
            return [Packet(first, body)]
        self._held += count
        return self._cut()

    def _cut(self) -> list[Packet]:
        packets: list[Packet] = []
        start = 0
        while (length := _remaining_length(self._head[start + 1 : self._held])) is not None:
            remaining, size = length
            begin = start + 1 + size
            if remaining > MAX_PACKET:
                message = f"a packet of {remaining} bytes"
                raise NotMqtt(message)
            if begin + remaining > self._held and remaining > HEAD_BYTES // 2:
                self._begin_large(self._head[start], remaining, begin)
                return packets
            if begin + remaining > self._held:
                break
            packets.append(Packet(self._head[start], bytearray(self._head[begin : begin + remaining])))
            start = begin + remaining
        rest = bytes(self._head[start : self._held])
        self._head[: len(rest)] = rest
        self._held = len(rest)
        return packets

    def _begin_large(self, first: int, remaining: int, begin: int) -> None:
        body, there = bytearray(remaining), self._held - begin
        body[:there] = self._head[begin : self._held]
        self._large, self._large_held, self._held = (first, body), there, 0


def _remaining_length(data: memoryview) -> tuple[int, int] | None:
    """The number of variable length at the beginning of ``data`` and its bytes (1.5.5); None while it is not whole."""
    value = 0
    for place, byte in enumerate(data[:4]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, place + 1
    if len(data) >= 4:
        message = "a length of more than four bytes"
        raise NotMqtt(message)
    return None


# ------------------------------------------------------------------------------------------------------------- reading


def read_publish(packet: Packet, five: bool) -> Publish:
    """Read a PUBLISH of QoS 0. Raises NotMqtt if it is malformed, or of another QoS: we asked for none."""
    view = memoryview(packet.body)
    end = begin = 2 + int.from_bytes(view[:2], "big")
    if five:
        size, digits = _remaining_length(view[end : end + 4]) or (len(view), 0)
        begin = end + digits + size
    if packet.first & 0x06 or begin > len(view):
        message = "a PUBLISH that ends too soon, or is not of QoS 0"
        raise NotMqtt(message)
    return Publish(bytes(view[2:end]), view[begin:], bool(packet.first & 1))


def read_connack(packet: Packet, five: bool) -> Connack:
    """Read a CONNACK. Raises NotMqtt if it is malformed."""
    body = packet.body
    if len(body) < 2:
        message = "a CONNACK that ends too soon"
        raise NotMqtt(message)
    present = bool(body[0] & 1)
    if not five or len(body) == 2:  # a broker that does not know MQTT 5 says so in 3.1.1
        return Connack(_CODES_OF_THREE.get(body[1], body[1]), present)
    told = _properties(memoryview(body)[2:])
    return Connack(body[1], present, told.get(_SERVER_KEEP_ALIVE), told.get(_MAXIMUM_PACKET))


def read_suback(packet: Packet, five: bool) -> bytes:
    """The reason codes of a SUBACK. Raises NotMqtt if it is malformed."""
    body = memoryview(packet.body)[2:]
    if not five:
        return bytes(body)
    size, digits = _remaining_length(body) or (len(body), 0)
    return bytes(body[digits + size :])


def read_disconnect(packet: Packet) -> int:
    """The reason code of the broker's DISCONNECT, which only MQTT 5 has."""
    return packet.body[0] if packet.body else 0


def _properties(data: memoryview) -> dict[int, int]:
    """The properties that are numbers, by identifier."""
    size, digits = _remaining_length(data) or (len(data) + 1, 0)
    data, found = data[digits : digits + size], {}
    if len(data) != size:
        message = "properties that end too soon"
        raise NotMqtt(message)
    while data:
        identifier, data = data[0], data[1:]
        length = _value_bytes(identifier, data)
        if len(data) < length:
            message = f"the property {identifier:#x} without its value"
            raise NotMqtt(message)
        found[identifier] = int.from_bytes(data[:length], "big")
        data = data[length:]
    return found


def _value_bytes(identifier: int, data: memoryview) -> int:
    if identifier == _USER_PROPERTY:
        key = 2 + int.from_bytes(data[:2], "big")
        return key + 2 + int.from_bytes(data[key : key + 2], "big")
    fixed = _PROPERTY_BYTES.get(identifier)
    if fixed is None:
        message = f"an unknown property {identifier:#x}"
        raise NotMqtt(message)
    if fixed == 0:
        return 2 + int.from_bytes(data[:2], "big")
    return fixed if fixed > 0 else (_remaining_length(data) or (0, 5))[1]


# ------------------------------------------------------------------------------------------------------------- writing


def connect(name: str, keep_alive_s: int, user: str | None, password: str | None, *, five: bool) -> bytes:
    """A CONNECT that asks for a session which ends with the connection."""
    flags = 0x02 | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    head = _text("MQTT") + bytes([5 if five else 4, flags]) + struct.pack(">H", keep_alive_s)
    properties = struct.pack(">BBI", 5, _SESSION_EXPIRY, 0) if five else b""
    credentials = b"".join(_text(each) for each in (user, password) if each is not None)
    return _packet(0x10, head + properties + _text(name) + credentials)


def publish_head(topic: str, size: int, *, five: bool) -> bytes:
    """What goes before the ``size`` bytes of a message's payload, with QoS 0."""
    variable = _text(topic) + (b"\0" if five else b"")
    return b"\x30" + encoded_length(len(variable) + size) + variable


def subscribe(identifier: int, topic: str, *, five: bool) -> bytes:
    """A SUBSCRIBE with QoS 0."""
    return _packet(0x82, struct.pack(">H", identifier) + (b"\0" if five else b"") + _text(topic) + b"\0")


def unsubscribe(identifier: int, topic: str, *, five: bool) -> bytes:
    """An UNSUBSCRIBE."""
    return _packet(0xA2, struct.pack(">H", identifier) + (b"\0" if five else b"") + _text(topic))


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + encoded_length(len(body)) + body


def encoded_length(value: int) -> bytes:
    """A variable byte integer (1.5.5 of MQTT 5)."""
    digits = bytearray()
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack(">H", len(data)) + data
