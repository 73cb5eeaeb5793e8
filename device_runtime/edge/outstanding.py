"""What was handed to the client and is not out yet: acknowledgements to come, and bulk that is still to be written."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol


class Sending(Protocol):
    """One packet on its way: the MQTT library's ``MQTTMessageInfo``, or the bulk client's."""

    def wait_for_publish(self, timeout: float | None = None) -> None:
        """Wait until it is out."""

    def is_published(self) -> bool:
        """Whether it is written (QoS 0) or acknowledged (QoS 1)."""


class Unacknowledged:
    """The packets of QoS 1 that the broker has not acknowledged; the owner locks."""

    def __init__(self) -> None:
        self._packets: deque[Sending] = deque()

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, packet: Sending) -> None:
        """One more; those at the front that are done are forgotten."""
        self._packets.append(packet)
        while self._packets and is_done(self._packets[0]):
            self._packets.popleft()

    def all(self) -> list[Sending]:
        """All of them, oldest first."""
        return list(self._packets)

    def clear(self) -> None:
        """They will not be acknowledged any more."""
        self._packets.clear()


class BulkQueue:
    """The packets of QoS 0 that one connection has not written; what an earlier one did not write is lost."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._packets: deque[tuple[Sending, int]] = deque()
        self._connection = 0

    def add(self, connection: int, packet: Sending, size: int) -> None:
        """One more, of ``size`` bytes."""
        self._forget_others(connection)
        self._packets.append((packet, size))

    def has_room(self, connection: int, size: int, wait_s: float) -> bool:
        """Whether ``size`` more bytes fit; if not, wait for the oldest packet to be written first."""
        self._forget_others(connection)
        if not self._packets or sum(queued for _, queued in self._packets) + size <= self._most_bytes:
            return True
        if is_done(self._packets[0][0], wait_s):
            self._packets.popleft()
        return False

    def _forget_others(self, connection: int) -> None:
        if self._connection != connection:
            self._packets.clear()
            self._connection = connection


def is_done(packet: Sending, wait_s: float = 0.0) -> bool:
    """Whether a packet is out, or lost with its connection; waits for it up to ``wait_s`` seconds."""
    try:
        if wait_s > 0:
            packet.wait_for_publish(wait_s)
        return packet.is_published()
    except (RuntimeError, ValueError):
        return True


def wait_for(packets: list[Sending], until: float) -> None:
    """Wait for all of them until ``until`` (monotonic seconds)."""
    for packet in packets:
        is_done(packet, wait_s=until - time.monotonic())
