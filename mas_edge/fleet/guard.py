"""Keeps what serves a fleet up to date while it runs: fresh certificates, and nobody connected who was revoked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mas_edge.fleet.folder import Fleet
from mas_edge.protocol.errors import EdgeError

log = logging.getLogger(__name__)

# A revocation is another process's doing (mas-edge fleet revoke): this is how long it takes to be acted on.
LOOK_S = 1.0
REFRESH_S = 3600.0  # certificates have weeks left when their time comes
_WATCHED = ("crl.pem", "broker.pem", "orchestrator.pem")


class Guard:
    """Calls ``on_change`` on a thread of its own whenever a certificate or the list of revocations has changed."""

    def __init__(self, fleet: Fleet, on_change: Callable[[], None]) -> None:
        self._fleet = fleet
        self._on_change = on_change
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fleet guard", daemon=True)
        self._seen = self._state()

    def __enter__(self) -> Guard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        due = time.monotonic() + REFRESH_S
        while not self._stopping.wait(LOOK_S):
            try:
                if time.monotonic() > due:
                    due = time.monotonic() + REFRESH_S
                    self._fleet.refresh()
                state = self._state()
                if state != self._seen:
                    self._on_change()
                    self._seen = state  # not before: who was revoked and is still connected is tried again
            except (EdgeError, OSError) as error:
                log.error("the fleet in %s cannot be looked after: %s", self._fleet.folder, error)

    def _state(self) -> list[tuple[int, int]]:
        """They are always replaced whole: another file, another number."""
        stats = [self._fleet.file(name).stat() for name in _WATCHED]
        return [(stat.st_ino, stat.st_mtime_ns) for stat in stats]
