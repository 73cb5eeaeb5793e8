"""TensorBoard's event files of a run, written by a process of its own that only reads the run's state directory.

    python -m mas_edge.reporting.tensorboard STATE DIR [once]

It cannot stall a round: it shares neither the orchestrator's interpreter nor a lock with it (readers of the store
block no writer). It needs no PyTorch: tensorboardX takes it where it is installed, so it is kept out of reach here.

One folder a run, ``DIR/RUN``. A writer that is started again writes everything anew with ``purge_step`` 0, which has
readers forget what came before: no step is there twice, wherever the last one died. It removes all older files but
the last, which a TensorBoard that looks on may still stand in: from a file that is gone, its reader never gets on.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mas_edge.federation.flow import JobState
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.orchestrator.store import decode, open_database, read_optional
from mas_edge.protocol.errors import EdgeError, ServerError
from mas_edge.reporting.following import ONCE

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

LOOK_S = 2.0  # TensorBoard itself looks for news every 30 s
PAIR_TASKS = 9  # tasks up to which each pair has a curve of its own: 72 curves; beyond it there are only pictures
PICTURE = 288  # pixels of a side of the matrix, at least
_JOB = "SELECT state, split FROM job"
_CLOSED = "SELECT number FROM rounds WHERE record IS NOT NULL ORDER BY number"
_RECORD = "SELECT closed, record FROM rounds WHERE number = ?"


class EventFiles:
    """The event files of the run in ``state``, in a folder of its own below ``directory``."""

    def __init__(self, state: Path, directory: Path) -> None:
        self._state = state
        self._directory = directory
        self._db: sqlite3.Connection | None = None
        self._writer: SummaryWriter | None = None
        self._written: set[int] = set()
        self._groups: list[list[str]] | None = None
        self._version = -1

    def update(self) -> int:
        """Write the rounds that have closed since the last time; returns how many. The run may not be there yet.

        Raises:
            ServerError: the state is damaged or another version's.
        """
        if self._db is None:
            if not (self._state / "state.db").is_file():
                return 0
            self._db = open_database(self._state)
        version: int = self._db.execute("PRAGMA data_version").fetchone()[0]  # every write of others changes it
        if version == self._version:
            return 0
        new = self._write_new(self._db)
        self._version = version
        return new

    def _write_new(self, db: sqlite3.Connection) -> int:
        row = db.execute(_JOB).fetchone()
        new = [number for (number,) in db.execute(_CLOSED).fetchall() if number not in self._written]
        if row is None or not new:
            return 0
        older: list[Path] = []
        if self._writer is None:
            folder = self._directory / decode(row[0], JobState).run_id
            older = sorted(folder.glob("events.out.tfevents.*"))[:-1]
            self._writer = _open_writer(folder)
        split = read_optional(row[1], SplitRecord)
        for number in new:
            closed, record = db.execute(_RECORD, (number,)).fetchone()
            write_round(self._writer, decode(record, RoundRecord), split, closed)
            self._written.add(number)
        self._write_split(split)
        self._writer.flush()
        for path in older:
            path.unlink(missing_ok=True)
        return len(new)

    def _write_split(self, split: SplitRecord | None) -> None:
        if self._writer is not None and split is not None and split.groups != self._groups:
            self._groups = split.groups
            lines = [f"- group-{number}: {', '.join(group)}" for number, group in enumerate(split.groups)]
            value = [] if split.value is None else [f"\nvalue {split.value:.6g}"]
            self._writer.add_text("split", "\n".join([*lines, *value, split.reason]), 0)

    def close(self) -> None:
        """Write what is left in memory, and let go of the files."""
        if self._writer is not None:
            self._writer.close()
        if self._db is not None:
            self._db.close()


def _open_writer(folder: Path) -> SummaryWriter:
    from tensorboardX import SummaryWriter

    suffix = f".{os.getpid()}"  # the name holds whole seconds: a writer that follows at once has a file of its own
    return SummaryWriter(str(folder), purge_step=0, filename_suffix=suffix)


def write_round(writer: SummaryWriter, record: RoundRecord, split: SplitRecord | None, closed: float) -> None:
    """Everything about one round, at the number of training rounds that its weights have seen.

    A task's curve goes on from the merged network into the group that answers for it; what other networks make of the
    task, where groups overlap, has curves of its own.
    """
    if record.outcome == "abandoned":
        return
    step = record.index + (record.kind == "train")
    named = {task: _curve(task, record.group, split) for task in record.tasks}
    kind = {"train": "train", "evaluate": "test"}.get(record.kind, record.kind)
    values = {f"{kind}_loss/{named[task]}": loss for task, loss in record.losses.items() if task in named}
    values |= {f"{kind}_metric/{named[task]}": value for task, value in record.metrics.items() if task in named}
    values |= {
        f"{kind}_round/{what}/{record.group}": float(value)
        for what, value in {
            "seconds": record.wall_seconds, "selected_devices": len(record.selected), "reports": len(record.reports),
            "bytes_sent": record.traffic.sent, "bytes_received": record.traffic.received,
            "device_cpu_seconds": record.device_cpu_seconds,
            **{f"joules_{quality}": sum(joules.values()) for quality, joules in record.joules.items()},
        }.items()
    }  # fmt: skip
    if record.kind == "train":
        values[f"learning_rate/{record.group}"] = record.learning_rate
    for tag, value in values.items():
        writer.add_scalar(tag, value, step, walltime=closed)
    writer.add_text(f"selected_devices/{record.group}", ", ".join(record.selected) or "none", step, walltime=closed)
    if record.affinity is not None and record.group == MERGED:
        _write_affinity(writer, record, step, closed)


def _curve(task: str, group: str, split: SplitRecord | None) -> str:
    """The name of a task's curve in a network: the task, where it is the one that counts for it."""
    serving = [] if split is None else [f"group-{n}" for n, tasks in enumerate(split.serves) if task in tasks]
    return task if group == MERGED or serving == [group] else f"{task}/{group}"


