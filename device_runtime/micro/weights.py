# mypy: ignore-errors
"""A file of tensors in the flash, read as far as it is needed."""

import gc
import json
import struct
from array import array

from . import wire
from .wire import Refused


class Weights:
    """A weight file in the flash: tensors by name, kept in ``arena`` (float32) as far as it reaches, else read anew."""

    def __init__(self, path, arena):
        self._path, self._free, self._kept = path, memoryview(arena), {}
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

    def rest(self):
        """What is left of the arena; from now on it is the caller's."""
        rest, self._free = self._free, self._free[:0]
        return rest

    def tensor(self, name):
        """The float32 numbers of a tensor. Raises Refused where there is none."""
        if name in self._kept:
            return self._kept[name]
        place, count = self._place(name)
        if count <= len(self._free):
            found, self._free = self._free[:count], self._free[count:]
            self._kept[name] = found
        else:
            found = array("f", range(count))
        return self._read(name, place, found)

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
            if file.readinto(buffer) != 4 * len(buffer):
                raise Refused("the weights end before the tensor %s" % name)
        return buffer
