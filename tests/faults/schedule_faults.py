"""What goes wrong in a schedule, drawn from its dice; and, of each kind, what stands for none of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

NEVER = 1e9  # seconds or steps: longer than any schedule
YEAR_S = 365 * 86400.0
PLENTY = 1_000_000  # bytes that a device keeps: everything


@dataclass(frozen=True)
class Faults:
    """What goes wrong until ``until``; the shares are of messages, the pauses in seconds."""

    until: float
    drop: float
    double: float
    damage: float  # of pieces
    slow: float  # messages that take up to ``late`` seconds, and are overtaken
    late: float
    cut_every: float  # a connection ends
    will: float  # of the ends of connections: those whose last will arrives
    keeps_session: bool
    deaf_every: float  # the broker's queue for somebody is full: it drops all of it, and acknowledges it
    deaf_s: float
    restart_every: float  # the broker itself begins anew ...
    forgets: float  # ... and has lost, in so many cases, what it kept: sessions, retained messages, queues
    jump_every: float  # a clock on the wall is set, by up to a year to either side
    twin: bool  # two devices with one name, and one identity
    steps_to_death: float  # durable steps of a device, in the mean
    server_steps_to_death: float
    kill_every: float  # a process is killed by the clock: in the midst of its work, or while it waits
    power: float  # of the deaths: those by a power cut
    fails: float  # of the plans that a device works on
    work_s: float
    look_s: float  # how long the orchestrator is busy with what has come before it looks at its job again
    room: int  # bytes that a device keeps
    file_s: float  # how long the orchestrator's clerk takes for what it is handed, at most

    @classmethod
    def draw(cls, dice: random.Random) -> Faults:
        """Most schedules have most faults in a small dose, and some have none of a kind."""

        def some(least: float, most: float, never: float) -> float:
            return never if dice.random() < 0.3 else dice.uniform(least, most)

        return cls(
            until=dice.uniform(5.0, 60.0), drop=some(0.0, 0.2, 0.0), double=some(0.0, 0.2, 0.0),
            damage=some(0.0, 0.05, 0.0), slow=some(0.0, 0.3, 0.0), late=dice.choice([0.2, 2.0, 20.0]),
            cut_every=some(3.0, 60.0, NEVER), will=dice.choice([0.0, 0.5, 1.0]), keeps_session=dice.random() < 0.5,
            deaf_every=some(10.0, 100.0, NEVER), deaf_s=dice.choice([1.0, 10.0, 30.0]),
            restart_every=some(10.0, 100.0, NEVER), forgets=dice.choice([0.0, 0.5, 1.0]),
            jump_every=some(5.0, 50.0, NEVER), twin=dice.random() < 0.2,
            steps_to_death=some(20.0, 400.0, NEVER), server_steps_to_death=some(20.0, 400.0, NEVER),
            kill_every=some(5.0, 50.0, NEVER),
            power=dice.choice([0.0, 0.5, 1.0]), fails=some(0.0, 0.1, 0.0), work_s=dice.choice([0.1, 1.0, 10.0]),
            look_s=dice.choice([0.002, 0.05, 0.2]),
            room=dice.choice([6_000, PLENTY]),  # two networks, or everything
            file_s=dice.choice([0.0, 0.05, 1.0, 10.0]),  # at once, a disk, one that is busy, one that is dying
        )  # fmt: skip

    def without(self, kind: str) -> Faults:
        """The same, but for one kind of fault."""
        return replace(self, **NO_FAULTS[kind])


NO_FAULTS: dict[str, dict[str, Any]] = {
    "drop": {"drop": 0.0}, "double": {"double": 0.0}, "damage": {"damage": 0.0}, "slow": {"slow": 0.0},
    "cut": {"cut_every": NEVER}, "will": {"will": 0.0}, "deaf": {"deaf_every": NEVER},
    "broker restarts": {"restart_every": NEVER}, "clock jumps": {"jump_every": NEVER}, "twin": {"twin": False},
    "device deaths": {"steps_to_death": NEVER}, "server deaths": {"server_steps_to_death": NEVER},
    "kills": {"kill_every": NEVER},
    "power cuts": {"power": 0.0}, "fails": {"fails": 0.0}, "little room": {"room": PLENTY},
    "slow clerk": {"file_s": 0.0},
}  # fmt: skip


def damaged(payload: bytes, dice: random.Random) -> bytes:
    """One bit of it is another."""
    place = dice.randrange(len(payload))
    return payload[:place] + bytes([payload[place] ^ 1 << dice.randrange(8)]) + payload[place + 1 :]
