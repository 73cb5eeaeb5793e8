# mypy: ignore-errors
"""A file of tensors in the flash, read as far as it is needed."""

import gc
import json
import struct
from array import array

from . import wire
from .wire import Refused


def moved(value, texts):
    """``value`` of JSON made anew where there is room now, and itself emptied; ``texts`` holds each text once.

    What is made while a text is read lies far apart: of 45 KB that were free no piece had 3 KB (measured). Emptied,
    because a pointer to it that was left on the stack must not keep it.
    """
    if isinstance(value, dict):
        made = {moved(key, texts): moved(each, texts) for key, each in value.items()}
    elif isinstance(value, list):
        made = [moved(each, texts) for each in value]
    elif isinstance(value, str):
        if value not in texts:
            texts.append(str(value.encode(), "utf-8"))
        return texts[texts.index(value)]
    else:
        return value
    value.clear()
    return made


class Weights:
    """A weight file in the flash: tensors by name, kept in ``arena`` (float32) as far as it reaches, else read anew."""

    def __init__(self, path, arena):
        self._path, self._free, self._kept, self._row = path, memoryview(arena), {}, None
        with open(path, "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            if size > wire.MAX_CONTROL:
                raise Refused("the weights name more tensors than a board reads")
            told = json.loads(str(file.read(size), "utf-8"))
        told.pop("__metadata__", None)
        start = 8 + size
        self._places = {}
        for name, each in told.items():
            first, last = each["data_offsets"]
            self._places[name] = (start + first, (last - first) // 4)
            each.clear()
        told.clear()  # see Network: a pointer that is left on the stack must not keep it
        gc.collect()
        self._places = moved(self._places, [])
        gc.collect()

    def take(self, count):
        """``count`` numbers of the arena, which are the caller's from now on; None where there are not so many left."""
        if count > len(self._free):
            return None
        found, self._free = self._free[:count], self._free[count:]
        return found

    def rest(self):
        """What is left of the arena; from now on it is the caller's."""
        rest, self._free = self._free, self._free[:0]
        return rest

    def tensor(self, name):
        """The float32 numbers of a tensor. Raises Refused where there is none."""
        if name in self._kept:
            return self._kept[name]
        place, count = self._place(name)
        found = self.take(count)
        if found is None:
            found = array("f", range(count))
        else:
            self._kept[name] = found
        return self._read(name, place, found)

    def fill(self, name, buffer):
        """Read a tensor into ``buffer``."""
        self._read(name, self._place(name)[0], buffer)

    def reserve(self, width):
        """Take the memory for rows of so many numbers, while there is some in one piece."""
        if self._row is None or len(self._row) < width:
            self._row = self.take(width) or array("f", range(width))

    def rows(self, name, width):
        """A tensor as rows of ``width`` numbers, one after the other; each is good until the next is asked for.

        Where the arena has no room for it, never more than a row is in memory: a board's memory is in pieces.
        """
        place, count = self._place(name)
        if name in self._kept or count <= len(self._free):
            found = self.tensor(name)
            for start in range(0, count, width):
                yield found[start : start + width]
            return
        self.reserve(width)
        row = memoryview(self._row)[:width]
        with open(self._path, "rb") as file:
            file.seek(place)
            for start in range(0, count, width):
                yield self._filled(name, file, row[: min(width, count - start)])

    def size(self, name):
        """How many numbers a tensor has."""
        return self._place(name)[1]

    def part(self, name, first, count):
        """``count`` numbers of a tensor from number ``first``."""
        return self._read(name, self._place(name)[0] + 4 * first, array("f", range(count)))

    def _place(self, name):
        if name not in self._places:
            message = "the weights lack the tensor %s" % name
            raise Refused(message)
        return self._places[name]

    def _read(self, name, place, buffer):
        with open(self._path, "rb") as file:
            file.seek(place)
            return self._filled(name, file, buffer)

    def _filled(self, name, file, buffer):
        if file.readinto(buffer) != 4 * len(buffer):
            raise Refused("the weights end before the tensor %s" % name)
        return buffer
