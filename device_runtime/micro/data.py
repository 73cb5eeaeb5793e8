# mypy: ignore-errors
"""A board's samples: the data folder of the kit, read row by row from the flash.

``x.npy`` float32 [N, *input_shape], ``split.npy`` uint8 [N] (0 = train, 1 = test), ``TASK.npy`` for each task. What is
not labelled holds ``ignore_index`` or a NaN. A board with a sensor gives an object of its own with these four methods.
"""

import struct
from array import array

from .wire import Refused

MAX_HEADER = 1024  # bytes: what NumPy writes has 118
_CODES = {"f4": "f", "f8": "d", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B"}


class Rows:
    """A .npy file, row by row."""

    def __init__(self, path):
        try:
            self._file = open(path, "rb")
            magic = self._file.read(8)
            if magic[:6] != b"\x93NUMPY":
                raise ValueError
            wide = magic[6] > 1
            size = struct.unpack("<I" if wide else "<H", self._file.read(4 if wide else 2))[0]
            header = str(self._file.read(min(size, MAX_HEADER)), "ascii")
            kind = header.split("'descr': '")[1].split("'")[0]
            shape = header.split("'shape': (")[1].split(")")[0]
            sizes = [int(each) for each in shape.split(",") if each.strip()]
            self.count = sizes[0]
        except (OSError, IndexError, ValueError):
            message = "%s cannot be read" % path
            raise Refused(message)
        if "True" in header:
            message = "%s is in Fortran order, its rows are not in one piece: save numpy.ascontiguousarray of it" % path
            raise Refused(message)
        if kind[0] not in "<|" or kind[1:] not in _CODES:
            message = "%s: rows of little-endian numbers are read here, not %s" % (path, kind)
            raise Refused(message)
        self.code, self.width = _CODES[kind[1:]], 1
        for each in sizes[1:]:
            self.width *= each
        self._start, self._bytes = 8 + (4 if wide else 2) + size, int(kind[2:]) * self.width

    def row(self, index, into=None):
        """The numbers of row ``index``, as an array; ``into``: one to read them into. Raises Refused."""
        self._file.seek(self._start + index * self._bytes)
        if into is None:
            return array(self.code, self._file.read(self._bytes))
        if self._file.readinto(into) != self._bytes:
            raise Refused("the samples end before their number %d" % index)
        return into


class Folder:
    """A data folder. ``tasks``: by name ``kind`` (class, value or direction) and, for classes, ``classes``."""

    def __init__(self, folder, tasks, input_shape):
        self.input_shape = input_shape
        self._x = Rows(folder + "/x.npy")
        split = Rows(folder + "/split.npy")
        self._split = bytes([split.row(index)[0] for index in range(split.count)])
        self._tasks = {task: (known, Rows(folder + "/" + task + ".npy")) for task, known in tasks.items()}
        self._counts = {}
        wanted = 1
        for size in input_shape:
            wanted *= size
        self._sample = array("f", range(wanted))  # taken once: later there may be no such piece
        if self._x.width != wanted or self._x.code != "f" or self._x.count != split.count:
            message = "x.npy does not hold a float32 sample of shape %s for each of split.npy" % input_shape
            raise Refused(message)
        for task, (known, rows) in self._tasks.items():
            if rows.count != split.count or (known["kind"] == "class" and rows.code in "fd"):
                message = "%s.npy does not hold %d labels of kind %s" % (task, split.count, known["kind"])
                raise Refused(message)

    def indices(self, split):
        """The samples of a split: 0 = train, 1 = test; one by one, as a list would take 4 KB in one piece."""
        for index in range(len(self._split)):
            if self._split[index] == split:
                yield index

    def count(self, task, split):
        """How many samples of a split carry a label of ``task``."""
        if task not in self._tasks:
            return 0
        if (task, split) not in self._counts:
            self._counts[task, split] = 0
            for index in self.indices(split):
                self._counts[task, split] += self.target(task, index) is not None
        return self._counts[task, split]

    def x(self, index):
        """The input of a sample, flat; good until the next."""
        return self._x.row(index, self._sample)

    def target(self, task, index):
        """The class, or the numbers, of a sample; None where it has no label."""
        if task not in self._tasks:
            return None
        known, rows = self._tasks[task]
        row = rows.row(index)
        if known["kind"] == "class":
            return row[0] if 0 <= row[0] < known["classes"] else None
        return row if all([value == value for value in row]) else None
