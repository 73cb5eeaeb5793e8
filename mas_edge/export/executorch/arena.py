"""The memory plan: every value a place in one block, those that are never needed together the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 16  # bytes; a kernel may read that much at once


@dataclass
class Storage:
    """Memory for one result and every view of it: needed from call ``first`` to call ``last``, both included."""

    size: int  # bytes
    first: int
    last: int
    offset: int = 0


def plan(storages: Sequence[Storage]) -> int:
    """Give every storage its offset; return the bytes of the whole block.

    The largest first, each at the lowest place that is free for as long as it is needed: greedy by size (Pisarchyk and
    Lee 2020, arXiv 2001.03288), which comes within a few per cent of the lower bound on such graphs.
    """
    placed: list[Storage] = []
    for storage in sorted(storages, key=lambda each: (-each.size, each.first)):
        storage.offset = _lowest_gap(storage, placed)
        place = len(placed)
        while place and placed[place - 1].offset > storage.offset:
            place -= 1
        placed.insert(place, storage)
    return max((_end(storage) for storage in placed), default=0)


def _lowest_gap(storage: Storage, placed: Sequence[Storage]) -> int:
    """``placed`` is sorted by offset."""
    first, last, size, free = storage.first, storage.last, storage.size, 0
    for other in placed:
        if other.first <= last and first <= other.last:
            if other.offset >= free + size:
                break
            free = max(free, _end(other))
    return free


def _end(storage: Storage) -> int:
    return storage.offset + -(-storage.size // ALIGNMENT) * ALIGNMENT
