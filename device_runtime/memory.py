"""The memory that a device may use: what its owner allows, what its process holds, and how running out of it sounds."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from mas_edge.protocol.errors import DeviceError

UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
_SIZE = re.compile(r"(\d{1,15}(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
# What libraries say when memory runs out; they share no exception. PyTorch on the processor and on a graphics
# processor, ONNX Runtime, NumPy, C++, ExecuTorch, LiteRT.
_WORDS = (
    "can't allocate memory", "cannot allocate memory", "out of memory", "failed to allocate", "unable to allocate",
    "bad_alloc", "memoryallocationfailed", "not enough memory",
)  # fmt: skip


def parse_size(text: str) -> int:
    """The bytes that a size such as ``512K``, ``96M``, ``1.5G`` or ``1000000`` stands for; K is 1024.

    Raises:
        DeviceError: it is no such size, or zero.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if size <= 0:
        message = f"{text!r} is no size of memory; expected a number with K, M or G, such as 512K, 96M or 2G"
        raise DeviceError(message)
    return size


def resident_bytes(process: int = 0) -> int:
    """The memory that this process holds; where the system does not tell, the most that it has held.

    ``process``: the number of another one; 0 bytes where the system does not tell, or it has ended.
    """
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


def available_bytes() -> int | None:
    """The memory that could still be taken without anything being swapped out; None if the system does not tell."""
    try:
        found = _AVAILABLE.search(Path("/proc/meminfo").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return int(found[1]) * 1024 if found else None


def ran_out(error: BaseException) -> bool:
    """Whether ``error`` says that there was not enough memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _WORDS)


def in_units(size: int) -> str:
    """``size`` bytes for people: 96M, 1.5G."""
    unit = next((name for name in ("G", "M", "K") if size >= UNITS[name]), "")
    return f"{size / UNITS[unit]:.4g}{unit or ' bytes'}"
