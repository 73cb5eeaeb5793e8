"""Whether an orchestrator works in a state directory, without being in its way.

To try the lock would be the plain way, but an orchestrator that is started in that moment would find it taken, and
leave. Linux lists the locks that are held; elsewhere the lock is tried after all.
"""

from __future__ import annotations

from pathlib import Path

from device_runtime.edge.lock import lock_directory

_LOCKS = Path("/proc/locks")


def is_served(directory: Path) -> bool:
    """Whether another process holds the lock of ``directory``; not so where nobody may write."""
    try:
        inode = (directory / "lock").stat().st_ino
    except OSError:
        return False
    try:
        locks = _LOCKS.read_text()
    except OSError:
        return _is_locked(directory)
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131074 0 EOF
    return any(line.split()[1:2] == ["FLOCK"] and f":{inode} " in line for line in locks.splitlines())


def _is_locked(directory: Path) -> bool:
    try:
        lock_directory(directory).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
