"""The artifact that the transfer tests move, whole and in pieces."""

from __future__ import annotations

import random

from mas_edge.protocol.artifact import (
    MAX_CHUNK,
    Bitmap,
    Chunk,
    chunk_count,
    chunk_span,
    decode_chunk,
    describe,
    encode_chunk,
)
from mas_edge.protocol.transfer import SEGMENT_BYTES, segment_chunks

Ranges = list[tuple[int, int]]
KIB = 1024
DATA = random.Random(1).randbytes(20 * KIB + 100)  # 21 chunks, the last one short
MANIFEST = describe(DATA, KIB)
COUNT = chunk_count(MANIFEST)
LARGE = describe(bytes(5 * SEGMENT_BYTES), MAX_CHUNK)  # of five segments
PER_SEGMENT = segment_chunks(LARGE)


def frame_of(index: int) -> bytes:
    return encode_chunk(MANIFEST, index, DATA[chunk_span(MANIFEST, index)])


def chunk_of(index: int) -> Chunk:
    return decode_chunk(frame_of(index))


def bitmap_of(*indices: int) -> Bitmap:
    bitmap = Bitmap(COUNT)
    for index in indices:
        bitmap.add(index)
    return bitmap
