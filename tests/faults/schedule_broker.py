"""The broker of a schedule, and the network on both sides of it: messages that are lost, late, doubled or damaged.

A client has a name, by which the broker knows its session, and a key of its own: two devices with one name take each
other's connection away, as a broker has it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Protocol

from tests.faults.schedule_faults import Faults, damaged
from tests.faults.schedule_nodes import SERVER, TOPICS


class Clock(Protocol):
    """What the broker sees of the schedule."""

    now: float
    dice: random.Random
    faults: Faults

    @property
    def faulty(self) -> bool:
        """Whether things still go wrong."""
        ...

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Let something happen later."""
        ...

    def say(self, text: str) -> None:
        """Tell a step."""
        ...


Message = tuple[str, bytes]
Deliver = Callable[[str, str, bytes, bool], None]  # key, topic, payload, whether it was retained


class Broker:
    """Sessions by name, connections by key. ``names``: of every key."""

    def __init__(self, clock: Clock, names: dict[str, str], deliver: Deliver) -> None:
        self._clock, self._names, self._deliver = clock, names, deliver
        self._connected: dict[str, str] = {}  # by name, the key of its connection
        self._queues: dict[str, list[Message]] = defaultdict(list)
        self._retained: dict[str, bytes] = {}
        self._listeners: dict[str, set[str]] = defaultdict(set)
        self._deaf: dict[str, float] = {}  # by name, until when nothing reaches it

    # ------------------------------------------------------------------ connections

    def is_connected(self, key: str) -> bool:
        """Whether this client has the connection of its name."""
        return self._connected.get(self._names[key]) == key

    def holder(self, key: str) -> str | None:
        """Who has the connection of this client's name."""
        return self._connected.get(self._names[key])

    def connect(self, key: str) -> Callable[[], None]:
        """Connect; what is returned hands over what has been kept for it, once the client is ready."""
        name = self._names[key]
        self._connected[name] = key
        queue = self._queues.pop(name, [])

        def hand_over() -> None:
            if name == SERVER:
                for topic, payload in list(self._retained.items()):
                    self._deliver(key, topic, payload, True)
            for topic, payload in queue if self._clock.faults.keeps_session else ():
                self._deliver(key, topic, payload, False)

        return hand_over

    def disconnect(self, key: str) -> None:
        """The connection is gone."""
        del self._connected[self._names[key]]

    def connected(self) -> list[str]:
        """Every client that is connected."""
        return list(self._connected.values())

    def forget(self) -> None:
        """It begins anew, and its store is gone."""
        self._queues.clear()
        self._retained.clear()
        self._listeners.clear()

    def leave(self, key: str) -> None:
        """The client's process is gone: nobody subscribes again for it."""
        for listeners in self._listeners.values():
            listeners.discard(key)

    def listen(self, key: str, topic: str, on: bool) -> None:
        """Subscribe to a broadcast topic, or leave it. The client's link subscribes again after each connection."""
        (self._listeners[topic].add if on else self._listeners[topic].discard)(key)

    def deafen(self, name: str, until: float) -> None:
        """What comes for somebody is dropped."""
        self._deaf[name] = until

    # ------------------------------------------------------------------ messages

    def publish(self, topic: str, payload: bytes, *, retain: bool, chunk: bool) -> None:
        """Take a message, and let it reach who it is for."""
        if retain:
            self._retained[topic] = payload
        for name in self._receivers(topic):
            self._send(name, topic, payload, chunk=chunk)

    def _receivers(self, topic: str) -> Iterable[str]:
        if topic in self._listeners:
            return sorted({self._names[key] for key in self._listeners[topic] if self.is_connected(key)})
        if topic == TOPICS.command_all:
            return [name for name in dict.fromkeys(self._names.values()) if name != SERVER]
        *_, device, leaf = topic.split("/")
        return [device] if leaf in ("cmd", "chunk") else [SERVER] if leaf in ("rsp", "up", "birth", "status") else []

    def _send(self, name: str, topic: str, payload: bytes, *, chunk: bool) -> None:
        clock, dice, faults = self._clock, self._clock.dice, self._clock.faults
        if not clock.faulty:
            clock.at(clock.now + dice.uniform(0.001, 0.02), lambda: self._arrive(name, topic, payload, chunk=chunk))
            return
        copies = 0 if dice.random() < faults.drop else 2 if dice.random() < faults.double else 1
        if clock.now < self._deaf.get(name, 0.0):
            copies = 0
        if chunk and dice.random() < faults.damage:
            payload = damaged(payload, dice)
        for _ in range(copies):
            late = dice.random() < faults.slow
            delay = dice.uniform(0.0, faults.late) if late else dice.uniform(0.001, 0.02)
            clock.at(clock.now + delay, lambda: self._arrive(name, topic, payload, chunk=chunk))

    def _arrive(self, name: str, topic: str, payload: bytes, *, chunk: bool) -> None:
        if key := self._connected.get(name):
            self._deliver(key, topic, payload, False)
        elif not chunk:
            self._queues[name].append((topic, payload))
