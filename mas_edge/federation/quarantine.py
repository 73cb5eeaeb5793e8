"""Devices whose reports are refused round after round are left out of the next ones. No clock, no I/O.

A strike is a round in which a device's reports were refused, none was accepted, and another device's was: where
nobody's was, the job is at fault more likely than the device. What is accepted takes all strikes back. After so many
strikes the device is in quarantine until its time is over, and then one strike away from it, or until the operator
releases it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

import msgspec


class Standing(msgspec.Struct, frozen=True):
    """Where a device stands."""

    strikes: int = 0
    until: float = 0.0  # the end of its quarantine, in seconds since the epoch; 0: it is in none
    reason: str = ""  # of the last refusal


FINE = Standing()


@dataclass
class Quarantine:
    """``rounds``: strikes that are too many; ``seconds``: how long a quarantine lasts."""

    rounds: int
    seconds: float
    _standings: dict[str, Standing] = field(default_factory=dict)
    _refused: dict[str, dict[str, str]] = field(default_factory=dict)  # by round and device, the last reason

    def restore(self, standings: Mapping[str, Standing]) -> None:
        """Take up where devices stood in an earlier life."""
        self._standings |= {device: standing for device, standing in standings.items() if standing != FINE}

    def on_refused(self, device: str, round_id: str, reason: str) -> None:
        """A report of this device of this round was refused."""
        self._refused.setdefault(round_id, {})[device] = reason

    def on_accepted(self, device: str, round_id: str) -> bool:
        """A report was accepted; returns whether the device stands better for it."""
        self._refused.get(round_id, {}).pop(device, None)
        return not self.why(device) and self._standings.pop(device, FINE) != FINE

    def over(self, open_rounds: Set[str]) -> list[str]:
        """The rounds with refusals that are not open any more: to be told to ``on_closed``."""
        return sorted(self._refused.keys() - open_rounds)

    def on_closed(self, round_id: str, now: float, *, went_well: bool) -> list[str]:
        """A round is over; ``went_well``: another's report was accepted. Returns the devices that got a strike."""
        struck = sorted(self._refused.pop(round_id, {}).items())
        if not went_well:
            return []
        for device, reason in struck:
            strikes = self.standing(device).strikes + 1
            until = now + self.seconds if strikes >= self.rounds else 0.0
            self._standings[device] = Standing(strikes, max(until, self.standing(device).until), reason)
        return [device for device, _ in struck]

    def poll(self, now: float) -> list[str]:
        """The devices whose time is over: they may come back, and have one strike left."""
        free = sorted(device for device, standing in self._standings.items() if 0 < standing.until <= now)
        for device in free:
            self._standings[device] = Standing(self.rounds - 1, 0.0, self.standing(device).reason)
        return free

    def release(self, device: str) -> bool:
        """The operator lets a device back, with no strike left; returns whether it had any."""
        return self._standings.pop(device, FINE) != FINE

    def standing(self, device: str) -> Standing:
        """Where a device stands."""
        return self._standings.get(device, FINE)

    def why(self, device: str) -> str:
        """Why a device is in quarantine; empty if it is not."""
        standing = self.standing(device)
        if not standing.until:
            return ""
        return f"its reports were refused in {standing.strikes} rounds, the last: {standing.reason}"

    def inside(self) -> dict[str, str]:
        """The devices in quarantine, with the reason."""
        return {device: self.why(device) for device in self._standings if self.why(device)}
