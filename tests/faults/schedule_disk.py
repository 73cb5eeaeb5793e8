"""A disk in memory for the real code of the stores: what a killed process leaves on it, and what a power cut leaves.

The artifact store and the pending offers run as they are, on paths of this disk instead of ``pathlib``'s, and on an
``os`` that knows its files (``on_simulated_disks``). A process that is killed leaves everything that it wrote. A power
cut leaves what was synced, and of the rest whatever the dice say: nothing, half a file, or all of it; a name that was
given and whose folder was not synced may be missing, and one that was taken away may be back.

It is there for speed: a schedule on a real disk, even one in memory, spends most of its time in system calls. That both
give the same schedules, message by message, is a test.
"""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, cast

from device_runtime import pending
from device_runtime.edge import artifacts, files, part_file
from mas_edge.orchestrator.store import open_database

ROOM = 1 << 40  # bytes free on a disk that never fills up: a full one is a condition of its own
_USERS = (artifacts, files, part_file, pending)  # the modules whose calls of the system reach this disk


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


class _File:
    """The bytes of a file, and what ``stat`` says of it."""

    __slots__ = ("data", "disk", "st_ino", "st_mtime_ns", "synced")

    def __init__(self, disk: Disk) -> None:
        disk.inodes += 1
        self.disk, self.st_ino = disk, disk.inodes
        self.data, self.synced = bytearray(), b""
        self.touch()

    def touch(self) -> None:
        self.st_mtime_ns = int(self.disk.wall() * 1e9)

    @property
    def st_size(self) -> int:
        return len(self.data)

    @property
    def st_mtime(self) -> float:
        return self.st_mtime_ns / 1e9


class _Folder:
    __slots__ = ("entries", "synced")

    def __init__(self) -> None:
        self.entries: dict[str, _File] = {}
        self.synced: dict[str, _File] = {}


