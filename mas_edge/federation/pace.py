"""Pace steering: when devices say again that they are there, and from when on their silence counts. No I/O.

A broker may drop births and last wills without a word. So a device is told with every answer when to introduce itself
again; the larger the fleet the later, so that all of them together stay below a rate; with jitter, so that they do not
come at once. Who misses several of these times counts as away.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

# Check-ins of the whole fleet a second: a birth of 0.5 KB each, which costs the orchestrator about a millisecond.
CHECKINS_PER_S = 5.0
# A check-in wakes a phone's radio, which stays awake for some 10 s: not more often than every few minutes.
LEAST_INTERVAL_S = 300.0
# Of the interval, to either side: check-ins spread over half of it.
JITTER = 0.25
# Missed check-ins until a device counts as away: one may be lost, two may be a broker's restart.
MISSED = 3


class Pace:
    """The check-ins of one fleet."""

    def __init__(self, seed: int) -> None:
        self._lot = random.Random(seed)  # noqa: S311 - not for secrets
        self._heard: dict[str, float] = {}
        self._longest = LEAST_INTERVAL_S  # that was told in this life: a device may go by it

    @property
    def interval_s(self) -> float:
        """Seconds between two check-ins of a device, before jitter."""
        return max(LEAST_INTERVAL_S, len(self._heard) / CHECKINS_PER_S)

    def on_heard(self, device: str, now: float) -> None:
        """The device said something."""
        self._heard[device] = now

    def next_checkin_s(self) -> float:
        """Seconds until the device that is answered shall introduce itself again."""
        self._longest = max(self._longest, self.interval_s)
        return self.interval_s * self._lot.uniform(1 - JITTER, 1 + JITTER)

    def silent(self, devices: Iterable[str], now: float) -> list[str]:
        """Those of the devices that should have been heard long ago; one that was never heard is given its time."""
        patience = MISSED * (1 + JITTER) * max(self._longest, self.interval_s)
        return [device for device in devices if now - self._heard.setdefault(device, now) > patience]
