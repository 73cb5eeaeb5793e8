"""Reading FlatBuffers (https://flatbuffers.dev/internals) without a package, every offset held against the file's end.

A table is a row of fields, each by its number in the schema; one that is not there has its default, which is 0 or
empty here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NoReturn, TypeVar

MAX_ITEMS = 1 << 24  # of one vector of numbers; a damaged length must not become an allocation
# What may be looked at in one file: a thousand offsets may lead to one vector, and each would read it again. Files of
# ours have at most one table in 24 bytes, and a walk through one reads fewer bytes than it has (measured: 0.6 to 0.94).
MAX_TABLES = 1 << 20
MAX_READS, FREE_BYTES = 16, 1 << 20  # so often the file's own bytes, and some for the smallest ones

FRAME = 4  # bytes at a table's beginning, which say where its list of fields lies

_T = TypeVar("_T")


def root_of(data: bytes) -> Table:
    """The table that a file begins with. Raises ValueError if the file is damaged."""
    if len(data) < 8:
        _damaged(f"{len(data)} bytes are no file of this kind")
    return Table(data, struct.unpack_from("<I", data)[0])


def item_of(items: Sequence[_T], place: int) -> _T:
    """The item that a file names by its place. Raises ValueError if there is none."""
    if not 0 <= place < len(items):
        _damaged(f"something names item {place} of {len(items)}")
    return items[place]


class Budget:
    """What may still be looked at in a file of ``size`` bytes. Methods raise ValueError when it is used up."""

    def __init__(self, size: int) -> None:
        self._tables, self._bytes = MAX_TABLES, MAX_READS * size + FREE_BYTES

    def table(self, size: int) -> None:
        """One more table, whose frame has ``size`` bytes."""
        self._tables -= 1
        self.read(size)

    def read(self, size: int) -> None:
        """``size`` more bytes."""
        self._bytes -= size
        if self._tables < 0 or self._bytes < 0:
            _damaged("its offsets lead to the same places again and again, or it has far too many tables")


class Table:
    """A table at byte ``at``. Every method raises ValueError if what it reads does not lie within the file."""

    __slots__ = ("_at", "_budget", "_data", "_offsets", "_size")  # a file may hold a million of them

    def __init__(self, data: bytes, at: int, budget: Budget | None = None) -> None:
        self._data, self._at, self._budget = data, at, budget or Budget(len(data))
        fields = at - int(self._read("i", at))
        length, self._size = int(self._read("H", fields)), int(self._read("H", fields + 2))
        if length < 4 or length % 2:
            _damaged(f"the table at byte {at} has a list of fields of {length} bytes")
        self._read("H", fields + length - 2)
        if at + self._size > len(data):
            _damaged(f"the table at byte {at} does not end within the file")
        self._budget.table(length)
        self._offsets = struct.unpack_from(f"<{length // 2 - 2}H", data, fields + 4)

    def number(self, field: int, form: str) -> int:
        """An integer of the struct format ``form``."""
        place = self._place(field)
        return int(self._read(form, place)) if place else 0

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return bool(self._place(field))

    def text(self, field: int) -> str:
        """A string in UTF-8. It must be closed by a zero, as native code reads it."""
        start, count = self._vector(field, 1)
        if start and self._data[start + count : start + count + 1] != b"\0":
            _damaged(f"the text at byte {start} is not closed by a zero")
        return self._data[start : start + count].decode("utf-8")

    def raw(self, field: int) -> bytes:
        """A vector of bytes."""
        start, count = self._vector(field, 1)
        return self._data[start : start + count]

    def length(self, field: int, size: int = 1) -> int:
        """How many items of ``size`` bytes a vector has."""
        return self._vector(field, size)[1]

    def numbers(self, field: int, form: str) -> list[int]:
        """A vector of integers of the struct format ``form``."""
        start, count = self._vector(field, struct.calcsize(f"<{form}"))
        if count > MAX_ITEMS:
            _damaged(f"{count} numbers at byte {start}")
        return list(struct.unpack_from(f"<{count}{form}", self._data, start))

    def table(self, field: int) -> Table | None:
        """A table inside this one."""
        place = self._place(field)
        return Table(self._data, self._target(place), self._budget) if place else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        return [Table(self._data, self._target(start + 4 * item), self._budget) for item in range(count)]

    def _read(self, form: str, at: int) -> int:
        try:
            if at < 0:
                _damaged(f"a place before the file's beginning ({at})")
            return int(struct.unpack_from(f"<{form}", self._data, at)[0])
        except struct.error:
            _damaged(f"byte {at} lies behind the file's end ({len(self._data)} bytes)")

    def _place(self, field: int) -> int:
        """Where a field lies; 0 if it is not there."""
        offset = self._offsets[field] if field < len(self._offsets) else 0
        if offset and not FRAME <= offset < self._size:
            _damaged(f"field {field} of the table at byte {self._at} lies outside of it")
        return self._at + offset if offset else 0

    def _target(self, place: int) -> int:
        return place + self._read("I", place)

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = self._target(place)
        count = self._read("I", start)
        if start + 4 + count * size > len(self._data):
            _damaged(f"{count} items of {size} bytes at byte {start} do not end within the file")
        self._budget.read(count * size)
        return start + 4, count


def _damaged(text: str) -> NoReturn:
    raise ValueError(text)
