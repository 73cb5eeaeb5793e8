"""An artifact that is arriving, on disk: its part, which chunks are there, and the end that gives it its name."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from device_runtime.edge.files import READ_BYTES, disk, sync
from mas_edge.protocol.artifact import Bitmap, Buffer, chunk_count, chunk_span, matches
from mas_edge.protocol.errors import DamagedChunksError, DeviceError, TransferError
from mas_edge.protocol.messages import Manifest

_MAP_MAGIC = b"MAP1"
_CLOSED_IN_CHILDREN = os.O_CLOEXEC
Mark = tuple[int, int, int]


def _no_one_asks(_: Path) -> None:
    """A part whose end nobody waits for."""


class PartFile:
    """An artifact that is arriving.

    Attributes:
        held: the chunks that are here; after a restart those of the map whose bytes match their digest. Where chunks
            have none the map is believed, until the whole is checked.

    Raises:
        DeviceError: the disk is full or not writable.
    """

    def __init__(self, manifest: Manifest, target: Path, on_whole: Callable[[Path], None] = _no_one_asks) -> None:
        self.manifest = manifest
        self._target = target
        self._on_whole = on_whole
        self._digest, self._hashed = hashlib.sha256(), 0  # of the chunks before this one, which came in order
        self._left: Mark | None = None  # the part's file after our last write
        self._part = target.with_name(f"{target.name}.part")
        self._map = target.with_name(f"{target.name}.map")
        with disk("prepare", self._part):
            self.held = self._resume()
            self._map.write_bytes(self._header() + self.held.to_bytes())

    def write(self, index: int, data: Buffer) -> None:
        """Store the data of a chunk, verified or not: ``finish`` checks the whole.

        Raises:
            DeviceError: the disk is full or not writable, or the part was removed.
        """
        with disk("write to", self._part):
            _write_at(self._part, chunk_span(self.manifest, index).start, data)
            self._left = mark(self._part)
            if index == self._hashed and index not in self.held:
                self._digest.update(data)
                self._hashed += 1
            self.held.add(index)
            place = index >> 3
            _write_at(self._map, len(self._header()) + place, self.held.to_bytes()[place : place + 1])

    def finish(self, *, durable: bool = True) -> Path:
        """Give the whole artifact its name and return its path; ``durable``: return when it would survive a power cut.

        Raises:
            DamagedChunksError: the whole has another digest because these chunks are not the manifest's; they are no
                longer held.
            TransferError: chunks are missing; or the whole has another digest though every chunk is the manifest's:
                then it is removed, because asking for the same chunks again would end the same way.
            DeviceError: the disk is full or not writable.
        """
        if not self.held.complete:
            message = f"artifact {self._target.name[:12]} lacks {len(self.held.missing())} of {self.held.count} chunks"
            raise TransferError(message)
        with disk("finish", self._part):
            digest = self._whole_digest()
            if digest != self.manifest.artifact:
                self._give_back_damaged()
                self.remove()
                message = f"artifact {self._target.name[:12]} arrived as {digest[:12]}: its manifest contradicts itself"
                raise TransferError(message)
            publish(self._part, self._target, durable=durable)
            self._map.unlink(missing_ok=True)
            self._on_whole(self._target)
        return self._target

    def _whole_digest(self) -> str:
        """What came in order was hashed as it came; the rest is read again, and all of it if another wrote to it."""
        if mark(self._part) != self._left:
            self._digest, self._hashed = hashlib.sha256(), 0
        with self._part.open("rb", buffering=0) as file:
            file.seek(min(self._hashed * self.manifest.chunk_size, self.manifest.size))
            while block := file.read(READ_BYTES):
                self._digest.update(block)
        return self._digest.hexdigest()

    def _give_back_damaged(self) -> None:
        """Raise DamagedChunksError if there are any."""
        damaged = list(range(self.held.count))
        if self.manifest.chunk_digests:
            damaged = [index for index in damaged if not self._matches(index)]
        if not damaged:
            return
        for index in damaged:
            self.held.discard(index)
        self._digest, self._hashed = hashlib.sha256(), 0
        self._map.write_bytes(self._header() + self.held.to_bytes())
        message = (
            f"{len(damaged)} of {self.held.count} chunks of {self._target.name[:12]} are corrupt, the first is "
            f"{damaged[0]}: their sha256 is not the manifest's"
        )
        raise DamagedChunksError(message, damaged)

    def remove(self) -> None:
        """Give up what has come. Raises DeviceError if it cannot be removed."""
        with disk("remove", self._part):
            self._part.unlink(missing_ok=True)
            self._map.unlink(missing_ok=True)

    def _header(self) -> bytes:
        return _MAP_MAGIC + self.manifest.chunk_size.to_bytes(4, "big")

    def _resume(self) -> Bitmap:
        if not self._part.is_file() or self._part.stat().st_size != self.manifest.size:
            _require_space(self._target.parent, self.manifest.size)
            with self._part.open("wb") as file:
                file.truncate(self.manifest.size)
            return Bitmap(chunk_count(self.manifest))
        held = Bitmap(chunk_count(self.manifest))
        for index in self._candidates():
            if self._matches(index):
                held.add(index)
        return held

    def _matches(self, index: int) -> bool:
        """Whether a chunk on the disk has its digest; it is not read if there is none."""
        if not self.manifest.chunk_digests:
            return True
        return matches(self.manifest, index, _read_span(self._part, chunk_span(self.manifest, index)))

    def _candidates(self) -> list[int]:
        """The chunks worth verifying: those of the map, or all when the map is lost or of another chunk size.

        None then if they have no digests: they could not be verified.
        """
        count = chunk_count(self.manifest)
        data = self._map.read_bytes() if self._map.is_file() else b""
        header = self._header()
        try:
            bitmap = Bitmap.from_bytes(data.removeprefix(header), count) if data.startswith(header) else None
        except TransferError:
            bitmap = None
        if bitmap is None and not self.manifest.chunk_digests:
            return []
        return [index for index in range(count) if bitmap is None or index in bitmap]


def _require_space(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        message = (
            f"{directory} has {free} bytes free, the artifact needs {size}: "
            "free some space, or choose another state directory"
        )
        raise DeviceError(message)


def _read_span(path: Path, span: slice) -> memoryview:
    data = memoryview(bytearray(span.stop - span.start))
    return data[: read_into(path, span.start, data)]


def read_into(path: Path, offset: int, data: memoryview) -> int:
    """Fill ``data`` from the file; returns how many bytes there were."""
    handle = os.open(path, os.O_RDONLY | _CLOSED_IN_CHILDREN)
    try:
        return os.preadv(handle, [data], offset)
    finally:
        os.close(handle)


def _write_at(path: Path, offset: int, data: Buffer) -> None:
    view = memoryview(data)
    handle = os.open(path, os.O_WRONLY | _CLOSED_IN_CHILDREN)
    try:
        while view:  # a nearly full disk takes only some of it, and refuses the rest
            count = os.pwrite(handle, view, offset)
            view, offset = view[count:], offset + count
    finally:
        os.close(handle)


def mark(path: Path) -> Mark:
    """What changes when a file is written to or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def publish(written: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a file, then sync it and the directory: in this order the second sync finds nothing left to write.

    After a power cut the name may stand for half a file; whoever asks for it next finds that out (``has``).
    """
    written.replace(target)
    if durable:
        sync(target)
