"""What a device has done today, kept over restarts: the rules per day count it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import msgspec

from device_runtime.edge.files import write_whole
from mas_edge.protocol.errors import DeviceError


class _Day(msgspec.Struct):
    day: str
    joules: float = 0.0
    rounds: int = 0


class Day:
    """Joules and rounds of the local day, in one small file; the day is passed in, such as "2026-11-22"."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept = _Day(day="")
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # a new device, or a file cut off by a power cut
            self._kept = msgspec.json.decode(path.read_bytes(), type=_Day)

    def add(self, day: str, *, joules: float = 0.0, rounds: int = 0) -> None:
        """Count something of today; a disk that is full loses the count at the next start, and nothing else."""
        with self._lock:
            self._turn(day)
            self._kept.joules += joules
            self._kept.rounds += rounds
            with contextlib.suppress(DeviceError):
                write_whole(self._path, msgspec.json.encode(self._kept), durable=False)

    def of(self, day: str) -> tuple[float, int]:
        """Joules and rounds of the day."""
        with self._lock:
            self._turn(day)
            return self._kept.joules, self._kept.rounds

    def _turn(self, day: str) -> None:
        if self._kept.day != day:
            self._kept = _Day(day=day)
