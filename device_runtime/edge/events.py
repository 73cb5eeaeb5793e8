"""What a link to the broker tells, and the last will that it leaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Connected:
    """The broker has let us in; with ``session_present`` it kept our subscriptions and queued messages."""

    session_present: bool


@dataclass(frozen=True)
class Disconnected:
    """The connection is gone, or could not be made; ``reason`` is for people. The link goes on trying."""

    reason: str


@dataclass(frozen=True)
class Arrived:
    """A message; ``retained`` if the broker had kept it from before we subscribed."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True)
class Frame:
    """A message on a bulk connection; ``data`` is the memory it was received into."""

    topic: str
    data: memoryview


Event = Connected | Disconnected | Arrived | Frame


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained and with QoS 1, when this client vanishes without a goodbye."""

    topic: str
    payload: bytes
