"""One process a state directory: on a device as on the orchestrator."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO


def lock_directory(directory: Path) -> TextIO:
    """Make ``directory`` if it is missing and keep it to this process; the lock goes with the process, however it ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the directory cannot be used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise
    return lock
