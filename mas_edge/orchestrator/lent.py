"""Numbers in a mapped file, for passes over something large: what was read is let go, so that memory holds a part."""

from __future__ import annotations

import mmap

from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.weights import Vector

# Pages of a mapped file count as this process's memory until they are let go. Small beside the sums that an update is
# added to; an update of 10 MB is let go once in a pass, which takes no time that could be measured.
HELD_BYTES = 8 * 1024 * 1024


class Lent:
    """``vector``, which lies in ``data``; read piece by piece, it holds about HELD_BYTES of a mapped file in memory."""

    def __init__(self, vector: Vector, data: Buffer) -> None:
        owner = memoryview(data).obj
        self._vector = vector
        self._map = owner if isinstance(owner, mmap.mmap) else None  # else it was in memory before
        self._read = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the vector."""
        return self._vector.shape

    def __getitem__(self, place: slice, /) -> Vector:
        """A piece, as a view: who reads it again has it fetched from the file again."""
        piece = self._vector[place]
        self._read += piece.nbytes
        if self._map is not None and self._read > HELD_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = piece.nbytes
        return piece
