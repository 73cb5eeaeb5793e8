"""What a link reported, for a test to wait on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from device_runtime.edge.mqtt import Arrived, Connected, Disconnected, Event, Frame

PATIENCE_S = 30.0  # how long a test waits for what must happen; a loaded machine is slow

_T = TypeVar("_T", Connected, Disconnected, Arrived, Frame)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail the test if it does not come true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


class Inbox:
    """Give ``inbox.put`` to a Link as its ``on_event``, then wait here for what has to come."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = threading.Condition(threading.RLock())

    def put(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, kind: type[_T]) -> list[_T]:
        """The events of one kind so far."""
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the events holds; fail the test if it does not come true."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), f"waited in vain; last events: {self.events[-5:]}"

    def message(self, payload: bytes) -> Arrived:
        """The message with this payload, as soon as it is there."""
        self.wait(lambda: any(arrived.payload == payload for arrived in self.of(Arrived)))
        return next(arrived for arrived in self.of(Arrived) if arrived.payload == payload)
