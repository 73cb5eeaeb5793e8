"""What operators ask of a job, and what came of it: ``orders.db`` beside the state of the run.

Other processes place orders (the API, ``mas-edge job``); the orchestrator takes each in one transaction with the mode
that follows from it. So an order that was placed while nobody served the run is taken when somebody does, and a job
that was paused stays paused when it is started again.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, get_args

import msgspec

from mas_edge.federation.control import JobVerb, Mode
from mas_edge.protocol.errors import ServerError
from mas_edge.side_file import SideFile

FILE = "orders.db"
_VERSION = 1
_SCHEMA = """
CREATE TABLE orders (number INTEGER PRIMARY KEY AUTOINCREMENT, placed REAL NOT NULL, who TEXT NOT NULL,
                     verb TEXT NOT NULL, taken REAL, answer TEXT);
CREATE TABLE control (id INTEGER PRIMARY KEY CHECK (id = 1), mode TEXT NOT NULL);
"""
# Orders that nobody has taken yet: more than a person places, and a loop that places them has to stop somewhere.
MAX_WAITING = 100


class JobOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what came of it. ``answer``: None until it was taken, "" if it was obeyed, else why not."""

    number: int
    placed: float  # seconds since the epoch
    who: str  # the name of the token it was placed with, or of the command
    verb: JobVerb
    taken: float | None
    answer: str | None


class OrderStore:
    """The orders of the run in ``directory``; ``create`` makes the file where there is none.

    Raises:
        ServerError: from every method: the file cannot be used.
    """

    def __init__(self, directory: Path, *, create: bool = True) -> None:
        self._file = SideFile(directory / FILE, _SCHEMA, _VERSION, create=create)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    # ------------------------------------------------------------------ operators

    def place(self, verb: JobVerb, who: str) -> int:
        """Write down what an operator asks for; returns the order's number.

        Raises:
            ServerError: too many wait already.
        """
        with self._file.transaction():
            waiting = self._file.rows("SELECT COUNT(*) FROM orders WHERE answer IS NULL")[0][0]
            if waiting >= MAX_WAITING:
                message = f"{waiting} orders wait already; start the run (mas-edge serve): it takes them"
                raise ServerError(message)
            query = "INSERT INTO orders (placed, who, verb) VALUES (?, ?, ?) RETURNING number"
            number: int = self._file.rows(query, time.time(), who, verb)[0][0]
        return number

    def order(self, number: int) -> JobOrder | None:
        """One order; None if there is no such number."""
        rows = self._file.rows("SELECT number, placed, who, verb, taken, answer FROM orders WHERE number = ?", number)
        return _order(rows[0]) if rows else None

    def latest(self, count: int) -> list[JobOrder]:
        """The newest orders, newest first."""
        query = "SELECT number, placed, who, verb, taken, answer FROM orders ORDER BY number DESC LIMIT ?"
        return [_order(row) for row in self._file.rows(query, count)]

    # ------------------------------------------------------------------ the orchestrator

    @property
    def version(self) -> int:
        """A number that changes when another process has written."""
        return self._file.changes

    @property
    def mode(self) -> Mode | None:
        """What the job was told last; None: nothing yet."""
        rows = self._file.rows("SELECT mode FROM control")
        if not rows:
            return None
        if rows[0][0] not in get_args(Mode):
            message = f"{self._file.path} holds the mode {rows[0][0]!r}; expected one of {', '.join(get_args(Mode))}"
            raise ServerError(message)
        mode: Mode = rows[0][0]
        return mode

    def waiting(self) -> list[JobOrder]:
        """The orders that nobody has taken yet, in their order."""
        query = "SELECT number, placed, who, verb, taken, answer FROM orders WHERE answer IS NULL ORDER BY number"
        return [_order(row) for row in self._file.rows(query)]

    def begin(self, mode: Mode) -> None:
        """The mode of a job that nobody has said anything about yet."""
        with self._file.transaction():
            self._file.rows("INSERT OR IGNORE INTO control VALUES (1, ?)", mode)

    def obey(self, number: int, mode: Mode) -> None:
        """An order was obeyed: the job is in this mode now."""
        with self._file.transaction():
            self._file.rows("INSERT OR REPLACE INTO control VALUES (1, ?)", mode)
            self._file.rows("UPDATE orders SET taken = ?, answer = '' WHERE number = ?", time.time(), number)

    def refuse(self, number: int, reason: str) -> None:
        """Nothing came of an order."""
        with self._file.transaction():
            self._file.rows("UPDATE orders SET taken = ?, answer = ? WHERE number = ?", time.time(), reason, number)


def _order(row: tuple[Any, ...]) -> JobOrder:
    number, placed, who, verb, taken, answer = row
    return JobOrder(number=number, placed=placed, who=who, verb=verb, taken=taken, answer=answer)


def told(directory: Path) -> Mode | None:
    """What the job in ``directory`` was told last; None: nothing, or there is no run. Raises ServerError."""
    if not (directory / FILE).is_file():
        return None
    store = OrderStore(directory)
    try:
        return store.mode
    finally:
        store.close()
