"""A run's state directory as this process knows it: read again only where something has been written.

One object, one thread: SQLite says in a few microseconds whether another process has written since (``data_version``);
only then is something read, and of the rounds only those that have closed since. Nothing here writes, and no reading
takes longer than a look at what is new: the orchestrator's write-ahead log is never held.
"""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mas_edge.federation.control import Mode
from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.orchestrator.rollout_store import FILE as ROLLOUTS
from mas_edge.orchestrator.rollout_store import Remembered, RolloutStore
from mas_edge.orchestrator.served import is_served
from mas_edge.orchestrator.store import decode, open_database, read_optional
from mas_edge.protocol.errors import ServerError
from mas_edge.web.ledger import Ledger
from mas_edge.web.shapes import EventView, OpenRoundView
from mas_edge.web.words import Words

Part = Literal["run", "devices", "rounds", "affinity", "split", "artifacts", "rollouts", "events"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass
class Known:
    """What was read of one run. ``versions``: per part, a number that grows when it is another."""

    boot: str  # another one: everything is to be read anew
    job: Job
    state: JobState
    started: float
    finished: float | None = None
    split: SplitRecord | None = None
    devices: dict[str, DeviceRecord] = field(default_factory=dict)
    open_rounds: list[OpenRoundView] = field(default_factory=list)
    settled: int = 0  # all rounds up to this number have closed, and are in the ledger
    events: list[EventView] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    rollout: Remembered | None = None
    served: bool = False
    control: Mode = "running"
    has_members: bool = False  # whether a fleet is served
    membership: dict[str, str] = field(default_factory=dict)  # in that fleet, by name
    versions: dict[Part, int] = field(default_factory=lambda: dict.fromkeys(PARTS, 0))

    def touch(self, *parts: Part) -> None:
        """These parts are not what they were."""
        for part in parts:
            self.versions[part] += 1


class Mirror:
    """The run in ``directory``; ``look`` brings what is known up to date.

    Raises:
        ServerError: from ``look``: there is no run (yet), or its state cannot be read.
    """

    def __init__(self, directory: Path, fleet: Path | None = None) -> None:
        self.directory = directory
        self._has_members = fleet is not None
        self._words = Words(directory, fleet)
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._seen = -1
        self._rollouts: RolloutStore | None = None
        self._rollouts_seen = -1
        self._raw: dict[str, Any] = {}
        self._known: Known | None = None

    def close(self) -> None:
        """Let go of the files."""
        if self._db is not None:
            self._db.close()
        if self._rollouts is not None:
            self._rollouts.close()
        self._words.close()
        self._db, self._rollouts, self._known, self._raw = None, None, None, {}
        self._seen = self._rollouts_seen = -1

    def look(self) -> Known:
        """Everything that is known now."""
        try:
            self._open()
            if self._db is None:
                message = f"no state in {self.directory}: give the --state directory of a `mas-edge serve`"
                raise ServerError(message)
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if is_new := version != self._seen or self._known is None:
                known = self._read(self._db)
                self._seen = version
            else:
                known = self._known
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            self.close()
            message = f"state in {self.directory} cannot be read: {error}; restore it from a copy"
            raise ServerError(message) from None
        except ServerError:
            self.close()
            raise
        self._read_rollouts(known)
        if (control := self._words.control()) != known.control:
            known.control = control
            known.touch("run")
        if (membership := self._words.membership()) != known.membership:
            known.membership = membership
            known.touch("devices")
        # Who has just written works on it; to look for the lock costs more than all that is read of a quiet run.
        if (served := (is_new and known.served) or is_served(self.directory)) != known.served:
            known.served = served
            known.touch("run")
        return known

    def record(self, number: int) -> tuple[RoundSpec, RoundRecord | None] | None:
        """One round with all its reports; call after ``look``."""
        if self._db is None:
            return None
        row = self._db.execute("SELECT spec, record FROM rounds WHERE number = ?", (number,)).fetchone()
        return None if row is None else (decode(row[0], RoundSpec), read_optional(row[1], RoundRecord))

    # ------------------------------------------------------------------ reading

    def _open(self) -> None:
        """Open the file, again if another one lies in its place."""
        path = self.directory / "state.db"
        found = path.stat() if path.is_file() else None
        identity = (found.st_dev, found.st_ino) if found else None
        if identity != self._file:
            self.close()
            self._file = identity
        if self._db is None:
            self._db = open_database(self.directory, read_only=True)

    def _read(self, db: sqlite3.Connection) -> Known:
        db.execute("BEGIN")  # everything is of one moment
        try:
            row = db.execute("SELECT job, state, split, started, finished FROM job").fetchone()
            if row is None:
                message = f"no run in {self.directory} yet: the orchestrator has not begun"
                raise ServerError(message)
            known = self._job(row)
            self._devices(db, known)
            self._rounds(db, known)
            self._events(db, known)
        finally:
            db.execute("COMMIT")
        return known

    def _job(self, row: tuple[Any, ...]) -> Known:
        job, state, split, started, finished = row
        known = self._known
        if known is None or self._raw.get("job") != job:
            known = Known(
                uuid.uuid4().hex[:8], decode(job, Job), decode(state, JobState), started, has_members=self._has_members
            )  # fmt: skip
            self._raw = {"job": job}
        if self._raw.get("state") != (state, finished):
            known.state, known.finished = decode(state, JobState), finished
            self._raw["state"] = (state, finished)
            known.touch("run", "artifacts", "rollouts")
        if self._raw.get("split", b"") != split:
            known.split = read_optional(split, SplitRecord)
            self._raw["split"] = split
            known.touch("split")
        self._known = known
        return known

    def _devices(self, db: sqlite3.Connection, known: Known) -> None:
        before: dict[str, bytes] = self._raw.setdefault("devices", {})
        changed = [(name, blob) for name, blob in db.execute("SELECT name, record FROM devices ORDER BY name")
                   if before.get(name) != blob]  # fmt: skip
        if changed:
            counts = sum(record.online for record in known.devices.values()), len(known.devices)
            known.devices |= {name: decode(blob, DeviceRecord) for name, blob in changed}
            before |= dict(changed)
            known.touch("devices")
            if counts != (sum(record.online for record in known.devices.values()), len(known.devices)):
                known.touch("run")

    def _rounds(self, db: sqlite3.Connection, known: Known) -> None:
        query = (
            "SELECT number, opened, closed, record FROM rounds WHERE number > ? AND closed IS NOT NULL ORDER BY number"
        )
        new = False
        for number, opened, closed, blob in db.execute(query, (known.settled,)):
            if number not in known.ledger.rounds:
                known.ledger.add(number, opened, closed, decode(blob, RoundRecord))
                new = True
        running = _open_rounds(db, known.settled)
        known.settled = running[0].number - 1 if running else max(known.ledger.rounds, default=0)
        if new or running != known.open_rounds:
            known.open_rounds = running
            known.touch("run", "rounds", "devices")
        if new:
            known.touch("affinity")

    def _events(self, db: sqlite3.Connection, known: Known) -> None:
        last = known.events[-1].number if known.events else 0
        oldest = db.execute("SELECT MIN(number) FROM events").fetchone()[0] or 0
        rows = db.execute("SELECT number, time, level, text FROM events WHERE number > ? ORDER BY number", (last,))
        new = [EventView(number=number, time=time, level=level, text=text) for number, time, level, text in rows]
        if new:
            known.events = [event for event in known.events if event.number >= oldest] + new
            known.touch("events")

    def _read_rollouts(self, known: Known) -> None:
        if self._rollouts is None:
            if not (self.directory / ROLLOUTS).is_file():
                return
            self._rollouts = RolloutStore(self.directory)
        if (version := self._rollouts.version) != self._rollouts_seen:
            found = self._rollouts.latest()
            self._rollouts_seen = version
            if found != known.rollout:
                known.rollout = found
                known.touch("rollouts", "devices")


def _open_rounds(db: sqlite3.Connection, settled: int) -> list[OpenRoundView]:
    query = (
        "SELECT number, spec, phase, opened, (SELECT COUNT(*) FROM updates WHERE updates.counts_in = rounds.round_id)"
        " FROM rounds WHERE number > ? AND closed IS NULL ORDER BY number"
    )
    return [_open_round(*row) for row in db.execute(query, (settled,))]


def _open_round(number: int, blob: bytes, phase: str, opened: float, reports: int) -> OpenRoundView:
    spec = decode(blob, RoundSpec)
    return OpenRoundView(
        number=number, round_id=spec.round_id, kind=spec.kind, group=spec.group, phase=phase, index=spec.index,
        opened=opened, selected=list(spec.selected), reports=reports, deadline_s=spec.deadline_s,
    )  # fmt: skip
