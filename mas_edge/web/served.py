"""Whether an orchestrator works in a state directory, without touching its lock.

To try the lock would be the plain way, but an orchestrator that is started in that moment would find it taken, and
leave. Linux lists the locks that are held.
"""

from __future__ import annotations

from pathlib import Path

_LOCKS = Path("/proc/locks")


def is_served(directory: Path) -> bool:
    """Whether another process holds the lock of ``directory``; where the system does not say, that there is a run."""
    try:
        held = (directory / "lock").stat()
        locks = _LOCKS.read_text()
    except OSError:
        return False
    # 1: FLOCK  ADVISORY  WRITE 4711 fe:00:131074 0 EOF
    return any(line.split()[1:2] == ["FLOCK"] and f":{held.st_ino} " in line for line in locks.splitlines())
