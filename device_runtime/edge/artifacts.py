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

import mmap
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from device_runtime.edge.files import disk, hash_file, sync
from device_runtime.edge.part_file import Mark, PartFile, mark, publish, read_into
from mas_edge.protocol.artifact import (
    HEADER_BYTES,
    Buffer,
    check_data,
    check_digest,
    chunk_header,
    chunk_span,
    describe,
    describe_stream,
    digest_of,
)
from mas_edge.protocol.errors import DeviceError, TransferError
from mas_edge.protocol.messages import Manifest

_GONE = ".gone"


class ArtifactStore:
    """Whole artifacts in one directory. One process uses a directory; its threads may share the store.

    Raises:
        DeviceError: the directory cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()  # a put and a prune must not meet
        self._verified: dict[str, Mark] = {}  # whole artifacts whose bytes this process knows to be right
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
            if self._is_verified(path) or hash_file(path) == digest:
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
            damaged = not self._is_verified(path) and hash_file(path) != digest  # read: what is mapped stays in memory
        if damaged:
            raise self._remove_damaged(path)
        yield memoryview(data)

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
            verified, count = self._is_verified(path), read_into(path, span.start, data)
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
                publish(temporary, path, durable=durable)
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
                manifest = _described(temporary, chunk_size)
                publish(temporary, self.path(manifest.artifact))
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
        self._verified[path.name] = mark(path)

    def _is_verified(self, path: Path) -> bool:
        return self._verified.get(path.name) == mark(path)

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


def _described(path: Path, chunk_size: int | None) -> Manifest:
    """The manifest of a file. The whole is hashed, and written down, beside its chunks: each takes as long."""
    from concurrent.futures import ThreadPoolExecutor  # a device, whose memory is small, makes no pieces

    with ThreadPoolExecutor(2) as beside, path.open("rb", buffering=0) as file:
        written, whole = beside.submit(sync, path), beside.submit(hash_file, path)
        manifest = describe_stream(
            lambda _, length: file.read(length), path.stat().st_size, chunk_size, whole_digest=whole.result
        )
        written.result()  # the disk's faults are ours
    return manifest