class Disk:
    """The disk of one machine; ``wall``: its clock, in seconds since the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall, self.inodes = wall, 0
        self._folders: dict[str, _Folder] = {}

    def folder(self, name: str) -> _Folder:
        """The folder of this name; it is made if it is missing."""
        if (found := self._folders.get(name)) is None:
            self._folders[name] = found = _Folder()
        return found

    def cut_power(self, dice: random.Random) -> None:
        """Lose, by the dice, what was not synced; whoever held a file open is gone."""
        for folder in self._folders.values():
            folder.entries = _after_a_cut(folder, dice)
            for file in folder.entries.values():
                if file.data != file.synced:
                    _tear(file, dice)
            folder.synced = dict(folder.entries)


def _after_a_cut(folder: _Folder, dice: random.Random) -> dict[str, _File]:
    found = {}
    for name in sorted(folder.entries.keys() | folder.synced.keys()):
        now, before = folder.entries.get(name), folder.synced.get(name)
        file = now if now is before or dice.random() < 0.75 else before
        if file is not None:
            found[name] = file
    return found


def _tear(file: _File, dice: random.Random) -> None:
    """The bytes of a file that was not synced: those of its last sync, zeros from somewhere on, or all of them."""
    kind = dice.choice(["before", "torn", "torn", "all"])
    if kind == "before":
        file.data = bytearray(file.synced)
    elif kind == "torn":
        start = dice.randrange(len(file.data) + 1)
        file.data[start:] = bytes(len(file.data) - start)
    file.synced = bytes(file.data)


class SimulatedPath:
    """What the stores use of ``pathlib.Path``, on a ``Disk``: folders without folders in them."""

    __slots__ = ("_at", "_disk", "_folder", "name")

    def __init__(self, disk: Disk, folder: str, name: str = "") -> None:
        self._disk, self._folder, self.name = disk, folder, name
        self._at = disk.folder(folder)

    def __truediv__(self, name: str) -> SimulatedPath:
        return SimulatedPath(self._disk, self._folder, name)

    def __str__(self) -> str:
        return f"{self._folder}/{self.name}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SimulatedPath) and str(self) == str(other) and self._disk is other._disk

    def __lt__(self, other: SimulatedPath) -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def stem(self) -> str:
        """The name without its last ending."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> SimulatedPath:
        """The folder."""
        return SimulatedPath(self._disk, self._folder)

    def with_name(self, name: str) -> SimulatedPath:
        """Another file of this folder."""
        return SimulatedPath(self._disk, self._folder, name)

    def mkdir(self, **_: bool) -> None:
        """The folder is there as soon as it has a path."""

    @property
    def folder(self) -> _Folder:
        """The folder that this path is, or that its file lies in."""
        return self._at

    def file(self) -> _File:
        """The file. Raises FileNotFoundError."""
        try:
            return self._at.entries[self.name]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", str(self)) from None

    def new(self) -> _File:
        """An empty file in place of whatever is there, in the same inode, as opening it for writing does."""
        entries = self._at.entries
        if (file := entries.get(self.name)) is None:
            entries[self.name] = file = _File(self._disk)
        file.data = bytearray()
        file.touch()
        return file

    def is_file(self) -> bool:
        """Whether it is there."""
        return self.name in self._at.entries

    def stat(self) -> _File:
        """What the stores look at, and at once. Raises FileNotFoundError."""
        return self.file()

    def read_bytes(self) -> bytes:
        """All of it. Raises FileNotFoundError."""
        return bytes(self.file().data)

    def write_bytes(self, data: bytes) -> None:
        """Make it ``data``."""
        self.new().data += data

    def open(self, mode: str = "rb", buffering: int = -1) -> _Handle:
        """Open it. Raises FileNotFoundError."""
        return _Handle(self.new() if "w" in mode else self.file())

    def unlink(self, missing_ok: bool = False) -> None:
        """Take it away. Raises FileNotFoundError."""
        if self._at.entries.pop(self.name, None) is None and not missing_ok:
            raise FileNotFoundError(2, "No such file or directory", str(self))

    def replace(self, target: SimulatedPath) -> None:
        """Give it another name. Raises FileNotFoundError."""
        target._at.entries[target.name] = self.file()
        self.unlink()

    def iterdir(self) -> Iterator[SimulatedPath]:
        """The files of the folder that this path is."""
        return iter([self / name for name in self._at.entries])

    def glob(self, pattern: str) -> Iterator[SimulatedPath]:
        """Those of them with the ending of a pattern ``*ENDING``."""
        return iter([path for path in self.iterdir() if path.name.endswith(pattern[1:])])


class _Handle:
    """An open file, and the number that stands for it."""

    __slots__ = ("_at", "file", "folder")

    def __init__(self, file: _File | None, folder: _Folder | None = None) -> None:
        self.file, self.folder, self._at = file, folder, 0

    def __enter__(self) -> _Handle:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        return None

    @property
    def held(self) -> _File:
        """The file; a folder is not read or written."""
        assert self.file is not None
        return self.file

    def fileno(self) -> _Handle:
        return self

    def read(self, size: int = -1) -> bytes:
        start, self._at = self._at, len(self.held.data) if size < 0 else self._at + size
        return bytes(self.held.data[start : self._at])

    def seek(self, place: int) -> None:
        self._at = place

    def write(self, data: Any) -> None:
        self.held.data += data
        self.held.touch()

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)

    def flush(self) -> None:
        return None

    def truncate(self, size: int) -> None:
        data = self.held.data
        data[size:] = bytes(max(0, size - len(data)))


