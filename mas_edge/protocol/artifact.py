"""Artifacts: immutable bytes named by their sha256, their manifest, and the chunks they travel in.

A chunk crosses the broker as one frame, numbers big-endian:

    16 bytes   the first half of the artifact's sha256
     4 bytes   index of the chunk, u32
     4 bytes   length of the data, u32
     n bytes   the data; every chunk but the last has the manifest's ``chunk_size``

Nothing here keeps state or does I/O; who asks for what and when is in ``transfer``.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest

# Each chunk costs every hand that it passes through, however large it is: with 256 KiB a round of 10.49 MB took 14 %
# longer (measured, docs/results/rounds.md). A chunk of 1 MiB would not fit the packets of 1 MiB that our brokers carry;
# one that is larger than a broker's packets goes in fragments.
MAX_CHUNK = 512 * 1024
DEFAULT_CHUNK = 64 * 1024
MIN_CHUNK = 1024  # what a microboard can still buffer; below it the headers and digests outweigh the data
MAX_CHUNKS = 4096  # 1 GiB in chunks of 256 KiB; their digests are 128 KiB, which a control message can carry
HEADER_BYTES = 24
DIGEST_BYTES = 32
# Chunks grow above 32 of them (2 MiB in the default size): each costs every hand that it passes through about as much
# as 64 KiB of data do (measured, docs/results/rounds.md). A manifest stays below 24 KB up to 256 MiB.
CHUNKS_BEFORE_GROWTH = 32

Buffer = bytes | bytearray | memoryview

_HEADER = struct.Struct(">16sII")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A decoded frame. ``data`` is a view into the frame, not a copy."""

    artifact_prefix: bytes  # 16 bytes
    index: int
    data: memoryview


def chunk_size_for(size: int, limit: int = MAX_CHUNK) -> int:
    """The chunk size for an artifact of ``size`` bytes when the broker carries at most ``limit`` bytes of data.

    Raises:
        TransferError: the artifact does not fit into MAX_CHUNKS chunks, or the limit is below MIN_CHUNK.
    """
    limit = min(limit, MAX_CHUNK)
    if limit < MIN_CHUNK:
        message = f"chunks of at most {limit} bytes are too small: expected a broker that carries {MIN_CHUNK} or more"
        raise TransferError(message)
    if size > MAX_CHUNKS * limit:
        message = (
            f"artifact of {size} bytes does not fit into {MAX_CHUNKS} chunks of {limit} bytes: "
            "make the network smaller, or let the broker carry larger packets"
        )
        raise TransferError(message)
    wanted = DEFAULT_CHUNK
    while wanted * CHUNKS_BEFORE_GROWTH < size and wanted < limit:
        wanted *= 2
    return min(wanted, limit)


def digest_of(data: Buffer) -> str:
    """The name of these bytes: their sha256 in hex."""
    return hashlib.sha256(data).hexdigest()


def check_digest(digest: str) -> str:
    """Return ``digest`` unchanged, or raise TransferError if it is not a sha256 in lower-case hex."""
    if not _DIGEST.fullmatch(digest):
        message = f"artifact name {digest[:80]!r} is not a sha256: expected 64 hex digits in lower case"
        raise TransferError(message)
    return digest


def describe(data: bytes | memoryview, chunk_size: int | None = None, *, chunk_digests: bool = True) -> Manifest:
    """Return the manifest of ``data``; without ``chunk_digests`` only the whole can be checked, for half the work.

    Raises:
        TransferError: the data is too large, or ``chunk_size`` is not allowed for it.
    """
    view = memoryview(data)
    if not chunk_digests:
        chunk_size = chunk_size_for(len(view)) if chunk_size is None else chunk_size
        _check_sizes(len(view), chunk_size)
        return Manifest(artifact=digest_of(view), size=len(view), chunk_size=chunk_size, chunk_digests=b"")
    return describe_stream(lambda start, length: view[start : start + length], len(view), chunk_size)


def describe_stream(
    read: Callable[[int, int], bytes | memoryview], size: int, chunk_size: int | None = None,
    whole_digest: Callable[[], str] | None = None,
) -> Manifest:  # fmt: skip
    """Return the manifest of ``size`` bytes that ``read(offset, length)`` gives; holds one chunk at a time.

    ``whole_digest``: says the name of these bytes, for whom somebody else finds it out meanwhile.

    Raises:
        TransferError: too large, a chunk size that is not allowed, or ``read`` gave fewer bytes than asked for.
    """
    chunk_size = chunk_size_for(size) if chunk_size is None else chunk_size
    _check_sizes(size, chunk_size)
    whole, digests = hashlib.sha256(), bytearray()
    for start in range(0, size, chunk_size):
        length = min(chunk_size, size - start)
        data = read(start, length)
        if len(data) != length:
            message = f"expected {length} bytes at offset {start} of an artifact of {size}, got {len(data)}"
            raise TransferError(message)
        if whole_digest is None:
            whole.update(data)
        digests += hashlib.sha256(data).digest()
    name = whole_digest() if whole_digest else whole.hexdigest()
    return Manifest(artifact=name, size=size, chunk_size=chunk_size, chunk_digests=bytes(digests))


