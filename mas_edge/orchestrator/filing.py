"""What waits for the disk, done beside the orchestrator's loop: whole files are synced, old ones removed.

The loop remains the only one who decides; it hands work over, and hears when it is done. What only takes processor time
is not worth a hand-over (measured: to write and hash each piece here made a round a tenth dearer).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

Work = Callable[[], None]


class Clerk(Protocol):
    """Carries out what it is handed, one after the other."""

    def hand(self, work: Work) -> None:
        """Have ``work``, which raises nothing, done after all that was handed over before."""
        ...


class AtOnce:
    """Does it before ``hand`` returns: where time is simulated, and for those who have no loop."""

    def hand(self, work: Work) -> None:
        """Do it."""
        work()


class Filing:
    """A clerk with a thread of its own."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def hand(self, work: Work) -> None:
        """As ``Clerk.hand``; returns at once."""
        self._queue.put(work)

    def close(self) -> None:
        """Return when all that was handed over is done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:  # a fault of ours must not end the clerk: the loop would wait for it for ever
                log.exception("filing failed")
