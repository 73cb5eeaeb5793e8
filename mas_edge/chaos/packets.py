"""MQTT packets as far as a fault needs them: where one ends, and where the payload of a PUBLISH begins. Pure.

Sections of MQTT 5: 2.1 fixed header, 3.1.2 CONNECT, 3.3 PUBLISH, 3.4 PUBACK.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_runtime.edge.packets import encoded_length

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
FIVE = 5
# The largest packet that is let through: twice what the managed broker takes. More is not one of ours.
MAX_PACKET_BYTES = 2 * 1024 * 1024
_MAX_LENGTH_BYTES = 4


class Malformed(Exception):  # noqa: N818 - not for users: whoever sent this is hung up on
    """The stream is not MQTT, or a packet is over MAX_PACKET_BYTES."""


class Splitter:
    """Cuts a stream of bytes into whole packets."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that are whole with ``data``. Raises Malformed."""
        self._pending += data
        packets = []
        while (size := _packet_size(self._pending)) is not None and len(self._pending) >= size:
            packets.append(bytes(self._pending[:size]))
            del self._pending[:size]
        return packets


def kind_of(packet: bytes) -> int:
    """The type of a packet, such as PUBLISH."""
    return packet[0] >> 4


def version_of(connect: bytes) -> int:
    """The protocol version that a CONNECT asks for: 4 is MQTT 3.1.1, 5 is MQTT 5."""
    start = _header_size(connect)
    name = int.from_bytes(connect[start : start + 2], "big")
    return connect[start + 2 + name]


def client_of(connect: bytes, version: int) -> str:
    """The name that a CONNECT gives its client."""
    start = _header_size(connect)
    place = start + 2 + int.from_bytes(connect[start : start + 2], "big") + 4  # version, flags, keep-alive
    if version == FIVE:
        length, used = _length(connect[place:])
        place += length + used
    return connect[place + 2 : place + 2 + int.from_bytes(connect[place : place + 2], "big")].decode(errors="replace")


@dataclass(frozen=True)
class Publish:
    """A PUBLISH taken apart: flags, everything before the payload, and the payload."""

    flags: int
    head: bytes
    payload: bytes
    packet_id: bytes  # empty with QoS 0

    def packet(self) -> bytes:
        """Put it together again."""
        body = self.head + self.payload
        return bytes([PUBLISH << 4 | self.flags]) + encoded_length(len(body)) + body

    def acknowledgement(self) -> bytes:
        """The PUBACK that a broker answers with; empty with QoS 0, which asks for none."""
        return b"\x40\x02" + self.packet_id if self.packet_id else b""


def parse_publish(packet: bytes, version: int) -> Publish:
    """Take a PUBLISH apart. Raises Malformed."""
    start = _header_size(packet)
    end = start + 2 + int.from_bytes(packet[start : start + 2], "big")
    packet_id = b""
    if packet[0] & 0b110:
        packet_id, end = packet[end : end + 2], end + 2
    if version == FIVE:
        length, used = _length(packet[end:])
        end += length + used
    if end > len(packet):
        raise Malformed
    return Publish(packet[0] & 0x0F, packet[start:end], packet[end:], packet_id)


def _packet_size(data: bytes | bytearray) -> int | None:
    """The bytes of the packet that ``data`` begins with; None while its header is not whole."""
    if len(data) < 2 or (all(byte & 0x80 for byte in data[1:5]) and len(data) < 1 + _MAX_LENGTH_BYTES):
        return None
    length, used = _length(data[1 : 1 + _MAX_LENGTH_BYTES])
    if length > MAX_PACKET_BYTES:
        raise Malformed
    return 1 + used + length


def _header_size(packet: bytes) -> int:
    return 1 + _length(packet[1 : 1 + _MAX_LENGTH_BYTES])[1]


def _length(data: bytes | bytearray) -> tuple[int, int]:
    """A variable byte integer and how many bytes it takes."""
    value = 0
    for place, byte in enumerate(data[:_MAX_LENGTH_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, place + 1
    raise Malformed
