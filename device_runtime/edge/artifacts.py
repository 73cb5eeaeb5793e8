"""Artifacts on disk: whole ones named by their digest, and those still arriving.

    {digest}        a whole artifact
    {digest}.part   one that is arriving, at its full size from the beginning
    {digest}.map    which of its chunks are there: "MAP1", the chunk size (u32, big-endian), the bits of ``Bitmap``
    {digest}.tmp    one that is being put; pieces.tmp: one whose digest is not known yet
    {name}.gone     what is to be removed

Power may go at any moment. Nothing on the disk is believed that this process has not hashed: a whole artifact when it
is first asked for, a part by its chunks when it is opened again. So chunks are written without a sync each, and what
can be fetched again needs none at all. What was hashed here is not hashed again while its file stays untouched.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_runtime.edge.files import disk, sync
from mas_edge.protocol.artifact import (
    HEADER_BYTES,
    Bitmap,
    Buffer,
    check_data,
    check_digest,
    chunk_count,
    chunk_header,
    chunk_span,
    describe,
    describe_stream,
    digest_of,
    matches,
)
from mas_edge.protocol.errors import DamagedChunksError, DeviceError, TransferError
from mas_edge.protocol.messages import Manifest

READ_BYTES = 1024 * 1024  # how much of a file is in memory while it is hashed
_MAP_MAGIC = b"MAP1"
_GONE = ".gone"
_CLOSED_IN_CHILDREN = os.O_CLOEXEC
_Mark = tuple[int, int, int]


class ArtifactStore:
    """Whole artifacts in one directory. One process uses a directory; its threads may share the store.

    Raises:
        DeviceError: the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()  # a put and a prune must not meet
        self._verified: dict[str, _Mark] = {}  # whole artifacts whose bytes this process knows to be right
        with disk("make the artifact directory", directory):
            directory.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the artifact is, or would be.

        Raises:
            TransferError: ``digest`` is not a sha256 in hex, so it cannot be a file name here.
        """
        return self.directory / check_digest(digest)

    def has(self, digest: str) -> bool:
        """Whether the artifact is here; one that was damaged before this process began, or since, is removed.

        Raises:
            DeviceError: it is here and cannot be read.
        """
        path = self.path(digest)
        if not path.is_file():
            return False
        with disk("read the artifact", path):
            if self._is_verified(path) or _hash_file(path) == digest:
                self._trust(path)
                return True
            path.unlink(missing_ok=True)
        return False

    def read(self, digest: str) -> bytes:
        """Return the artifact's bytes.

        Raises:
            DeviceError: it is not here, cannot be read, or is damaged; a damaged file is removed.
        """
        path = self._require(digest)
        with disk("read the artifact", path):
            verified, data = self._is_verified(path), path.read_bytes()
        if not verified and digest_of(data) != digest:
            raise self._remove_damaged(path)
        return data

    @contextmanager
    def opened(self, digest: str) -> Iterator[memoryview]:
        """Lend the artifact's bytes without reading them into memory: for one pass over something large.

        Raises:
            DeviceError: it is not here, cannot be read, or is damaged; a damaged file is removed.
        """
        path = self._require(digest)
        with disk("read the artifact", path), path.open("rb") as file:
            # an empty file cannot be mapped
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            verified = self._is_verified(path)
        view = memoryview(data)
        if not verified and digest_of(view) != digest:
            raise self._remove_damaged(path)
        yield view

    def manifest(self, digest: str, chunk_size: int | None = None) -> Manifest:
        """Describe an artifact that is here, holding one chunk in memory at a time.

        Raises:
            DeviceError: it is not here, cannot be read, or is damaged; a damaged file is removed.
            TransferError: it does not fit into chunks of this size.
        """
        path = self._require(digest)
        with disk("read the artifact", path), path.open("rb") as file:
            manifest = describe_stream(lambda _, length: file.read(length), path.stat().st_size, chunk_size)
        if manifest.artifact != digest:
            raise self._remove_damaged(path)
        return manifest

    def read_frame(self, manifest: Manifest, index: int) -> bytearray:
        """Return the frame of one chunk, its data read into the memory that is sent, and verified.

        Raises:
            DeviceError: the artifact is not here, cannot be read, or is damaged; a damaged file is removed.
            TransferError: there is no such chunk.
        """
        span = chunk_span(manifest, index)
        path = self._require(manifest.artifact)
        frame = bytearray(HEADER_BYTES + span.stop - span.start)
        frame[:HEADER_BYTES] = chunk_header(manifest, index)
        data = memoryview(frame)[HEADER_BYTES:]
        with disk("read the artifact", path):
            verified, count = self._is_verified(path), _read_into(path, span.start, data)
        try:
            if not verified or count < len(data):
                check_data(manifest, index, data[:count])
                if not manifest.chunk_digests:
                    self._require_whole(manifest.artifact)
        except TransferError:
            raise self._remove_damaged(path) from None
        return frame

    def _require_whole(self, digest: str) -> None:
        """Raise TransferError if the artifact is damaged; it is removed then."""
        if not self.has(digest):
            message = f"artifact {digest[:12]} is damaged on disk"
            raise TransferError(message)

    def put(
        self, data: bytes, chunk_size: int | None = None, *, durable: bool = True, chunk_digests: bool = True
    ) -> Manifest:
        """Store ``data`` so that after a power loss it is there as a whole or not at all; return its manifest.

        With ``durable`` it is there as a whole already when this returns; else after ``sync``. ``chunk_digests``: see
        ``mas_edge.protocol.artifact.describe``.

        Raises:
            DeviceError: the disk is full or not writable.
            TransferError: the data does not fit into chunks of this size.
        """
        manifest = describe(data, chunk_size, chunk_digests=chunk_digests)
        path = self.path(manifest.artifact)
        temporary = path.with_name(f"{path.name}.tmp")
        with self._lock, disk("store the artifact", path):
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                _publish(temporary, path, durable=durable)
                self._trust(path)
            finally:
                temporary.unlink(missing_ok=True)
        return manifest

    def sync(self, digest: str) -> None:
        """Return when a power loss could no longer take this artifact.

        Raises:
            DeviceError: it is not here, or the disk reports a fault.
        """
        path = self._require(digest)
        sync(path)

    def put_pieces(self, pieces: Iterable[Buffer], chunk_size: int | None = None) -> Manifest:
        """As ``put``, of what the pieces are one after the other; only one of them is in memory at a time.

        Raises:
            DeviceError, TransferError: as ``put``.
        """
        temporary = self.directory / "pieces.tmp"
        with self._lock, disk("store the artifact", temporary):
            try:
                with temporary.open("wb") as file:
                    file.writelines(pieces)
                with temporary.open("rb") as file:
                    size = temporary.stat().st_size
                    manifest = describe_stream(lambda _, length: file.read(length), size, chunk_size)
                _publish(temporary, self.path(manifest.artifact))
                self._trust(self.path(manifest.artifact))
            finally:
                temporary.unlink(missing_ok=True)
        return manifest

    def keep(self, digests: set[str]) -> None:
        """Remove every file but the artifacts and parts of ``digests``; also what a killed process left behind.

        Raises:
            DeviceError: a file cannot be removed.
        """
        self.set_aside_all_but(digests)
        self.sweep()

    def set_aside_all_but(self, digests: set[str]) -> None:
        """As ``keep``, but leave the files to ``sweep``: to remove a file that was just written may take long.

        Raises:
            DeviceError: a file cannot be renamed.
        """
        kept = {f"{digest}{ending}" for digest in digests for ending in ("", ".part", ".map")}
        with self._lock, disk("prune", self.directory):
            for path in self.directory.iterdir():
                if path.name not in kept and not path.name.endswith(_GONE) and path.is_file():
                    path.replace(path.with_name(f"{path.name}{_GONE}"))
                    self._verified.pop(path.name, None)

    def sweep(self) -> None:
        """Remove what was set aside.

        Raises:
            DeviceError: a file cannot be removed.
        """
        with disk("prune", self.directory):
            for path in self.directory.iterdir():
                if path.name.endswith(_GONE):
                    path.unlink(missing_ok=True)

    def discard(self, digest: str) -> None:
        """Remove an artifact, if it is here.

        Raises:
            DeviceError: it cannot be removed.
        """
        path = self.path(digest)
        with self._lock, disk("remove", path):
            path.unlink(missing_ok=True)
            self._verified.pop(path.name, None)

    def size_of(self, digests: Iterable[str]) -> int:
        """The bytes of those of these artifacts that are here.

        Raises:
            DeviceError: the directory cannot be read.
        """
        paths = [self.path(digest) for digest in digests]
        with disk("read", self.directory):
            return sum(path.stat().st_size for path in paths if path.is_file())

    def prune(self, max_bytes: int, in_use: set[str]) -> None:
        """Remove the artifacts that were written longest ago until the rest fits ``max_bytes``; never those in use.

        Raises:
            DeviceError: a file cannot be removed.
        """
        with self._lock, disk("prune", self.directory):
            files = [(path.stat().st_mtime, path.stat().st_size, path) for path in self.directory.iterdir()]
            excess = sum(size for _, size, _ in files) - max_bytes
            for _, size, path in sorted(files):
                if excess > 0 and path.stem not in in_use:
                    path.unlink()
                    self._verified.pop(path.name, None)
                    excess -= size

    def partial(self, manifest: Manifest) -> PartFile:
        """Begin to receive an artifact, or go on where an earlier attempt ended.

        Raises:
            DeviceError: the disk is full or not writable.
        """
        return PartFile(manifest, self.path(manifest.artifact), self._trust)

    @property
    def total_bytes(self) -> int:
        """The bytes of all files here; a part counts in full, because that is what it will need."""
        with self._lock, disk("list", self.directory):
            return sum(path.stat().st_size for path in self.directory.iterdir())

    def _trust(self, path: Path) -> None:
        self._verified[path.name] = _mark(path)

    def _is_verified(self, path: Path) -> bool:
        return self._verified.get(path.name) == _mark(path)

    def _require(self, digest: str) -> Path:
        path = self.path(digest)
        if not path.is_file():
            message = f"artifact {digest[:12]} is not in {self.directory}: it has to be received again"
            raise DeviceError(message)
        return path

    def _remove_damaged(self, path: Path) -> DeviceError:
        with disk("remove the damaged artifact", path):
            path.unlink(missing_ok=True)
        message = (
            f"artifact {path.name[:12]} was damaged on disk and has been removed: it has to be received again; "
            "if this repeats, check the card or disk"
        )
        return DeviceError(message)


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
        self._left: _Mark | None = None  # the part's file after our last write
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
            self._left = _mark(self._part)
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
            _publish(self._part, self._target, durable=durable)
            self._map.unlink(missing_ok=True)
            self._on_whole(self._target)
        return self._target

    def _whole_digest(self) -> str:
        """What came in order was hashed as it came; the rest is read again, and all of it if another wrote to it."""
        if _mark(self._part) != self._left:
            self._digest, self._hashed = hashlib.sha256(), 0
        with self._part.open("rb", buffering=0) as file:
            file.seek(min(self._hashed * self.manifest.chunk_size, self.manifest.size))
            while block := file.read(READ_BYTES):
                self._digest.update(block)
        return self._digest.hexdigest()

    def _give_back_damaged(self) -> None:
        """Raise DamagedChunksError if there are any."""
        spans = ((index, chunk_span(self.manifest, index)) for index in range(self.held.count))
        damaged = [index for index, span in spans if not matches(self.manifest, index, _read_span(self._part, span))]
        if not self.manifest.chunk_digests:
            damaged = list(range(self.held.count))
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
            data = _read_span(self._part, chunk_span(self.manifest, index))
            if matches(self.manifest, index, data):
                held.add(index)
        return held

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
    return data[: _read_into(path, span.start, data)]


def _read_into(path: Path, offset: int, data: memoryview) -> int:
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


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _mark(path: Path) -> _Mark:
    """What changes when a file is written to or replaced."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _publish(written: Path, target: Path, *, durable: bool = True) -> None:
    """Rename a file, then sync it and the directory: in this order the second sync finds nothing left to write.

    After a power cut the name may stand for half a file; whoever asks for it next finds that out (``has``).
    """
    written.replace(target)
    if durable:
        sync(target)
