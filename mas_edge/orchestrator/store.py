"""The orchestrator's memory: one SQLite file; every durable step is one transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from device_runtime.edge.lock import lock_directory
from mas_edge.federation import flow
from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.messages import Offer

SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE job (id INTEGER PRIMARY KEY CHECK (id = 1), job BLOB NOT NULL, state BLOB NOT NULL, split BLOB,
                  started REAL NOT NULL, finished REAL);
CREATE TABLE rounds (number INTEGER PRIMARY KEY, round_id TEXT UNIQUE NOT NULL, spec BLOB NOT NULL, phase TEXT NOT NULL,
                     opened REAL NOT NULL, closed REAL, record BLOB);
CREATE TABLE updates (round_id TEXT NOT NULL, device TEXT NOT NULL, offer BLOB NOT NULL, accepted REAL NOT NULL,
                      counts_in TEXT, PRIMARY KEY (round_id, device));
CREATE INDEX counted ON updates (counts_in);
CREATE TABLE devices (name TEXT PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE events (number INTEGER PRIMARY KEY, time REAL NOT NULL, level TEXT NOT NULL, text TEXT NOT NULL);
"""
_TAKE_LATE = """
UPDATE updates SET counts_in = ? WHERE counts_in IS NULL
AND round_id IN (SELECT round_id FROM rounds WHERE json_extract(CAST(spec AS TEXT), '$.group') = ?)
"""
_RELEASE_LATE = "UPDATE updates SET counts_in = NULL WHERE counts_in = ? AND round_id <> ?"
# The log is for people: the newest lines; the rest is in the process's own log.
MAX_EVENTS = 2000
# SQLite quotes what it found in a damaged file, and Python cannot always read the quotation.
_UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
_T = TypeVar("_T")


