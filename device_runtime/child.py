"""Work that is done in a process of its own, whose memory and whose crashes are not this one's."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_T = TypeVar("_T", bound=msgspec.Struct)
_START = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules as a program.

    It looks for modules exactly where this process does, wherever it was started, and not in the current folder.
    """
    places = json.dumps([path or str(Path.cwd()) for path in sys.path])
    return [sys.executable, "-I", "-c", _START, places, module, *arguments]


def answer(output: bytes, kind: type[_T]) -> _T | None:
    """The last line of ``output`` that is a ``kind`` in JSON: libraries may print, too. None if there is none."""
    for line in reversed(output.splitlines()):
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return None


def end_with_parent() -> None:
    """Be killed when the thread that started this process ends, however it does; only Linux can do so, Android too."""
    if sys.platform in ("linux", "android"):  # Termux says android since Python 3.13
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
