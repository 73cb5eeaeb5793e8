"""What is remembered of rollouts, and what operators ask for: ``rollouts.db`` beside the state of the run.

A file of its own: the job's state is not touched by it, and a run that was begun before there were rollouts can have
them. Orders come from other processes; the orchestrator takes each in one transaction with what follows from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from mas_edge.federation.rollout import RolloutSpec, RolloutState, Standings, Verb
from mas_edge.orchestrator.store import decode
from mas_edge.side_file import SideFile

FILE = "rollouts.db"
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS rollouts (number INTEGER PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS devices (number INTEGER NOT NULL, device TEXT NOT NULL, standings BLOB NOT NULL,
                                    PRIMARY KEY (number, device));
CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY AUTOINCREMENT, placed REAL NOT NULL, wish BLOB NOT NULL,
                                   answer TEXT);
"""


class Wish(msgspec.Struct, frozen=True):
    """What an operator asks for: a new rollout, or a word to the one that is under way."""

    verb: Verb | None = None
    spec: RolloutSpec | None = None
    who: str = ""  # as ``JobOrder.who``; empty: it was placed by a release that did not write it down


class RolloutOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what came of it. ``answer``: None until it was taken, "" if it was obeyed, else why not."""

    number: int
    placed: float  # seconds since the epoch
    who: str
    verb: Verb | Literal["begin"]
    answer: str | None


class Remembered(msgspec.Struct, frozen=True):
    """A rollout as it was stored last."""

    state: RolloutState
    standings: dict[str, Standings]


class RolloutStore:
    """The rollouts of the run in ``directory``.

    Raises:
        ServerError: from every method: the file cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._file = SideFile(directory / FILE, _SCHEMA, _VERSION)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    # ------------------------------------------------------------------ operators

    def place(self, wish: Wish) -> int:
        """Write down what an operator asks for; returns the order's number."""
        with self._file.transaction():
            query = "INSERT INTO orders (placed, wish) VALUES (?, ?) RETURNING number"
            number: int = self._file.rows(query, time.time(), msgspec.json.encode(wish))[0][0]
        return number

    def answer(self, number: int) -> str | None:
        """What came of an order: "" if it was taken, else why not; None while the orchestrator has not seen it."""
        order = self.order(number)
        return order.answer if order else None

    def order(self, number: int) -> RolloutOrder | None:
        """One order; None if there is no such number."""
        rows = self._file.rows("SELECT number, placed, wish, answer FROM orders WHERE number = ?", number)
        return _order(rows[0]) if rows else None

    def orders(self, count: int) -> list[RolloutOrder]:
        """The newest orders, newest first."""
        query = "SELECT number, placed, wish, answer FROM orders ORDER BY number DESC LIMIT ?"
        return [_order(row) for row in self._file.rows(query, count)]

    # ------------------------------------------------------------------ the orchestrator

    @property
    def version(self) -> int:
        """A number that changes when another process has written."""
        return self._file.changes

    def wishes(self) -> list[tuple[int, Wish]]:
        """The orders that nobody has taken yet, in their order."""
        rows = self._file.rows("SELECT number, wish FROM orders WHERE answer IS NULL ORDER BY number")
        return [(number, decode(wish, Wish)) for number, wish in rows]

    def save(self, state: RolloutState, changed: Mapping[str, Standings], order: int = 0, answer: str = "") -> None:
        """Store where a rollout stands, the standings that have changed, and what came of the order that led to it."""
        with self._file.transaction():
            self._file.rows("INSERT OR REPLACE INTO rollouts VALUES (?, ?)", state.number, msgspec.json.encode(state))
            for device, standings in changed.items():
                values = (state.number, device, msgspec.json.encode(standings))
                self._file.rows("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", *values)
            self._file.rows("UPDATE orders SET answer = ? WHERE number = ?", answer, order)

    def refuse(self, order: int, reason: str) -> None:
        """Nothing came of an order."""
        with self._file.transaction():
            self._file.rows("UPDATE orders SET answer = ? WHERE number = ?", reason, order)

    def latest(self) -> Remembered | None:
        """The last rollout; None if there was none."""
        rows = self._file.rows("SELECT state FROM rollouts ORDER BY number DESC LIMIT 1")
        if not rows:
            return None
        state = decode(rows[0][0], RolloutState)
        found = self._file.rows("SELECT device, standings FROM devices WHERE number = ?", state.number)
        return Remembered(state, {device: decode(blob, Standings) for device, blob in found})


def _order(row: tuple[Any, ...]) -> RolloutOrder:
    number, placed, blob, answer = row
    wish = decode(blob, Wish)
    return RolloutOrder(number=number, placed=placed, who=wish.who, verb=wish.verb or "begin", answer=answer)


def remembered(directory: Path) -> Remembered | None:
    """The last rollout of the run in ``directory``, also while its orchestrator works; None if there was none.

    Raises:
        ServerError: it cannot be read.
    """
    if not (directory / FILE).is_file():
        return None
    store = RolloutStore(directory)
    try:
        return store.latest()
    finally:
        store.close()