def _write_affinity(writer: SummaryWriter, record: RoundRecord, step: int, closed: float) -> None:
    matrix, tasks = np.array(record.affinity, np.float64), record.tasks
    for i, source in enumerate(tasks if len(tasks) <= PAIR_TASKS else []):
        for j, recipient in enumerate(tasks):
            if i != j:
                writer.add_scalar(f"affinity/{source} to {recipient}", float(matrix[i, j]), step, walltime=closed)
    writer.add_image("affinity", picture_of(matrix), step, walltime=closed, dataformats="HWC")


def picture_of(matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """[n, n] as [height, width, 3]: blue where the row helps the column, red where it harms, by its largest value.

    The diagonal plays no part and is grey.
    """
    own = np.eye(len(matrix), dtype=bool)
    reach = np.abs(matrix[~own]).max(initial=0.0) or 1.0
    strength = np.clip(np.abs(matrix) / reach, 0.0, 1.0)[:, :, None]
    colour = np.where(matrix[:, :, None] > 0, np.array([36, 99, 190]), np.array([201, 62, 52]))
    shown = np.where(own[:, :, None], 220, 255 + (colour - 255) * strength).astype(np.uint8)
    cell = -(-PICTURE // len(matrix))
    return shown.repeat(cell, axis=0).repeat(cell, axis=1)


def main(arguments: list[str]) -> int:
    """Follow a run until SIGTERM, or with ``once`` not at all; what is there by then is written."""
    state, directory = map(Path, arguments[:2])
    stop = threading.Event()
    if ONCE in arguments[2:]:
        stop.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    sys.modules["torch"] = None  # type: ignore[assignment]  # to tensorboardX it is not installed: 200 MB and seconds
    files = EventFiles(state, directory)
    try:
        while not stop.is_set():
            files.update()
            stop.wait(LOOK_S)
        files.update()
    except (EdgeError, OSError, sqlite3.Error) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the log of this process
        return getattr(error, "exit_code", ServerError.exit_code)
    finally:
        files.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