def check_manifest(manifest: Manifest, max_bytes: int, *, whole_only: bool = False) -> Manifest:
    """Return ``manifest`` unchanged if it describes at most ``max_bytes`` bytes without a contradiction.

    ``whole_only``: it may do without the digests of the chunks.

    Raises:
        TransferError: the digest, a size or the number of chunk digests is wrong; the message names it.
    """
    check_digest(manifest.artifact)
    if manifest.size > max_bytes:
        message = f"artifact {manifest.artifact[:12]} has {manifest.size} bytes; at most {max_bytes} are accepted here"
        raise TransferError(message)
    _check_sizes(manifest.size, manifest.chunk_size)
    expected = DIGEST_BYTES * chunk_count(manifest)
    if len(manifest.chunk_digests) != expected and (manifest.chunk_digests or not whole_only):
        message = (
            f"manifest of {manifest.artifact[:12]} has {len(manifest.chunk_digests)} bytes of chunk digests, "
            f"expected {expected} for {chunk_count(manifest)} chunks"
        )
        raise TransferError(message)
    return manifest


def _check_sizes(size: int, chunk_size: int) -> None:
    if size < 0:
        message = f"artifact size {size} is negative"
        raise TransferError(message)
    if not MIN_CHUNK <= chunk_size <= MAX_CHUNK:
        message = f"chunk size {chunk_size} is not allowed: expected {MIN_CHUNK} to {MAX_CHUNK} bytes"
        raise TransferError(message)
    if size > MAX_CHUNKS * chunk_size:
        message = f"artifact of {size} bytes is more than {MAX_CHUNKS} chunks of {chunk_size} bytes"
        raise TransferError(message)