class Store:
    """The state directory ``directory``: ``state.db``, and a lock so that two orchestrators never share it.

    Raises:
        ServerError: the directory cannot be used, is another version's, or another orchestrator works in it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._lock = lock_directory(directory)
        except BlockingIOError:
            message = f"another orchestrator works in {directory}; stop it, or choose another --state"
            raise ServerError(message) from None
        except OSError as error:
            message = f"state directory {directory} cannot be used: {error}; choose another --state"
            raise ServerError(message) from None
        try:
            self._db = open_database(directory, create=True)
        except ServerError:
            self._lock.close()
            raise

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

    @contextmanager
    def _unsynced(self) -> Iterator[None]:
        """What is committed here does not wait for the disk: with a write-ahead log what was there stays whole."""
        self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous = FULL")

    def _rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except _UNREADABLE as error:
            message = f"state in {self.directory} could not be read: {error}; restore it from a copy"
            raise ServerError(message) from None

    # ------------------------------------------------------------------ the job

    def begin(self, job: Job, state: JobState) -> JobState:
        """Start the job, or take up the one that is here; returns where it stands.

        Raises:
            JobError: the directory holds a run of other settings.
        """
        rows = self._rows("SELECT job, state FROM job")
        if not rows:
            with self._transaction() as db:
                values = (msgspec.json.encode(job), msgspec.json.encode(state), time.time())
                db.execute("INSERT INTO job (id, job, state, started) VALUES (1, ?, ?, ?)", values)
            return state
        if decode(rows[0][0], Job) != job:
            message = (
                f"{self.directory} holds a run of other settings; go on with its own job file, "
                "or choose another --state for a new run"
            )
            raise JobError(message)
        return decode(rows[0][1], JobState)

    def save(self, state: JobState, split: SplitRecord | None = None) -> None:
        """Store where the job stands after a step of the orchestrator's own."""
        with self._transaction() as db:
            _write_state(db, state)
            if split is not None:
                db.execute("UPDATE job SET split = ?", (msgspec.json.encode(split),))

    # ------------------------------------------------------------------ rounds

    def open_round(self, spec: RoundSpec, phase: str) -> None:
        """Write a round down before its first plan leaves; late reports of its network that wait count in it."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO rounds (round_id, spec, phase, opened) VALUES (?, ?, ?, ?)",
                (spec.round_id, msgspec.json.encode(spec), phase, time.time()),
            )
            if spec.kind == "train":
                db.execute(_TAKE_LATE, (spec.round_id, spec.group))

    def enlarge_round(self, spec: RoundSpec) -> None:
        """Write down that further devices take part in an open round, before they are told."""
        with self._transaction() as db:
            db.execute("UPDATE rounds SET spec = ? WHERE round_id = ?", (msgspec.json.encode(spec), spec.round_id))

    def open_rounds(self) -> list[tuple[RoundSpec, str]]:
        """The rounds that were open when the orchestrator last stopped, with their phase."""
        rows = self._rows("SELECT spec, phase FROM rounds WHERE closed IS NULL ORDER BY number")
        return [(decode(spec, RoundSpec), phase) for spec, phase in rows]

    def accept(self, offer: Offer, counts_in: str | None) -> None:
        """Count a device's report, once: only after this may the device be told.

        ``counts_in``: its own round, or if that has closed the open one of its network; None: the next that opens.
        """
        with self._transaction() as db:
            values = (offer.round_id, offer.sender, msgspec.json.encode(offer), time.time(), counts_in)
            db.execute("INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?, ?)", values)

    def forget(self, round_id: str, device: str) -> None:
        """Take back an accepted report whose update turned out to be lost: its device is asked again."""
        with self._transaction() as db:
            db.execute("DELETE FROM updates WHERE round_id = ? AND device = ?", (round_id, device))

    def accepted(self, round_id: str) -> list[Offer]:
        """The offers that count in a round, in order: its own, and late ones of rounds before."""
        rows = self._rows("SELECT offer FROM updates WHERE counts_in = ? ORDER BY rowid", round_id)
        return [decode(row[0], Offer) for row in rows]

    def waiting(self) -> list[Offer]:
        """The late offers that count in no round yet."""
        rows = self._rows("SELECT offer FROM updates WHERE counts_in IS NULL ORDER BY rowid")
        return [decode(row[0], Offer) for row in rows]

    def is_accepted(self, round_id: str, device: str) -> bool:
        """Whether this device's report of this round counted."""
        return bool(self._rows("SELECT 1 FROM updates WHERE round_id = ? AND device = ?", round_id, device))

    def is_known(self, round_id: str) -> bool:
        """Whether this run ever had such a round."""
        return bool(self._rows("SELECT 1 FROM rounds WHERE round_id = ?", round_id))

    def has_rounds(self) -> bool:
        """Whether this run ever had a round."""
        return bool(self._rows("SELECT 1 FROM rounds LIMIT 1"))

    def close_round(self, record: RoundRecord, state: JobState) -> None:
        """Close a round and move the job on, in one transaction; late reports of an abandoned one wait again."""
        with self._transaction() as db:
            db.execute(
                "UPDATE rounds SET closed = ?, record = ? WHERE round_id = ?",
                (time.time(), msgspec.json.encode(record), record.round_id),
            )
            if record.outcome == "abandoned":
                db.execute(_RELEASE_LATE, (record.round_id, record.round_id))
            _write_state(db, state)

    def records(self) -> list[RoundRecord]:
        """Every closed round, oldest first."""
        return [decode(row[0], RoundRecord) for row in self._rows(_RECORDS)]

    def record(self, round_id: str) -> RoundRecord | None:
        """What a round came to, if it is closed."""
        rows = self._rows("SELECT record FROM rounds WHERE record IS NOT NULL AND round_id = ?", round_id)
        return decode(rows[0][0], RoundRecord) if rows else None

    def latest_weights(self, count: int) -> set[str]:
        """The artifacts that came out of the last ``count`` training rounds, without decoding a whole run's records."""
        query = (
            "SELECT json_extract(CAST(record AS TEXT), '$.weights') AS weights FROM rounds"
            " WHERE record IS NOT NULL AND weights <> '' ORDER BY number DESC LIMIT ?"
        )
        return {weights for (weights,) in self._rows(query, count)}

    # ------------------------------------------------------------------ devices and events

    def devices(self) -> list[DeviceRecord]:
        """The devices as they were last seen."""
        return [decode(row[0], DeviceRecord) for row in self._rows("SELECT record FROM devices ORDER BY name")]

    def save_devices(self, records: Sequence[DeviceRecord]) -> None:
        """Remember how devices were last seen."""
        rows = [(record.name, msgspec.json.encode(record)) for record in records]
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO devices VALUES (?, ?)", rows)

    def log(self, level: str, text: str) -> None:
        """Add a line to the event log; a power cut may take it, until the next step that is durable."""
        with self._unsynced(), self._transaction() as db:
            db.execute("INSERT INTO events (time, level, text) VALUES (?, ?, ?)", (time.time(), level, text))
            db.execute("DELETE FROM events WHERE number <= (SELECT MAX(number) FROM events) - ?", (MAX_EVENTS,))


