"""Reading a state directory while an orchestrator works in it: what ``status``, ``demo`` and the result show."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.orchestrator.store import decode, open_database, read_optional, read_rounds
from mas_edge.protocol.errors import ServerError

_CLOSED = "SELECT number FROM rounds WHERE record IS NOT NULL"
_RECORD = "SELECT record FROM rounds WHERE number = ?"


class OpenRound(msgspec.Struct, frozen=True, kw_only=True):
    """A round that is running."""

    round_id: str
    selected: list[str]
    reports: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the event log; ``time`` in seconds since the epoch."""

    time: float
    level: str
    text: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """When a round was open, in seconds since the epoch; ``closed`` is None while it is."""

    round_id: str
    phase: str
    opened: float
    closed: float | None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a person may ask about a run, at one moment."""

    run: str
    job: Job
    phase: str
    started: float
    finished: float | None
    devices: list[DeviceRecord]
    open_rounds: list[OpenRound]
    rounds: list[RoundRecord]
    split: SplitRecord | None
    events: list[Event]


def read(state_dir: Path, last_events: int = 20) -> Snapshot:
    """The run in ``state_dir``.

    Raises:
        ServerError: there is no run there, or its state is damaged.
    """
    try:
        db = open_database(state_dir)
        try:
            return read_database(db, state_dir, last_events)
        finally:
            db.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        message = f"state in {state_dir} cannot be read: {error}; restore it from a copy"
        raise ServerError(message) from None


class Follower:
    """Looks at the run in ``state_dir`` again and again: a round that has closed is decoded once.

    Raises:
        ServerError: there is no run there, or its state is damaged; also from ``look``.
    """

    def __init__(self, state_dir: Path, last_events: int = 20) -> None:
        self._state_dir = state_dir
        self._last_events = last_events
        self._db = open_database(state_dir, read_only=True)
        self._rounds: dict[int, RoundRecord] = {}
        self._seen = -1
        self._snapshot: Snapshot | None = None

    def look(self) -> Snapshot:
        """The run as it is now; the same object as before if nothing has been written since."""
        try:
            version: int = self._db.execute("PRAGMA data_version").fetchone()[0]  # every write of others changes it
            if version != self._seen or self._snapshot is None:
                for (number,) in self._db.execute(_CLOSED).fetchall():
                    if number not in self._rounds:
                        self._rounds[number] = decode(self._db.execute(_RECORD, (number,)).fetchone()[0], RoundRecord)
                rounds = [self._rounds[number] for number in sorted(self._rounds)]
                self._snapshot = read_database(self._db, self._state_dir, self._last_events, rounds)
                self._seen = version
        except (sqlite3.Error, UnicodeDecodeError) as error:
            message = f"state in {self._state_dir} cannot be read: {error}; restore it from a copy"
            raise ServerError(message) from None
        return self._snapshot

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


def read_database(
    db: sqlite3.Connection, state_dir: Path, last_events: int = 20, rounds: list[RoundRecord] | None = None
) -> Snapshot:
    """The run in a database that is open; ``state_dir`` is what errors call it. Raises ServerError as ``read``.

    ``rounds``: those that have closed, if they are decoded already.
    """
    row = db.execute("SELECT job, state, split, started, finished FROM job").fetchone()
    if row is None:
        message = f"no run in {state_dir} yet: the orchestrator has not begun"
        raise ServerError(message)
    state = decode(row[1], JobState)
    devices = [decode(r[0], DeviceRecord) for r in db.execute("SELECT record FROM devices ORDER BY name")]
    events = db.execute("SELECT time, level, text FROM events ORDER BY number DESC LIMIT ?", (last_events,)).fetchall()
    return Snapshot(
        run=state.run_id, job=decode(row[0], Job), phase=state.phase, started=row[3],
        finished=row[4], devices=devices, open_rounds=_open_rounds(db),
        rounds=read_rounds(db) if rounds is None else rounds,
        split=read_optional(row[2], SplitRecord),
        events=[Event(time=time, level=level, text=text) for time, level, text in reversed(events)],
    )  # fmt: skip


def read_spans(state_dir: Path) -> list[Span]:
    """When each round of the run in ``state_dir`` was open, oldest first. Raises ServerError as ``read``."""
    try:
        db = open_database(state_dir)
        try:
            rows = db.execute("SELECT round_id, phase, opened, closed FROM rounds ORDER BY number").fetchall()
        finally:
            db.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        message = f"state in {state_dir} cannot be read: {error}; restore it from a copy"
        raise ServerError(message) from None
    return [Span(round_id=name, phase=phase, opened=opened, closed=closed) for name, phase, opened, closed in rows]


def _open_rounds(db: sqlite3.Connection) -> list[OpenRound]:
    query = (
        "SELECT round_id, spec, (SELECT COUNT(*) FROM updates WHERE updates.counts_in = rounds.round_id)"
        " FROM rounds WHERE closed IS NULL ORDER BY number"
    )
    return [
        OpenRound(round_id=round_id, selected=list(decode(spec, RoundSpec).selected), reports=reports)
        for round_id, spec, reports in db.execute(query)
    ]
