"""Operators' orders in the orchestrator's loop: the job is held up, goes on, or ends."""

from __future__ import annotations

import math
from pathlib import Path

from mas_edge.federation import flow
from mas_edge.federation.control import Mode, obeyed
from mas_edge.orchestrator.orders import JobOrder, OrderStore
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.protocol.errors import ServerError

LOOK_S = 0.5  # an operator waits for so long at most; to look costs a few microseconds
ABORTED = "the operator has ended the run"


class OrdersDesk:
    """The mode of one job; everything here happens in the orchestrator's loop. ``hold``: a new job waits for its start.

    Raises:
        ServerError: ``orders.db`` cannot be used.
    """

    def __init__(self, desk: RoundsDesk, directory: Path, *, hold: bool = False) -> None:
        self._desk = desk
        self._store = OrderStore(directory)
        self._store.begin("held" if hold else "running")
        self._mode: Mode = self._store.mode or "running"
        if desk.state.phase == "aborted":  # it was killed before it could write down that it had obeyed
            for order in self._store.waiting():
                if order.verb == "abort":
                    self._store.obey(order.number, "aborted")
        self._seen_version = -1
        self._look_again = -math.inf

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    @property
    def is_held_up(self) -> bool:
        """Whether nothing new is begun: rounds that are open end, and no other is opened."""
        return self._mode != "running"

    def poll(self, now: float) -> None:
        """Take what operators have asked for since."""
        if now < self._look_again:
            return
        self._look_again = now + LOOK_S
        if (version := self._store.version) != self._seen_version:
            self._seen_version = version
            for order in self._store.waiting():
                self._take(order, now)

    def _take(self, order: JobOrder, now: float) -> None:
        try:
            if self._desk.state.phase in flow.OVER:
                message = f"the job is {self._desk.state.phase}: there is nothing to {order.verb}"
                raise ServerError(message)
            mode = obeyed(self._mode, order.verb)
        except ServerError as error:
            self._store.refuse(order.number, str(error))
            return
        if mode == "aborted":  # before the order counts as obeyed: a run that was aborted stays so
            self._desk.abort(ABORTED, now)
        self._store.obey(order.number, mode)
        self._mode = mode
        self._desk.log("info", f"{order.verb}: the job is {mode} ({order.who})")
