"""What running processes take, as Linux counts it: seconds of processor time and bytes of resident memory."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Taken(NamedTuple):
    """Of one process, until now."""

    cpu_s: float
    peak_mb: float  # the most resident memory it ever held


def taken(pid: int) -> Taken:
    """What process ``pid`` has taken so far; raises OSError if there is none."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return Taken((int(fields[11]) + int(fields[12])) / _TICKS, peak / 1e6)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Of all these processes together."""
    return sum(taken(pid).cpu_s for pid in pids)


def resident_mb(pid: int) -> float:
    """What a process holds at this moment."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Peaks:
    """The most resident memory of each process between entering and leaving the ``with`` block, in MB by its name."""

    def __init__(self, pids: dict[str, int], every_s: float = 0.02) -> None:
        self.mb = dict.fromkeys(pids, 0.0)
        self._pids, self._every_s = pids, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peaks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(self._every_s):
            for name, pid in self._pids.items():
                self.mb[name] = max(self.mb[name], resident_mb(pid))


# ------------------------------------------------------------------- a process and all that it started


def _tree(pid: int) -> list[int]:
    """A process that runs, and those that it or they started and that run."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:  # it grows
        found += children.get(each, [])
    return found


def tree_cpu_s(pid: int) -> float:
    """Processor time of a process and of all that it started, those that have ended and were waited for too."""
    ticks = 0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def tree_resident_mb(pid: int) -> float:
    """What a process and all that it started hold at this moment."""
    total = 0.0
    for each in _tree(pid):
        with contextlib.suppress(OSError):
            total += resident_mb(each)
    return total


def end_tree(pid: int) -> None:
    """Kill a process and all that it started."""
    for each in _tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
