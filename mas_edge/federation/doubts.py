"""Devices that are said to be gone, and are asked whether they are. No clock, no I/O.

A last will may overtake, or be overtaken by, the birth of the connection that follows it: a broker that is slow, a
cluster of them, a bridge. Whoever believes it never speaks to that device again, which is connected and waits. So the
device is asked for a birth: at once, and then ever more rarely, for brokers queue what they hold for who is away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

AGAIN_S, AGAIN_MAX_S = 15.0, 3600.0
# Everybody is asked when no round was open for so long: the birth of a device may have been lost, and it waits too.
ALL_S, ALL_MAX_S = 30.0, 600.0


@dataclass
class _Doubt:
    ask_at: float
    pause: float = AGAIN_S


@dataclass
class Doubts:
    """When to ask whom."""

    _doubts: dict[str, _Doubt] = field(default_factory=dict)
    _all: _Doubt | None = None

    def lost(self, device: str, now: float) -> None:
        """The device is said to be gone."""
        self._doubts.setdefault(device, _Doubt(now))

    def found(self, device: str) -> None:
        """The device has spoken of itself."""
        self._doubts.pop(device, None)

    def poll(self, now: float) -> list[str]:
        """The devices to ask now."""
        due = [device for device, doubt in self._doubts.items() if now >= doubt.ask_at]
        for device in due:
            doubt = self._doubts[device]
            doubt.ask_at, doubt.pause = now + doubt.pause, min(2 * doubt.pause, AGAIN_MAX_S)
        return due

    def everybody(self, now: float, *, idle: bool) -> bool:
        """Whether to ask everybody now; ``idle``: no round is open."""
        if not idle:
            self._all = None
        elif self._all is None:
            self._all = _Doubt(now + ALL_S, ALL_S)
        elif now >= self._all.ask_at:
            self._all = _Doubt(now + self._all.pause, min(2 * self._all.pause, ALL_MAX_S))
            return True
        return False

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return min((doubt.ask_at for doubt in self._doubts.values()), default=float("inf"))
