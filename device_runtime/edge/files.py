"""Files that are whole or not there whenever the power goes, and errors of the disk that say what to do."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import DeviceError

OWNER_ONLY = 0o600  # keys
READ_BYTES = 1024 * 1024  # how much of a file is in memory while it is hashed
_EVERYBODY = 0o666  # less the process's umask, as ``open`` does it
_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space, or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another place",
    errno.EFBIG: "the file would be over the size limit of this process or file system: raise the limit (ulimit -f)",
    errno.EACCES: "no permission: give the user that runs this the right to write there",
    errno.EPERM: "no permission: give the user that runs this the right to write there",
    errno.EROFS: "the file system is read-only: mount it writable, or choose another place",
    errno.EIO: "the storage reports a fault: check the card or disk",
}


@contextmanager
def disk(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a DeviceError that says what to do: "cannot ``doing`` ``path``: ..."."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, f"{error.strerror or error}: check that the path is usable")
        message = f"cannot {doing} {path}: {advice}"
        raise DeviceError(message) from None


def write_whole(path: Path, *parts: Buffer, mode: int = _EVERYBODY, durable: bool = True) -> None:
    """Replace a file by ``parts``, one after the other: at any moment the old one or the new one is there, whole.

    The new one is written beside it, synced, renamed over it, and its folder synced: when this returns, a power cut
    cannot take it. Without ``durable`` nothing is synced, and only a killed process does no harm. The folder is made.

    Raises:
        DeviceError: the disk is full or not writable; the old file stays.
    """
    temporary = temporary_of(path)
    with disk("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of a process that was killed: perhaps of another mode
        try:
            _write_new(temporary, parts, mode, durable=durable)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)


def temporary_of(path: Path) -> Path:
    """Where a new ``path`` is written: a process that is killed leaves it behind until the next ``write_whole``."""
    return path.with_name(f"{path.name}.new")


def sync(path: Path) -> None:
    """Return when a power loss could take neither the bytes of ``path`` nor its name any more.

    Raises:
        DeviceError: it is not there, or the disk reports a fault.
    """
    with disk("write down", path):
        _sync(path)
        _sync(path.parent)


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _write_new(path: Path, parts: tuple[Buffer, ...], mode: int, *, durable: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with open(handle, "wb") as file:  # noqa: PTH123 - a path would be opened before its mode is set
        file.writelines(parts)
        file.flush()
        if durable:
            os.fsync(handle)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
