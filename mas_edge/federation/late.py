"""Devices that still work on rounds that are closed: what they bring counts for less, and not for ever. No I/O.

An update that began from the weights of round t and comes while round t + tau is open is folded as if it had begun from
the weights of then: base_now + (theta_k - base_t), weighted n_k * (1 + tau)**-power (Xie et al. 2019, FedAsync; Nguyen
et al. 2022, FedBuff).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


def staleness_weight(staleness: int, power: float) -> float:
    """(1 + tau)**-power: what an update that is ``staleness`` rounds late counts, beside a fresh one with 1."""
    return float((1 + staleness) ** -power)


@dataclass(frozen=True)
class LateWork:
    """What one device still does for a round that is closed."""

    round_id: str
    device: str
    group: str
    index: int  # of the training round
    base: str  # the artifact that it began from
    until: float  # when the device gives it up itself


class Latecomers:
    """The late work of a fleet. A device has at most one piece of it at a time, unless it lost one with its memory."""

    def __init__(self) -> None:
        self._works: dict[tuple[str, str], LateWork] = {}
        self._away: set[tuple[str, str]] = set()  # its device vanished: it may still bring it, nobody counts on it

    def add(self, works: Iterable[LateWork]) -> None:
        """Rounds closed over this work."""
        self._works |= {(work.round_id, work.device): work for work in works}

    def find(self, round_id: str, device: str) -> LateWork | None:
        """The work that a report is of; None if it is not, or no longer, wanted."""
        return self._works.get((round_id, device))

    def end(self, round_id: str, device: str) -> None:
        """The device reported, or it cannot."""
        self._works.pop((round_id, device), None)
        self._away.discard((round_id, device))

    def on_lost(self, device: str) -> None:
        """The device vanished, or lives anew: its slot is free, and a report of it still welcome."""
        self._away |= {key for key in self._works if key[1] == device}

    def at_work(self) -> set[str]:
        """The devices that are busy with late work."""
        return {device for round_id, device in self._works.keys() - self._away}

    def in_flight(self, group: str) -> int:
        """How many late reports of a network may be counted on."""
        return sum(self._works[key].group == group for key in self._works.keys() - self._away)

    def rounds(self) -> set[str]:
        """The closed rounds that are still worked on."""
        return {round_id for round_id, _ in self._works}

    def bases(self) -> set[str]:
        """The artifacts that their reports will be compared with."""
        return {work.base for work in self._works.values()}

    def outdated(self, next_rounds: Mapping[str, int], max_staleness: int, now: float) -> list[LateWork]:
        """Take out the work that is not wanted any more; ``next_rounds``: of each network that still trains."""
        found = [
            work for work in self._works.values()
            if work.group not in next_rounds
            or next_rounds[work.group] - work.index > max_staleness or now >= work.until
        ]  # fmt: skip
        for work in found:
            self.end(work.round_id, work.device)
        return found
