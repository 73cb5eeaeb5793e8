"""Who hears what a fleet says, and can say afterwards what was promised to whom.

A witness hears what anybody with a broker tool could. It may miss something while the broker is down: what it did hear
must be true, and that is all it is asked for.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from device_runtime.edge.mqtt import Arrived, Event, Link
from mas_edge.protocol.errors import ProtocolError
from mas_edge.protocol.messages import (
    FromDevice,
    FromOrchestrator,
    Plan,
    Receipt,
    decode_from_device,
    decode_from_orchestrator,
)
from mas_edge.protocol.topics import Topics

CONNECT_S = 30.0  # a broker answers in 0.1 s; on a machine that is busy with other runs it takes longer

# When (monotonic), the device whose topic it was ("" = everybody's), the message
Heard = tuple[float, str, FromDevice | FromOrchestrator]


class Witness:
    """Hears every control message of a fleet; use as a context manager.

    Attributes:
        accepted: (round, device) of every report whose device was told that it counts.
        plans: the first plan of each (round, device).
    """

    def __init__(self, url: str, fleet: str) -> None:
        self.accepted: set[tuple[str, str]] = set()
        self.plans: dict[tuple[str, str], Plan] = {}
        self._topics = Topics(fleet)
        self._heard: list[Heard] = []
        self._changed = threading.Condition()
        self._link = Link(url, f"witness-{secrets.token_hex(4)}", self._on_event)
        for leaf in ("cmd", "rsp", "birth"):
            self._link.subscribe(self._topics.every(leaf))
        self._link.subscribe(self._topics.command_all)

    def __enter__(self) -> Witness:
        self._link.start()
        self._link.wait_connected(CONNECT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    @property
    def count(self) -> int:
        """Messages so far."""
        return len(self._heard)

    def since(self, first: int = 0) -> list[Heard]:
        """The messages from the ``first``-th on."""
        with self._changed:
            return self._heard[first:]

    def first_word(self, device: str | None, after: float) -> float | None:
        """When ``device`` ("" = the orchestrator, None = anybody) first said something later than ``after``.

        None if it has not.
        """
        with self._changed:
            for time_, about, said in self._heard:
                spoke = device is None or (said.sender == device if device else said.sender != about)
                if spoke and time_ > after:
                    return time_
        return None

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until a condition on what was heard holds, at most ``timeout_s`` seconds; returns whether it does."""
        with self._changed:
            return self._changed.wait_for(condition, max(0.0, timeout_s))

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, Arrived) or event.retained:  # what is retained was said by who may be dead now
            return
        try:
            device, said = self._decoded(event)
        except ProtocolError:
            return  # spoilt on purpose: its receiver refuses it as well
        with self._changed:
            self._heard.append((time.monotonic(), device, said))
            if isinstance(said, Receipt) and said.verdict in ("accepted", "duplicate"):
                self.accepted.add((said.round_id, device))
            if isinstance(said, Plan):
                self.plans.setdefault((said.round_id, device), said)
            self._changed.notify_all()

    def _decoded(self, event: Arrived) -> tuple[str, FromDevice | FromOrchestrator]:
        if event.topic == self._topics.command_all:
            return "", decode_from_orchestrator(event.payload)
        device, leaf = self._topics.sender(event.topic)
        if leaf == "cmd":
            return device, decode_from_orchestrator(event.payload)
        return device, decode_from_device(event.payload, device)
