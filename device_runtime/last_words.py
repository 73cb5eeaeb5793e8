"""What a killed process leaves behind, and what the next one learns from it about memory.

The kernel kills without a word. So a note lies in the state directory while a program runs: what it takes, and how
often the kernel has killed for memory since this boot. Who finds such a note at the start was killed at work: if the
kernel's count has risen since, for memory; where there is no such count (Android kills by other means), the second time
in a row counts as that. Then less is allowed from now on, and the orchestrator gives a smaller batch.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import msgspec

from device_runtime.edge.files import write_whole
from device_runtime.host import Host, SensorError
from mas_edge.protocol.errors import DeviceError

# Kills in a row in the same program that count as kills for memory where the kernel does not tell.
KILLS = 2


class _Note(msgspec.Struct):
    """``limit``: what was learned, 0 = nothing; the rest is of the work that goes on, ``needed`` 0 = none."""

    limit: int = 0
    needed: int = 0
    boot: str = ""
    oom_kills: int | None = None
    deaths: int = 0  # in a row, of work that needed this much


class LastWords:
    """The note of one device; ``path`` its file."""

    def __init__(self, path: Path, host: Host) -> None:
        self._path, self._host = path, host
        self._note = _Note()
        with contextlib.suppress(OSError, msgspec.MsgspecError):  # the first start, or a file cut off by a power cut
            self._note = msgspec.json.decode(path.read_bytes(), type=_Note)

    def learn(self) -> int:
        """At the start: the bytes a program may take from now on by what is known of earlier ends; 0 = no limit."""
        note = self._note
        if not note.needed:
            return note.limit
        if note.boot == self._boot():  # else the power was cut, which says nothing of memory
            note.deaths += 1
            counted = self._oom_kills()
            known = counted is not None and note.oom_kills is not None
            if (known and (counted or 0) > (note.oom_kills or 0)) or (not known and note.deaths >= KILLS):
                note.limit = min(note.limit or note.needed, note.needed) - 1
                note.deaths = 0
        self._note = _Note(limit=note.limit, deaths=note.deaths)
        self._write()
        return self._note.limit

    def begin(self, needed: int) -> None:
        """Work begins that needs so many bytes."""
        self._note.needed, self._note.boot, self._note.oom_kills = needed, self._boot(), self._oom_kills()
        self._write()

    def end(self) -> None:
        """It has ended, one way or the other, and the process lives."""
        self._note.needed = self._note.deaths = 0
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(DeviceError):  # on a full disk nothing is learned, and nothing is lost
            write_whole(self._path, msgspec.json.encode(self._note), durable=False)  # a power cut says nothing

    def _boot(self) -> str:
        try:
            return self._host.text("/proc/sys/kernel/random/boot_id")
        except SensorError:
            return ""

    def _oom_kills(self) -> int | None:
        """How often the kernel has killed for memory since this boot; None if it does not tell."""
        try:
            found = re.search(r"^oom_kill (\d+)$", self._host.text("/proc/vmstat"), re.MULTILINE)
        except SensorError:
            return None
        return int(found[1]) if found else None
