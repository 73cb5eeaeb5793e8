"""Messages larger than the packets a broker carries: cut into fragments on the same topic, and put together again.

A fragment is an MQTT message of its own, numbers big-endian:

     8 bytes   MAGIC; no JSON begins so, and no artifact's name by chance
     8 bytes   number of the message: drawn at random once, then counted by its sender
     2 bytes   index of the fragment, u16
     2 bytes   how many fragments the message has, u16, 2 to MAX_FRAGMENTS
     n bytes   a piece of the message, 1 or more

A lost fragment is a lost message: whoever needs certainty says it again, as with any other. No clock and no sockets.
"""

from __future__ import annotations

import secrets
import struct
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from mas_edge.protocol.errors import BrokerError, MessageError

MAGIC = b"\0mas-fr1"
MAX_FRAGMENTS = 2048  # a frame of 1 MiB on a broker of MIN_PACKET
MIN_PACKET = 1024  # a topic has up to 200 bytes; below this the headers outweigh what they carry
PER_TOPIC = 4  # incomplete messages of one topic: its sender has two connections, and may have lost one before
ASSEMBLY_BYTES = 2 * 1024 * 1024  # what a device keeps of incomplete messages: a few of the largest chunks
# A broker that does not tell its limit hangs up on what is over it. These are the usual ones, in packets (measured or
# from the vendors' pages): the next lower one is tried after SUSPECTS connections that ended SOON_S after a packet
# larger than any that went well.
USUAL_LIMITS = (1024 * 1024, 256 * 1024, 128 * 1024, 20 * 1024)
SUSPECTS = 2
SOON_S = 5.0

_HEADER = struct.Struct(">8sQHH")
_PACKET_BYTES = 16  # more than the header of any PUBLISH that we send, without its topic
_PIECE_BYTES = 256  # what Python needs for a piece besides its bytes, so that a million of one byte are not free


def smallest(*limits: int) -> int:
    """The smallest of some limits; 0 stands for none known, here and everywhere."""
    return min((limit for limit in limits if limit), default=0)


def room(limit: int, topic_bytes: int) -> int:
    """How many bytes of a message fit into one packet of ``limit`` bytes."""
    return limit - topic_bytes - _PACKET_BYTES


@dataclass
class PacketLimit:
    """What is known of the largest packet that a connection carries, in bytes of whole packets.

    Attributes:
        configured: by the owner, in the broker's URL.
        told: by the broker, at the last connect.
        learned: from connections that ended at once after a large packet.
    """

    configured: int = 0
    told: int = 0
    learned: int = 0
    _number: int = field(default_factory=lambda: secrets.randbits(63))
    _proven: int = USUAL_LIMITS[-1]
    _largest: int = 0
    _largest_at: float = 0.0
    _suspects: int = 0

    @property
    def known(self) -> int:
        """The smallest of them; 0 = none known."""
        return smallest(self.configured, self.told, self.learned)

    def split(
        self, topic: str, payload: bytes | bytearray, other: int = 0, *, retain: bool = False
    ) -> Sequence[bytes | bytearray]:
        """Return what to send for ``payload``: itself where it fits, else its fragments.

        Args:
            topic: where it goes.
            payload: the message.
            other: the receiver's limit, 0 = none known.
            retain: a broker retains one message a topic, so this one must fit.

        Raises:
            BrokerError: it cannot be sent within the limit; says what to do.
        """
        limit, topic_bytes = smallest(self.known, other), len(topic.encode())
        if not limit or len(payload) <= room(limit, topic_bytes):
            return [payload]
        piece = room(limit, topic_bytes) - _HEADER.size
        count = -(-len(payload) // piece) if piece > 0 else MAX_FRAGMENTS + 1
        if retain or count > MAX_FRAGMENTS:
            what = "a retained message" if retain else "a message"
            message = (
                f"{what} of {len(payload)} bytes for {topic} cannot be sent in packets of {limit} bytes, the most that "
                "the broker accepts; raise its maximum packet size"
            )
            raise BrokerError(message)
        self._number += 1
        return [
            _HEADER.pack(MAGIC, self._number & (2**64 - 1), index, count)
            + payload[index * piece : (index + 1) * piece]
            for index in range(count)
        ]  # fmt: skip

    def sent(self, size: int, now: float) -> None:
        """A packet with ``size`` bytes of payload and topic went out."""
        if self._largest and now - self._largest_at > SOON_S:
            self._went_well()
        if size > self._largest:
            self._largest, self._largest_at = size, now

    def lost(self, now: float, *, too_large: bool) -> bool:
        """The connection ended; ``too_large``: the broker said that this was why.

        Returns:
            Whether a lower limit holds from now on: what waits for an acknowledgement would end the next one too.
        """
        largest = self._largest
        if now - self._largest_at > SOON_S:
            self._went_well()
        self._largest = 0
        if largest <= self._proven:
            return too_large
        self._suspects += 1
        if not too_large and self._suspects < SUSPECTS:
            return False
        self._suspects = 0
        self.learned = smallest(self.learned, next(step for step in USUAL_LIMITS if step < largest))
        return True

    def _went_well(self) -> None:
        if self._largest > self._proven:
            self._proven, self._suspects = self._largest, 0


@dataclass
class _Partial:
    count: int
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = 0


class Assembly:
    """Puts messages together. Keeps at most ``max_bytes`` of incomplete ones, and PER_TOPIC for each topic."""

    def __init__(self, max_bytes: int = ASSEMBLY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._partial: OrderedDict[tuple[str, int], _Partial] = OrderedDict()
        self._of_topic: dict[str, list[int]] = {}

    def take(self, topic: str, payload: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview | None:
        """Return the message that ``payload`` is or completes; None while fragments are missing.

        Raises:
            MessageError: a fragment that no message can have.
        """
        if payload[: len(MAGIC)] != MAGIC:
            return payload
        if len(payload) <= _HEADER.size:
            message = f"fragment of {len(payload)} bytes on {topic} carries nothing"
            raise MessageError(message)
        _, number, index, count = _HEADER.unpack_from(payload)
        partial = self._partial.get((topic, number)) or self._begin(topic, number, count)
        if not 2 <= count <= MAX_FRAGMENTS or index >= count or count != partial.count:
            self._drop(topic, number)
            message = f"fragment {index} of {count} on {topic} belongs to no message"
            raise MessageError(message)
        if index not in partial.pieces:
            partial.pieces[index] = bytes(payload[_HEADER.size :])
            self._grow(partial, len(payload) + _PIECE_BYTES)
        if len(partial.pieces) < count:
            self._make_room()
            return None
        self._drop(topic, number)
        return b"".join(partial.pieces[index] for index in range(count))

    def _begin(self, topic: str, number: int, count: int) -> _Partial:
        numbers = self._of_topic.setdefault(topic, [])
        if len(numbers) >= PER_TOPIC:
            self._drop(topic, numbers[0])
        self._of_topic.setdefault(topic, []).append(number)
        partial = self._partial[topic, number] = _Partial(count)
        return partial

    def _grow(self, partial: _Partial, size: int) -> None:
        partial.size += size
        self._bytes += size

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes:
            topic, number = next(iter(self._partial))
            self._drop(topic, number)

    def _drop(self, topic: str, number: int) -> None:
        self._bytes -= self._partial.pop((topic, number)).size
        self._of_topic[topic].remove(number)
        if not self._of_topic[topic]:
            del self._of_topic[topic]