def _write_state(db: sqlite3.Connection, state: JobState) -> None:
    finished = time.time() if state.phase in flow.OVER else None
    db.execute("UPDATE job SET state = ?, finished = ?", (msgspec.json.encode(state), finished))


def open_database(directory: Path, *, create: bool = False, read_only: bool = False) -> sqlite3.Connection:
    """Open ``state.db``; readers may open it while an orchestrator works (WAL). ``read_only``: SQLite refuses writes.

    Raises:
        ServerError: there is no state here, it is damaged, or it is another version's or another program's.
    """
    path = directory / "state.db"
    if not create and not path.is_file():
        message = f"no state in {directory}: give the --state directory of a `mas-edge serve` or `mas-edge demo`"
        raise ServerError(message)
    db = None
    try:
        where = f"{path.resolve().as_uri()}?mode=ro" if read_only else path
        db = sqlite3.connect(where, isolation_level=None, timeout=10, uri=read_only)
        _prepare(db, path, create=create)
    except (*_UNREADABLE, ServerError) as error:
        if db is not None:
            db.close()
        if isinstance(error, ServerError):
            raise
        message = f"{path} cannot be used: {error}; restore it from a copy, or choose another --state"
        raise ServerError(message) from None
    return db


def _prepare(db: sqlite3.Connection, path: Path, *, create: bool) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    empty = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0
    if version == 0 and empty:
        if not create:
            message = f"no run in {path.parent} yet: the orchestrator has not begun"
            raise ServerError(message)
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version == 0:
        message = f"{path} belongs to another program: choose another --state"
        raise ServerError(message)
    elif version != SCHEMA_VERSION:
        message = (
            f"{path} was written by version {version} of the store, this is version {SCHEMA_VERSION}: go on with the "
            "mas-edge that wrote it, or choose another --state"
        )
        raise ServerError(message)
    db.execute("PRAGMA synchronous = FULL")  # of the connection, not of the file


_RECORDS = "SELECT record FROM rounds WHERE record IS NOT NULL ORDER BY number"


def read_rounds(db: sqlite3.Connection) -> list[RoundRecord]:
    """Every closed round, oldest first. Raises ServerError if one is damaged."""
    return [decode(row[0], RoundRecord) for row in db.execute(_RECORDS)]


def read_optional(blob: bytes | None, kind: type[_T]) -> _T | None:
    """Decode a column that may be empty. Raises ServerError if it is damaged."""
    return None if blob is None else decode(blob, kind)


def decode(blob: bytes, kind: type[_T]) -> _T:
    """Decode a column. Raises ServerError if it does not hold a ``kind``."""
    try:
        return msgspec.json.decode(blob, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, RecursionError) as error:
        message = f"the state holds a {kind.__name__} that does not decode: {error}; restore state.db from a copy"
        raise ServerError(message) from None
