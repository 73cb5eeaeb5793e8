"""What waits for the orchestrator's loop: bounded, so that the network waits when the loop cannot keep up.

The threads of the connections put in, the loop takes out. At the bound whoever puts in waits, so that its connection
is not read any further: the broker keeps control messages, which are not acknowledged before they are in, and drops
chunks, which are asked for again. Nothing acknowledged is lost, and memory does not grow with what devices send.
"""

from __future__ import annotations

import queue
import threading
from typing import Generic, TypeVar

_T = TypeVar("_T")

# The most that the orchestrator asks for at a time is the windows of a few uploads, 6 MB, and the births of a thousand
# devices are 2 MB: whoever keeps to the protocol never fills it. Beside the model's weights it is little memory.
MOST_BYTES = 16 * 1024 * 1024
ITEM_BYTES = 1024  # what the objects around a short message take: a flood of empty ones has to end, too


class Mailbox(Generic[_T]):
    """Keeps what was put in, in its order, up to ``most_bytes``, or one item that is larger."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._queue: queue.SimpleQueue[tuple[_T, int]] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._bytes = 0
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """How much waits."""
        return self._bytes

    def put(self, item: _T, size: int) -> None:
        """Put in something of ``size`` bytes; wait until there is room. When it is closed, it is forgotten."""
        size += ITEM_BYTES
        with self._room:
            self._room.wait_for(lambda: self._closed or not self._bytes or self._bytes + size <= self._most_bytes)
            if self._closed:
                return
            self._bytes += size
        self._queue.put((item, size))

    def put_own(self, item: _T) -> None:
        """Put in what the loop itself waits for: there is always room."""
        self._queue.put((item, 0))

    def get(self, timeout_s: float = 0.0) -> _T:
        """Take the oldest item; wait for one up to ``timeout_s`` seconds. Raises queue.Empty if there is none."""
        item, size = self._queue.get(block=timeout_s > 0, timeout=timeout_s or None)
        if size:
            with self._room:
                self._bytes -= size
                self._room.notify_all()
        return item

    def close(self) -> None:
        """Nobody takes anything out any more: who waits is let go."""
        with self._room:
            self._closed = True
            self._room.notify_all()
