# mypy: ignore-errors
"""FlatBuffers read where they lie: in the flash, of which a page at a time is in memory."""

import struct

PAGE = 256  # bytes: what belongs together lies together, and a page of flash is no smaller
MAX_ITEMS = 4096  # of a vector of numbers or tables: the largest model of this kit has 300 tensors


class Table:
    """A table of the file: fields by number. Raises ValueError where the file is damaged."""

    def __init__(self, flash, place):
        self._flash, self._place = flash, place
        self._fields = place - flash.number("<i", place)

    def place(self, number):
        """Where field ``number`` lies; 0 if it is not there."""
        size = self._flash.number("<H", self._fields)
        offset = self._flash.number("<H", self._fields + 4 + 2 * number) if 4 + 2 * number < size else 0
        return self._place + offset if offset else 0

    def number(self, number, code, default=0):
        """A number that lies in the table."""
        place = self.place(number)
        return self._flash.number(code, place) if place else default

    def table(self, number):
        """A table it points to; None if there is none."""
        place = self.place(number)
        return Table(self._flash, place + self._flash.number("<I", place)) if place else None

    def vector(self, number):
        """(place of the first element, how many)."""
        place = self.place(number)
        if not place:
            return 0, 0
        place += self._flash.number("<I", place)
        return place + 4, self._flash.number("<I", place)

    def tables(self, number):
        """The tables of a vector, one after the other."""
        place, count = self.vector(number)
        for each in range(place, place + 4 * checked(count), 4):
            yield Table(self._flash, each + self._flash.number("<I", each))

    def numbers(self, number, code, size):
        """The numbers of a vector, each of ``size`` bytes."""
        place, count = self.vector(number)
        return [self._flash.number(code, place + size * index) for index in range(checked(count))]

    def text(self, number):
        """A string."""
        place, count = self.vector(number)
        data = bytearray(checked(count))
        self._flash.fill(place, data)
        return str(data, "utf-8")


def checked(count):
    """``count`` if a model may have so many of something."""
    if count > MAX_ITEMS:
        raise ValueError
    return count


class Flash:
    """The open file, read in pages."""

    def __init__(self, file):
        self._file = file
        self._page, self._start, self._held = bytearray(PAGE), 0, 0

    def number(self, code, place):
        """One number; ``place`` in bytes."""
        start = place - self._start
        if not (start >= 0 and start + struct.calcsize(code) <= self._held):
            if place < 0:
                raise ValueError
            self._file.seek(place)
            self._start, self._held, start = place, self._file.readinto(self._page), 0
            if struct.calcsize(code) > self._held:
                raise ValueError
        return struct.unpack_from(code, self._page, start)[0]

    def fill(self, place, buffer, size=None):
        """Read ``buffer`` full; ``size``: its bytes, if its numbers have more than one."""
        size = len(buffer) if size is None else size
        self._file.seek(place)
        if self._file.readinto(buffer) != size:
            raise ValueError
