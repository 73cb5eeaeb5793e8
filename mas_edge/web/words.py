"""What operators have said last, as the page shows it: the mode of the job, and who belongs to the fleet."""

from __future__ import annotations

import time
from pathlib import Path

from mas_edge.federation.control import Mode
from mas_edge.fleet.registry import Registry
from mas_edge.orchestrator.orders import FILE, OrderStore

# Between two looks into the fleet's registry: who joins or is revoked is a person's doing.
LOOK_S = 2.0


class Words:
    """Beside the run in ``directory``, and in the fleet in ``fleet``, if one is served. One thread uses it.

    Raises:
        ServerError: from every method: a file cannot be used.
    """

    def __init__(self, directory: Path, fleet: Path | None) -> None:
        self._directory = directory
        self._fleet = fleet
        self._orders: OrderStore | None = None
        self._seen_version = -1
        self._mode: Mode = "running"
        self._registry: Registry | None = None
        self._look_again = float("-inf")
        self._members: dict[str, str] = {}

    def close(self) -> None:
        """Let go of the files."""
        for each in (self._orders, self._registry):
            if each is not None:
                each.close()
        self._orders, self._registry, self._seen_version = None, None, -1

    def control(self) -> Mode:
        """What the job was told last."""
        if self._orders is None:
            if not (self._directory / FILE).is_file():
                return "running"
            self._orders = OrderStore(self._directory)
        if (version := self._orders.version) != self._seen_version:
            self._seen_version = version
            self._mode = self._orders.mode or "running"
        return self._mode

    def membership(self) -> dict[str, str]:
        """How devices stand in the fleet, by name."""
        if self._fleet is None or time.monotonic() < self._look_again:
            return self._members
        self._look_again = time.monotonic() + LOOK_S
        if self._registry is None:
            self._registry = Registry(self._fleet / "fleet.db")
        with self._registry.transaction():
            self._members = {member.name: member.state for member in self._registry.members(time.time())}
        return self._members