def chunk_count(manifest: Manifest) -> int:
    """How many chunks the artifact has; an empty one has none."""
    return -(-manifest.size // manifest.chunk_size)


def chunk_span(manifest: Manifest, index: int) -> slice:
    """Where chunk ``index`` lies in the artifact, in bytes.

    Raises:
        TransferError: there is no such chunk.
    """
    if not 0 <= index < chunk_count(manifest):
        message = f"artifact {manifest.artifact[:12]} has chunks 0 to {chunk_count(manifest) - 1}, not {index}"
        raise TransferError(message)
    start = index * manifest.chunk_size
    return slice(start, min(start + manifest.chunk_size, manifest.size))


def encode_chunk(manifest: Manifest, index: int, data: Buffer) -> bytes:
    """Return the frame of chunk ``index``.

    Raises:
        TransferError: there is no such chunk, or ``data`` has another length.
    """
    check_length(manifest, index, data)
    return b"".join((chunk_header(manifest, index), data))


def chunk_header(manifest: Manifest, index: int) -> bytes:
    """Return what stands before the data of chunk ``index``, HEADER_BYTES long.

    Raises:
        TransferError: there is no such chunk.
    """
    span = chunk_span(manifest, index)
    return _HEADER.pack(bytes.fromhex(manifest.artifact)[:16], index, span.stop - span.start)


def decode_chunk(frame: Buffer) -> Chunk:
    """Read a frame without copying its data; the digest is not checked here (``verify_chunk``).

    Raises:
        TransferError: truncated, extra bytes, or numbers that no artifact has.
    """
    view = memoryview(frame)
    if len(view) < HEADER_BYTES:
        message = f"chunk frame of {len(view)} bytes is shorter than its header of {HEADER_BYTES}"
        raise TransferError(message)
    prefix, index, length = _HEADER.unpack_from(view)
    if length != len(view) - HEADER_BYTES:
        message = f"chunk frame says {length} bytes of data, it carries {len(view) - HEADER_BYTES}"
        raise TransferError(message)
    if not 0 < length <= MAX_CHUNK or index >= MAX_CHUNKS:
        message = f"chunk frame with index {index} and {length} bytes of data: no artifact has such a chunk"
        raise TransferError(message)
    return Chunk(prefix, index, view[HEADER_BYTES:].toreadonly())


def check_place(manifest: Manifest, chunk: Chunk) -> None:
    """Raise TransferError if ``chunk`` is not of this artifact or there is no chunk of its index."""
    if chunk.artifact_prefix != bytes.fromhex(manifest.artifact)[:16]:
        message = f"chunk is of artifact {chunk.artifact_prefix.hex()}, expected one of {manifest.artifact[:32]}"
        raise TransferError(message)
    chunk_span(manifest, chunk.index)


def verify_chunk(manifest: Manifest, chunk: Chunk) -> None:
    """Raise TransferError if ``chunk`` is not exactly the piece of this artifact that it says it is."""
    check_place(manifest, chunk)
    check_data(manifest, chunk.index, chunk.data)


def check_data(manifest: Manifest, index: int, data: Buffer) -> None:
    """Raise TransferError if ``data`` has not the length and the digest of chunk ``index``."""
    check_length(manifest, index, data)
    if not matches(manifest, index, data):
        message = f"chunk {index} of {manifest.artifact[:12]} is corrupt: its sha256 is not the manifest's"
        raise TransferError(message)


def matches(manifest: Manifest, index: int, data: Buffer) -> bool:
    """Whether ``data`` has the digest of chunk ``index``; true of whatever there is no digest of."""
    if not manifest.chunk_digests:
        return True
    place = slice(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
    return hashlib.sha256(data).digest() == manifest.chunk_digests[place]


def check_length(manifest: Manifest, index: int, data: Buffer) -> None:
    """Raise TransferError if ``data`` has not the length of chunk ``index``, or there is no such chunk."""
    span = chunk_span(manifest, index)
    if len(data) != span.stop - span.start:
        message = f"chunk {index} of {manifest.artifact[:12]} has {span.stop - span.start} bytes, got {len(data)}"
        raise TransferError(message)


def to_ranges(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Return ``indices`` as half-open ranges, ascending and merged."""
    ranges: list[tuple[int, int]] = []
    for index in sorted(indices):
        if ranges and index <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(index + 1, ranges[-1][1]))
        else:
            ranges.append((index, index + 1))
    return ranges


def from_ranges(ranges: Sequence[tuple[int, int]], count: int) -> list[int]:
    """Return the indices in ``ranges``, ascending; at most ``count`` of them, whatever was sent.

    Raises:
        TransferError: a range is empty, outside 0 to ``count``, or not after the one before it.
    """
    indices: list[int] = []
    previous = 0
    for start, stop in ranges:
        if not previous <= start < stop <= count:
            message = (
                f"range {start} to {stop} is not valid: expected ascending ranges that do not overlap, "
                f"each with a beginning before its end, within 0 to {count}"
            )
            raise TransferError(message)
        indices.extend(range(start, stop))
        previous = stop
    return indices


class Bitmap:
    """Which of ``count`` chunks are held; as bytes, chunk i is bit i % 8 (lowest first) of byte i // 8."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._bits = bytearray(-(-count // 8))
        self._held = 0

    def add(self, index: int) -> None:
        """Mark chunk ``index`` as held."""
        if index not in self:
            self._bits[index >> 3] |= 1 << (index & 7)
            self._held += 1

    def discard(self, index: int) -> None:
        """Mark chunk ``index`` as missing."""
        if index in self:
            self._bits[index >> 3] &= ~(1 << (index & 7))
            self._held -= 1

    def __contains__(self, index: int) -> bool:
        if not 0 <= index < self.count:
            message = f"there are {self.count} chunks, none has the index {index}"
            raise TransferError(message)
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    def __len__(self) -> int:
        return self._held

    @property
    def complete(self) -> bool:
        """Whether every chunk is held."""
        return self._held == self.count

    def missing(self) -> list[int]:
        """The chunks that are not held, ascending."""
        return [index for index in range(self.count) if not self._bits[index >> 3] >> (index & 7) & 1]

    def to_bytes(self) -> bytes:
        """The bits, in ceil(count / 8) bytes."""
        return bytes(self._bits)

    @classmethod
    def from_bytes(cls, data: bytes, count: int) -> Bitmap:
        """Read what ``to_bytes`` wrote.

        Raises:
            TransferError: another length, or a bit beyond ``count``.
        """
        if len(data) != -(-count // 8) or int.from_bytes(data, "little") >> count:
            message = f"bitmap of {len(data)} bytes does not fit {count} chunks"
            raise TransferError(message)
        bitmap = cls(count)
        bitmap._bits[:] = data
        bitmap._held = int.from_bytes(data, "little").bit_count()
        return bitmap
