"""What is remembered of rollouts, and what operators ask for: ``rollouts.db`` beside the state of the run.

A file of its own: the job's state is not touched by it, and a run that was begun before there were rollouts can have
them. Orders come from other processes; the orchestrator takes each in one transaction with what follows from it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from mas_edge.federation.rollout import RolloutSpec, RolloutState, Standings, Verb
from mas_edge.orchestrator.store import decode
from mas_edge.protocol.errors import ServerError

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
        self._path = directory / FILE
        with self._telling():
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10)
            try:
                self._prepare()
            except (sqlite3.Error, ServerError):
                self._db.close()
                raise

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            message = f"{self._path} was written by version {version} of the store, this is version {_VERSION}"
            raise ServerError(message)
        if version == 0:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        self._db.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    # ------------------------------------------------------------------ operators

    def place(self, wish: Wish) -> int:
        """Write down what an operator asks for; returns the order's number."""
        with self._transaction():
            query = "INSERT INTO orders (placed, wish) VALUES (?, ?) RETURNING number"
            number: int = self._rows(query, time.time(), msgspec.json.encode(wish))[0][0]
        return number

    def answer(self, number: int) -> str | None:
        """What came of an order: "" if it was taken, else why not; None while the orchestrator has not seen it."""
        rows = self._rows("SELECT answer FROM orders WHERE number = ?", number)
        return rows[0][0] if rows else None

    def placed(self, number: int) -> tuple[float, Wish, str | None] | None:
        """When an order was placed (seconds since the epoch), what it asks for, and ``answer``; None: no such order."""
        rows = self._rows("SELECT placed, wish, answer FROM orders WHERE number = ?", number)
        return (rows[0][0], decode(rows[0][1], Wish), rows[0][2]) if rows else None

    # ------------------------------------------------------------------ the orchestrator

    @property
    def version(self) -> int:
        """A number that changes when another process has written."""
        found: int = self._rows("PRAGMA data_version")[0][0]
        return found

    def wishes(self) -> list[tuple[int, Wish]]:
        """The orders that nobody has taken yet, in their order."""
        rows = self._rows("SELECT number, wish FROM orders WHERE answer IS NULL ORDER BY number")
        return [(number, decode(wish, Wish)) for number, wish in rows]

    def save(self, state: RolloutState, changed: Mapping[str, Standings], order: int = 0, answer: str = "") -> None:
        """Store where a rollout stands, the standings that have changed, and what came of the order that led to it."""
        with self._transaction():
            self._rows("INSERT OR REPLACE INTO rollouts VALUES (?, ?)", state.number, msgspec.json.encode(state))
            for device, standings in changed.items():
                values = (state.number, device, msgspec.json.encode(standings))
                self._rows("INSERT OR REPLACE INTO devices VALUES (?, ?, ?)", *values)
            self._rows("UPDATE orders SET answer = ? WHERE number = ?", answer, order)

    def refuse(self, order: int, reason: str) -> None:
        """Nothing came of an order."""
        with self._transaction():
            self._rows("UPDATE orders SET answer = ? WHERE number = ?", reason, order)

    def latest(self) -> Remembered | None:
        """The last rollout; None if there was none."""
        rows = self._rows("SELECT state FROM rollouts ORDER BY number DESC LIMIT 1")
        if not rows:
            return None
        state = decode(rows[0][0], RolloutState)
        found = self._rows("SELECT device, standings FROM devices WHERE number = ?", state.number)
        return Remembered(state, {device: decode(blob, Standings) for device, blob in found})

    # ------------------------------------------------------------------ SQLite

    def _rows(self, query: str, *values: str | float | bytes) -> list[tuple[Any, ...]]:
        with self._telling():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._telling(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            message = f"{self._path} cannot be used: {error}; check disk and permissions"
            raise ServerError(message) from None


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
