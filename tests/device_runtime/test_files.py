"""A file is the old one or the new one, whole, whenever the process is killed or the disk fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_runtime.edge.files import OWNER_ONLY, sync, temporary_of, write_whole
from mas_edge.protocol.errors import DeviceError


class Disk:
    """Notes every sync and rename; the ``fails``-th of them fails with ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: int = -1, error: int = errno.EIO) -> None:
        self.done: list[str] = []
        self._fails, self._error = fails, error
        for name in ("fsync", "replace"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            if len(self.done) == self._fails:
                raise OSError(self._error, os.strerror(self._error))
            is_folder = isinstance(first, int) and stat.S_ISDIR(os.fstat(first).st_mode)
            self.done.append("sync folder" if is_folder else {"fsync": "sync file", "replace": "rename"}[name])
            return original(first, *rest)

        return call


@pytest.mark.parametrize(
    ("durable", "steps"), [(True, ["sync file", "rename", "sync folder"]), (False, ["rename"])], ids=["durable", "not"]
)
def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(
    durable: bool, steps: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "folder" / "file"
    write_whole(path, b"new", memoryview(b" and more"), durable=durable)
    assert (path.read_bytes(), disk.done) == (b"new and more", steps)
    assert list(path.parent.iterdir()) == [path]


def test_what_was_written_before_is_synced_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = Disk(monkeypatch), tmp_path / "file"
    write_whole(path, b"data", durable=False)
    sync(path)
    assert disk.done == ["rename", "sync file", "sync folder"]
    with pytest.raises(DeviceError, match=r"cannot write down .*absent"):
        sync(tmp_path / "absent")


@pytest.mark.parametrize(("step", "left"), [(0, b"old"), (1, b"old"), (2, b"new")], ids=["sync", "rename", "folder"])
@pytest.mark.parametrize(
    ("error", "advice"), [(errno.ENOSPC, "the disk is full: free some space"), (errno.EROFS, "read-only")]
)
def test_a_disk_that_fails_leaves_a_whole_file_and_nothing_beside_it(
    step: int, left: bytes, error: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    Disk(monkeypatch, step, error)
    with pytest.raises(DeviceError, match=f"cannot write {path}: .*{advice}"):
        write_whole(path, b"new")
    assert path.read_bytes() == left
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_key_is_for_its_owner_alone_from_its_first_byte_on(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    temporary_of(path).write_bytes(b"of a process that was killed, and for everybody")
    before = os.umask(umask)
    try:
        write_whole(path, b"secret", mode=OWNER_ONLY)
        write_whole(tmp_path / "open", b"no secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == OWNER_ONLY
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o666 & ~umask
