"""All runs below a folder, in a few numbers each: read without decoding what every device reported in every round."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from mas_edge.federation.control import Mode
from mas_edge.federation.flow import OVER, JobState
from mas_edge.federation.methods import planned_rounds
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord
from mas_edge.orchestrator.result import evaluations_of
from mas_edge.orchestrator.store import decode, open_database, read_optional
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting.standing import standing_of

# What a state directory, a demo or a fleet keeps beside its runs; a run never lies below them.
NEVER_BELOW = ("artifacts", "exports", "models", "data", "devices", "logs", "broker", "node_modules")
_TRAINED = (
    "SELECT COUNT(*) FROM rounds WHERE phase IN ('merge', 'probe', 'groups')"
    " AND json_extract(CAST(record AS TEXT), '$.outcome') <> 'abandoned'"
)
_EVALUATED = "SELECT record FROM rounds WHERE record IS NOT NULL AND phase LIKE '%_evaluation' ORDER BY number"
_LAST = (
    "SELECT MAX(time) FROM"
    " (SELECT MAX(COALESCE(closed, opened)) AS time FROM rounds UNION SELECT MAX(time) FROM events)"
)


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One run; of one that cannot be read only ``state`` and ``problem``."""

    state: str  # the directory
    problem: str = ""  # why it cannot be read
    run: str = ""
    job: str = ""
    method: str = ""
    phase: str = ""
    control: Mode = "running"  # what operators have said last
    served: bool = False  # an orchestrator works on it now
    rounds: int = 0  # of training, closed with enough reports
    planned_rounds: int = 0
    devices: int = 0
    devices_online: int = 0
    started: float | None = None  # seconds since the epoch
    finished: float | None = None
    last_sign: float | None = None
    loss_change: float | None = None  # mean over tasks, of the last test loss against the untrained one, relatively


def runs_below(folders: Sequence[Path]) -> list[RunSummary]:
    """Every run in or below ``folders``, the one that was begun last first; what cannot be read comes last.

    Raises:
        ServerError: a folder is not there.
    """
    found: dict[Path, RunSummary] = {}
    for folder in folders:
        if not folder.is_dir():
            message = f"{folder} is no folder: give one that holds runs, such as the folder of your --state directories"
            raise ServerError(message)
        for state in _states(folder):
            found.setdefault(state.resolve(), _summary(state))
    return sorted(found.values(), key=lambda each: -(each.started or 0.0))


def _states(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        if "state.db" in files:
            yield Path(place)
        folders[:] = sorted(name for name in folders if name not in NEVER_BELOW and not name.startswith("."))


def _summary(state: Path) -> RunSummary:
    try:
        db = open_database(state)
        try:
            return _read(db, state)
        finally:
            db.close()
    except (ServerError, sqlite3.Error, UnicodeDecodeError) as error:
        return RunSummary(state=str(state), problem=str(error))


def _read(db: sqlite3.Connection, state: Path) -> RunSummary:
    row = db.execute("SELECT job, state, split, started, finished FROM job").fetchone()
    if row is None:
        return RunSummary(state=str(state), problem="the orchestrator has not begun")
    job, stands = decode(row[0], Job), decode(row[1], JobState)
    devices = [decode(record, DeviceRecord) for (record,) in db.execute("SELECT record FROM devices")]
    standing = standing_of(state)
    evaluated = [decode(record, RoundRecord) for (record,) in db.execute(_EVALUATED)]
    return RunSummary(
        state=str(state), run=stands.run_id, job=job.name, method=job.method.name, phase=stands.phase,
        control=standing.control, served=stands.phase not in OVER and standing.served,
        rounds=db.execute(_TRAINED).fetchone()[0],
        planned_rounds=sum(planned_rounds(job)), devices=len(devices),
        devices_online=sum(device.online for device in devices), started=row[3], finished=row[4],
        last_sign=row[4] or db.execute(_LAST).fetchone()[0] or row[3],
        loss_change=_change(evaluated, read_optional(row[2], SplitRecord)),
    )  # fmt: skip


def _change(evaluated: list[RoundRecord], split: SplitRecord | None) -> float | None:
    stages = evaluations_of([record for record in evaluated if record.outcome != "abandoned"], split)
    first, last = stages.get("initial"), stages.get("split") or stages.get("merged")
    if not first or not last:
        return None
    changes = [last[task]["loss"] / first[task]["loss"] - 1 for task in last if first.get(task, {}).get("loss")]
    return sum(changes) / len(changes) if changes else None


def age(moment: float | None, now: float | None = None) -> str:
    """How long ago, in its largest unit: 12 s, 5 min, 3 h, 2 d."""
    if not moment:
        return "-"
    seconds = max(0.0, (time.time() if now is None else now) - moment)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
