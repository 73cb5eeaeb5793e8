"""A training that can be taken up after a power cut: one file a plan, written between two steps.

A file holds the sha256 of the rest, then in msgpack where the training stood, then the weights and the momentum as they
lie in memory. It is synced before it gets its name: what is there is whole, and a file that is damaged counts as none.
The name follows from everything that the training follows from, so that another plan, program, engine or data folder
never goes on from it. A checkpoint only saves time: a disk that is full ends the saving, not the training.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runtime.edge.files import temporary_of, write_whole
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Plan

log = logging.getLogger(__name__)

# A power cut costs this much of a training at most. Loading engine and program again costs a Pi as much, so that more
# often would not help it; and a short training, of which none is written, is not slowed down at all.
INTERVAL_S = 10.0
# Of the time of a training that saving may take: on a slow card the interval grows instead.
MAX_SHARE = 0.02
# One training runs at a time; a second file is that of a plan which was interrupted and may come again.
MAX_FILES = 2
ENDING = ".checkpoint"
_DIGEST_BYTES, _LENGTH_BYTES = 32, 4


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training stands between two steps, beside weights and momentum."""

    epoch: int
    batches: int  # of this epoch that are done
    steps: int
    task_weights: list[float]
    first_losses: list[float]  # NaN where there was none yet
    weights: int  # how many numbers they are; the momentum follows them
    samples: dict[str, int]
    places: dict[str, int]
    sums: dict[str, dict[str, float]]
    affinity_sums: list[list[float]]
    affinity_counts: list[list[int]]
    affinity_measurements: int
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    total_cpu_seconds: float


@dataclass(frozen=True)
class Saved:
    """A training to go on with; ``weights`` and ``momentum`` are float32 vectors."""

    position: Position
    weights: NDArray[np.float32]
    momentum: NDArray[np.float32]


class Checkpoint:
    """The checkpoint of one training, in ``directory``.

    ``clock`` gives seconds; the interval begins when this is made.
    """

    def __init__(self, directory: Path, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = directory / f"{name}{ENDING}"
        self._clock = clock
        self._next = clock() + INTERVAL_S

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self._clock() >= self._next

    def save(self, position: Position, weights: NDArray[np.float32], momentum: NDArray[np.float32]) -> None:
        """Write down where the training stands; the file before it is replaced only when this one is whole."""
        began = self._clock()
        try:
            self._write([_head(position), weights.data, momentum.data])
        except DeviceError as error:
            log.warning("the training is not saved, a power cut would begin it anew: %s", error)
            self._next = float("inf")
            return
        cost = self._clock() - began
        self._next = self._clock() + max(INTERVAL_S, cost / MAX_SHARE)

    def load(self) -> Saved | None:
        """What was saved last; None if there is nothing whole."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        saved = _decoded(data)
        if saved is None:
            self.remove()
        return saved

    def remove(self) -> None:
        """The training is done, or nobody waits for it any more."""
        for path in (self._path, temporary_of(self._path)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", path, error.strerror)

    def _write(self, parts: list[bytes | memoryview]) -> None:
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        write_whole(self._path, digest.digest(), *parts)
        self._prune()

    def _prune(self) -> None:
        files = sorted(self._path.parent.glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in [path for path in files if path != self._path][MAX_FILES - 1 :]:
            path.unlink(missing_ok=True)


def checkpoint_name(plan: Plan, engine: str, data: Path) -> str:
    """The name of a plan's checkpoint: a sha256 in hex of what its training follows from.

    Of the data folder that is names, sizes and times of its files: it is to cost nothing.
    """
    found = [(path.name, path.stat()) for path in sorted(data.iterdir())]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]
    weights = plan.weights.manifest.artifact if plan.weights else ""
    parts = [plan.job, plan.round_id, plan.program.artifact, weights, plan.training, engine, files]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def _head(position: Position) -> bytes:
    body = msgspec.msgpack.encode(position)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def _decoded(data: bytes) -> Saved | None:
    digest, rest = data[:_DIGEST_BYTES], memoryview(data)[_DIGEST_BYTES:]
    if hashlib.sha256(rest).digest() != digest:
        return None
    end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "big")
    try:
        position = msgspec.msgpack.decode(rest[_LENGTH_BYTES:end], type=Position)
    except msgspec.MsgspecError:  # of another version of this runtime
        return None
    numbers = np.frombuffer(rest[end:], np.float32)
    return Saved(position, numbers[: position.weights], numbers[position.weights :])
