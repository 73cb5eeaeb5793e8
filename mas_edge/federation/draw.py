"""Whom a round is told: how many devices, and which of those that can serve it. Fair, and without I/O."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple

from mas_edge.federation.flow import RoundWork
from mas_edge.federation.selection import select, told
from mas_edge.job import Job


class Moment(NamedTuple):
    """How things stand when a round is to open."""

    begun: bool  # whether the job has ever had a round
    busy: Collection[str]  # devices that are at work
    alone: bool  # whether no round is open
    side_by_side: int  # training rounds that are to open at this moment, this one among them
    in_flight: int = 0  # late reports of this network that are still to come


class Drawn(NamedTuple):
    """The devices, by name. Where the round does not open: why, in words for the log, if that is for people."""

    devices: list[str]
    opens: bool
    reason: str = ""


class Draw:
    """Draws devices for one job; remembers how often each has served each network."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._served: dict[str, Counter[str]] = defaultdict(Counter)  # by network: each is to see every device

    @property
    def any_served(self) -> bool:
        """Whether any device was told a training round."""
        return any(self._served.values())

    def serve(self, group: str, devices: Iterable[str]) -> None:
        """These devices are told, or were in a life before, a training round of this network."""
        self._served[group].update(tuple(devices))  # of a mapping it would add up the values

    def devices(self, work: RoundWork, there: list[str], moment: Moment) -> Drawn:
        """The devices of a round, of those that can serve it; nobody while there are not enough."""
        federation = self._job.federation
        if not moment.begun and len(there) < federation.min_devices:
            return Drawn([], False, f"waiting for devices: {len(there)} of {federation.min_devices} are there")
        if work.kind != "train":
            return Drawn(there, bool(there), "" if there else f"{work.round_id}: waiting for a device")
        idle = [name for name in there if name not in moment.busy]
        full = min(len(there), federation.devices_per_round)
        if not moment.alone and not (federation.parallel_groups and len(idle) + moment.in_flight >= full):
            return Drawn([], False)  # groups train side by side only while each finds its full number of idle devices
        if len(idle) + moment.in_flight < federation.min_reports:
            least = federation.min_reports
            return Drawn([], False, f"{work.round_id}: {len(idle)} of at least {least} devices are there")
        return Drawn(self.fairly(work, idle, self._number(len(idle), moment)), True)

    def _number(self, idle: int, moment: Moment) -> int:
        federation = self._job.federation
        rounds = moment.side_by_side if federation.parallel_groups else 1
        if federation.mode == "buffered":
            return max(0, min(federation.slots - moment.in_flight, math.ceil(idle / max(rounds, 1))))
        return told(federation.devices_per_round, federation.over_selection, idle, rounds)

    def fairly(self, work: RoundWork, idle: list[str], number: int) -> list[str]:
        """Up to ``number`` of the idle devices: those that served the network least so far."""
        return select(idle, number, self._served[work.group], self._job.seed, work.round_id)
