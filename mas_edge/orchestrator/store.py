"""The orchestrator's memory: one SQLite file; every durable step is one transaction."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.messages import Offer

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE job (id INTEGER PRIMARY KEY CHECK (id = 1), job BLOB NOT NULL, state BLOB NOT NULL, split BLOB,
                  started REAL NOT NULL, finished REAL);
CREATE TABLE rounds (number INTEGER PRIMARY KEY, round_id TEXT UNIQUE NOT NULL, spec BLOB NOT NULL, phase TEXT NOT NULL,
                     opened REAL NOT NULL, closed REAL, record BLOB);
CREATE TABLE updates (round_id TEXT NOT NULL, device TEXT NOT NULL, offer BLOB NOT NULL, accepted REAL NOT NULL,
                      PRIMARY KEY (round_id, device));
CREATE TABLE devices (name TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE events (number INTEGER PRIMARY KEY, time REAL NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);
"""
# The log is for people: the newest lines; the rest is in the process's own log.
MAX_EVENTS = 2000
_T = TypeVar("_T")


class Store:
    """The state directory ``directory``: ``state.db``, and a lock so that two orchestrators never share it.

    Raises:
        ServerError: the directory cannot be used, is another version's, or another orchestrator works in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db = open_database(directory, create=True)
        except BlockingIOError:
            message = f"another orchestrator works in {directory}; stop it, or choose another --state"
            raise ServerError(message) from None
        except (OSError, sqlite3.Error) as error:
            message = f"state directory {directory} cannot be used: {error}"
            raise ServerError(message) from None

    def close(self) -> None:
        """Let go of the directory."""
        self._db.close()
        self._lock.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except sqlite3.Error as error:
            message = f"state in {self.directory} could not be written: {error}; free the disk and start again"
            raise ServerError(message) from None

    # ------------------------------------------------------------------ the job

    def begin(self, job: Job, state: JobState) -> JobState:
        """Start the job, or take up the one that is here; returns where it stands.

        Raises:
            JobError: the directory holds a run of other settings.
        """
        row = self._db.execute("SELECT job, state FROM job").fetchone()
        if row is None:
            with self._transaction() as db:
                values = (msgspec.json.encode(job), msgspec.json.encode(state), time.time())
                db.execute("INSERT INTO job (id, job, state, started) VALUES (1, ?, ?, ?)", values)
            return state
        if msgspec.json.decode(row[0], type=Job) != job:
            message = (
                f"{self.directory} holds a run of other settings; go on with its own job file, "
                "or choose another --state for a new run"
            )
            raise JobError(message)
        return msgspec.json.decode(row[1], type=JobState)

    def save(self, state: JobState, split: SplitRecord | None = None) -> None:
        """Store where the job stands after a step of the orchestrator's own."""
        with self._transaction() as db:
            _write_state(db, state)
            if split is not None:
                db.execute("UPDATE job SET split = ?", (msgspec.json.encode(split),))

    # ------------------------------------------------------------------ rounds

    def open_round(self, spec: RoundSpec, phase: str) -> None:
        """Write a round down before its first plan leaves."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO rounds (round_id, spec, phase, opened) VALUES (?, ?, ?, ?)",
                (spec.round_id, msgspec.json.encode(spec), phase, time.time()),
            )

    def open_rounds(self) -> list[tuple[RoundSpec, str]]:
        """The rounds that were open when the orchestrator last stopped, with their phase."""
        rows = self._db.execute("SELECT spec, phase FROM rounds WHERE closed IS NULL ORDER BY number")
        return [(msgspec.json.decode(spec, type=RoundSpec), phase) for spec, phase in rows]

    def accept(self, offer: Offer) -> None:
        """Count a device's report, once: only after this may the device be told."""
        with self._transaction() as db:
            values = (offer.round_id, offer.sender, msgspec.json.encode(offer), time.time())
            db.execute("INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?)", values)

    def accepted(self, round_id: str) -> list[Offer]:
        """The offers that were accepted for a round, in order."""
        rows = self._db.execute("SELECT offer FROM updates WHERE round_id = ? ORDER BY accepted, device", (round_id,))
        return [msgspec.json.decode(row[0], type=Offer) for row in rows]

    def is_accepted(self, round_id: str, device: str) -> bool:
        """Whether this device's report of this round counted."""
        query = "SELECT 1 FROM updates WHERE round_id = ? AND device = ?"
        return self._db.execute(query, (round_id, device)).fetchone() is not None

    def is_known(self, round_id: str) -> bool:
        """Whether this run ever had such a round."""
        return self._db.execute("SELECT 1 FROM rounds WHERE round_id = ?", (round_id,)).fetchone() is not None

    def close_round(self, record: RoundRecord, state: JobState) -> None:
        """Close a round and move the job on, in one transaction."""
        with self._transaction() as db:
            db.execute(
                "UPDATE rounds SET closed = ?, record = ? WHERE round_id = ?",
                (time.time(), msgspec.json.encode(record), record.round_id),
            )
            _write_state(db, state)

    def records(self) -> list[RoundRecord]:
        """Every closed round, oldest first."""
        return read_rounds(self._db)

    # ------------------------------------------------------------------ devices and events

    def save_device(self, record: DeviceRecord) -> None:
        """Remember how a device was last seen."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO devices VALUES (?, ?)", (record.name, msgspec.json.encode(record)))

    def log(self, level: str, text: str) -> None:
        """Add a line to the event log."""
        with self._transaction() as db:
            db.execute("INSERT INTO events (time, level, text) VALUES (?, ?, ?)", (time.time(), level, text))
            db.execute("DELETE FROM events WHERE number <= (SELECT MAX(number) FROM events) - ?", (MAX_EVENTS,))


def _write_state(db: sqlite3.Connection, state: JobState) -> None:
    finished = time.time() if state.phase == "done" else None
    db.execute("UPDATE job SET state = ?, finished = ?", (msgspec.json.encode(state), finished))


def open_database(directory: Path, *, create: bool = False) -> sqlite3.Connection:
    """Open ``state.db``; readers may open it while an orchestrator works (WAL).

    Raises:
        ServerError: there is no state here, or it is another version's.
    """
    path = directory / "state.db"
    if not create and not path.is_file():
        message = f"no state in {directory}: give the --state directory of a `mas-edge serve` or `mas-edge demo`"
        raise ServerError(message)
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        db.close()
        message = (
            f"{path} was written by version {version} of the store, this is version {SCHEMA_VERSION}: update mas-edge"
        )
        raise ServerError(message)
    if version == 0:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    return db


def read_rounds(db: sqlite3.Connection) -> list[RoundRecord]:
    """Every closed round, oldest first."""
    rows = db.execute("SELECT record FROM rounds WHERE record IS NOT NULL ORDER BY number")
    return [msgspec.json.decode(row[0], type=RoundRecord) for row in rows]


def read_optional(blob: bytes | None, kind: type[_T]) -> _T | None:
    """Decode a column that may be empty."""
    return None if blob is None else msgspec.json.decode(blob, type=kind)
