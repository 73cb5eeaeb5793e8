"""The watch: looks after the owner's rules in the background, and holds the work up between two batches."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from device_runtime.host import Host
from device_runtime.policy.conditions import Reader
from device_runtime.policy.day import Day
from device_runtime.policy.gate import Gate
from device_runtime.policy.rules import Conditions, Rules
from mas_edge.protocol.messages import Board, PlanKind

log = logging.getLogger(__name__)

# How often the device is looked at: heat and free memory change within seconds, and a look is a few small files.
CHECK_S = 5.0
DAY_FILE = "day.json"


class Watch:
    """One device's rules over time. ``state``: its directory; ``spent``: the joules of the work that goes on now."""

    def __init__(self, rules: Rules, state: Path, host: Host, spent: Callable[[], float] = lambda: 0.0) -> None:
        self.gate = Gate(rules)
        self._needed = rules != Rules()
        self._reader = Reader(host, state)
        self._day = Day(state / DAY_FILE)
        self._spent = spent

    def start(self) -> None:
        """Look once, and from now on in the background; without rules there is nothing to look after."""
        if self._needed:
            self.look()
            threading.Thread(target=self._run, name="policy", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(CHECK_S)
            self.look()

    def look(self) -> Conditions:
        """Judge the device as it is now, and return how it is."""
        joules, rounds = self._day.of(_today())
        found = replace(
            self._reader.read(time.monotonic()), joules_today=joules + self._spent(), rounds_today=rounds
        )  # fmt: skip
        self.gate.see(found)
        return found

    def board(self) -> Board | None:
        """Battery and heat now, for whoever looks after the fleet."""
        return self._reader.board(time.monotonic())

    def begin(self, kind: PlanKind) -> None:
        """A plan's work begins."""
        self.gate.begin()
        if kind != "deploy":
            self._day.add(_today(), rounds=1)

    def end(self, joules: float) -> None:
        """It has ended, one way or the other."""
        self._day.add(_today(), joules=joules)

    def hold(self, kind: PlanKind, interrupted: Callable[[], bool]) -> bool:
        """Between two batches: wait while the rules are broken; return whether the work was interrupted.

        Raises:
            GivenUp: it is not worth waiting any more.
        """
        paused = False
        while not interrupted() and (wait := self.gate.between_batches(kind, time.monotonic())):
            if not paused:
                log.warning("paused: %s", self.gate.why_not(kind))
            paused = True
            time.sleep(wait)
        return interrupted()


def _today() -> str:
    return time.strftime("%Y-%m-%d")