class _Os(ModuleType):
    """``os``, and for files of a simulated disk what it does to them."""

    def __init__(self) -> None:
        super().__init__("os")
        own = vars(_Os)
        self.__dict__.update({name: value for name, value in vars(os).items() if name not in own})

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> Any:
        if not isinstance(path, SimulatedPath):
            return os.open(path, flags, mode)
        if not path.name:
            return _Handle(None, path.folder)
        if flags & os.O_EXCL and path.is_file():
            raise FileExistsError(17, "File exists", str(path))
        return _Handle(path.new() if flags & os.O_CREAT else path.file())

    def close(self, handle: Any) -> None:
        if not isinstance(handle, _Handle):
            os.close(handle)

    def preadv(self, handle: Any, buffers: Any, offset: int) -> int:
        if not isinstance(handle, _Handle):
            return os.preadv(handle, buffers, offset)
        (into,) = buffers
        part = handle.held.data[offset : offset + len(into)]
        into[: len(part)] = part
        return len(part)

    def pwrite(self, handle: Any, data: Any, offset: int) -> int:
        if not isinstance(handle, _Handle):
            return os.pwrite(handle, data, offset)
        handle.held.data[offset : offset + len(data)] = data
        handle.held.touch()
        return len(data)

    def fsync(self, handle: Any) -> None:
        if not isinstance(handle, _Handle):
            os.fsync(handle)
        elif handle.folder is not None:
            handle.folder.synced = dict(handle.folder.entries)
        else:
            handle.held.synced = bytes(handle.held.data)


class _Shutil(ModuleType):
    @staticmethod
    def disk_usage(path: Any) -> Any:
        return _Usage(ROOM, 0, ROOM) if isinstance(path, SimulatedPath) else _real_shutil.disk_usage(path)


class _Mmap(ModuleType):
    ACCESS_READ = 1

    @staticmethod
    def mmap(handle: Any, length: int, access: int) -> Any:
        return (
            bytes(handle.held.data) if isinstance(handle, _Handle) else _real_mmap.mmap(handle, length, access=access)
        )


def _open(handle: Any, *args: Any, **options: Any) -> Any:
    return handle if isinstance(handle, _Handle) else open(handle, *args, **options)  # noqa: PTH123


_real_shutil: Any = part_file.__dict__["shutil"]
_real_mmap: Any = artifacts.__dict__["mmap"]
_INSTEAD = {"os": _Os(), "shutil": _Shutil("shutil"), "mmap": _Mmap("mmap"), "open": _open}


@contextmanager
def on_simulated_disks() -> Iterator[None]:
    """Let the stores work on simulated paths as well as on real ones."""
    before = [dict(module.__dict__) for module in _USERS]
    for module in _USERS:
        module.__dict__.update(_INSTEAD)
    try:
        yield
    finally:
        for module, names in zip(_USERS, before, strict=True):
            for name in _INSTEAD:
                if name in names:
                    module.__dict__[name] = names[name]
                else:
                    del module.__dict__[name]


# ---------------------------------------------------------------------- what a node's lives are made on


@dataclass
class Home:
    """Where a node keeps what it must not forget; with a simulated ``disk`` its database is in memory as well."""

    directory: Path
    artifacts: Path
    pending: Path
    database: sqlite3.Connection | None = None
    disk: Disk | None = None

    @classmethod
    def real(cls, directory: Path) -> Home:
        """On a real disk."""
        return cls(directory, directory / "artifacts", directory / "pending")

    @classmethod
    def simulated(cls, directory: Path, wall: Callable[[], float], *, database: bool) -> Home:
        """In memory; ``directory`` is a name."""
        disk = Disk(wall)
        artifacts, pending = (
            cast("Path", SimulatedPath(disk, f"{directory}/{name}")) for name in ("artifacts", "pending")
        )
        return cls(directory, artifacts, pending, _empty_database() if database else None, disk)

    def open(self) -> sqlite3.Connection:
        """The database, for who reads it afterwards."""
        return self.database or open_database(self.directory)


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        db = open_database(Path(directory), create=True)
        db.execute("PRAGMA journal_mode = DELETE")
        made = db.serialize()
        db.close()
    return made


def _empty_database() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(_template())
    return db
