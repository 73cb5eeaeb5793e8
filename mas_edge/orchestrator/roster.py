"""What is written down of the devices, for people: as many as there are at a time in one transaction."""

from __future__ import annotations

import math
from collections.abc import Callable

from mas_edge.orchestrator.records import DeviceRecord
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.messages import Birth

# Between two transactions: a thousand devices that come at once were a thousand syncs of the disk, 10 ms each
# (measured). ``mas-edge status`` is late by so much; a restarted orchestrator hears all births again.
SAVE_S = 0.5


class Roster:
    """Devices whose record has changed; ``describe`` makes a record of a birth."""

    def __init__(self, store: Store, describe: Callable[[Birth], DeviceRecord]) -> None:
        self._store = store
        self._describe = describe
        self._changed: dict[str, Birth] = {}
        self._not_before = -math.inf

    def note(self, birth: Birth) -> None:
        """What is known of a device has changed."""
        self._changed[birth.sender] = birth

    def poll(self, now: float) -> None:
        """Write down what has changed, if it is time."""
        if self._changed and now >= self._not_before:
            self._not_before = now + SAVE_S
            self.flush()

    def flush(self) -> None:
        """Write down what has changed."""
        changed, self._changed = self._changed, {}
        if changed:
            self._store.save_devices([self._describe(birth) for birth in changed.values()])

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return self._not_before if self._changed else math.inf
