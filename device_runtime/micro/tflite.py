# mypy: ignore-errors
"""A .tflite file read where it lies: its tensors, operators and tasks."""

from . import fixed
from .flatbuffer import Flash, Table, checked
from .wire import Refused

MAX_TENSOR = 1 << 20  # numbers of a tensor: a board has less memory, and its flash is hardly larger
INT8, FLOAT32, INT32, INT64 = 9, 0, 2, 4
CODES = {INT32: ("<i", 4), INT64: ("<q", 8)}


class Tensor:
    """One tensor: ``shape``, ``kind``, ``scales`` as pairs of ``fixed``, ``zero``, and where its constant lies.

    Only the first of many scales is held; ``scale(index)`` reads the others.
    """

    def __init__(self, flash, table, buffers):
        self._flash, self.kind = flash, table.number(1, "<b")
        self.shape = tuple(table.numbers(0, "<i", 4))
        self.size = 1
        for each in self.shape:
            if each < 0:
                raise ValueError
            self.size *= each
        if self.size > MAX_TENSOR:
            raise ValueError
        told = table.table(4)
        self._scales, self.channels = told.vector(2) if told else (0, 0)
        zeros = told.vector(3) if told else (0, 0)
        self.zero = flash.number("<q", zeros[0]) if zeros[1] else 0
        if not -128 <= self.zero <= 127:
            raise ValueError
        buffer = table.number(2, "<I")
        place, count = buffers
        if buffer >= count:
            raise ValueError
        place += 4 * buffer
        self.constant, self.bytes = Table(flash, place + flash.number("<I", place)).vector(0)

    def scale(self, index=0):
        """Scale number ``index``, or the only one."""
        return fixed.real(self._flash.number("<I", self._scales + 4 * (index if self.channels > 1 else 0)))

    def numbers(self):
        """A constant of integers, as a list."""
        code, size = CODES[self.kind]
        if self.bytes != size * self.size:
            raise ValueError
        return [self._flash.number(code, self.constant + size * index) for index in range(checked(self.size))]


class Operator:
    """One operator: the numbers of its tensors, and its options as a table or None."""

    def __init__(self, graph, table):
        self._graph = graph
        self.code = graph.codes[table.number(0, "<I")]
        self.taken, self.given = table.numbers(1, "<i", 4), table.numbers(2, "<i", 4)
        self.options = table.table(4)

    def tensor(self, index):
        """The tensor of input ``index``; None if that is left out."""
        return self._graph.tensor(self.taken[index]) if index < len(self.taken) and self.taken[index] >= 0 else None

    def target(self):
        """The tensor that it computes."""
        return self._graph.tensor(self.given[0])

    def weights(self, tensor):
        """Where the int8 constant of a tensor lies in the file."""
        if tensor.kind != INT8 or tensor.bytes != tensor.size:
            raise ValueError
        return tensor.constant

    def fill(self, tensor, buffer):
        """Read a constant of int32 into an array of them."""
        if tensor.kind != INT32 or tensor.bytes != 4 * len(buffer):
            raise ValueError
        self._graph.flash.fill(tensor.constant, buffer, tensor.bytes)

    def option(self, number, code="<b", default=0):
        """One of its options."""
        return self.options.number(number, code, default) if self.options else default


class Graph:
    """The first graph of a model in an open file. Raises Refused or ValueError."""

    def __init__(self, file):
        self.flash = Flash(file)
        start = bytearray(8)
        self.flash.fill(0, start)
        if start[4:] != b"TFL3":
            raise Refused("the model is no .tflite file")
        model = Table(self.flash, self.flash.number("<I", 0))
        self.codes = [max(each.number(0, "<b"), each.number(3, "<i")) for each in model.tables(1)]
        self._graph = next(model.tables(2))
        self._buffers = model.vector(4)
        self._tensors = self._graph.vector(0)
        self.inputs, self.outputs = self._graph.numbers(1, "<i", 4), self._graph.numbers(2, "<i", 4)
        self._model, self.count = model, checked(self._tensors[1])

    def tensor(self, index):
        """One tensor, read anew."""
        place, count = self._tensors
        if not 0 <= index < count:
            raise ValueError
        place += 4 * index
        return Tensor(self.flash, Table(self.flash, place + self.flash.number("<I", place)), self._buffers)

    def operators(self):
        """Its operators, in order."""
        for table in self._graph.tables(3):
            yield Operator(self, table)

    def named(self, tasks):
        """The output of each task: by its name in the signature, else by its own, else in order. Raises Refused."""
        if len(tasks) != len(self.outputs):
            message = "the model has %d outputs for %d tasks" % (len(self.outputs), len(tasks))
            raise Refused(message)
        names = {self._name(each): each for each in self.outputs}
        for signature in self._model.tables(7):
            for entry in signature.tables(1):
                names[entry.text(0)] = entry.number(1, "<I")
        return {task: names.get(task, each) for task, each in zip(tasks, self.outputs)}

    def _name(self, index):
        place = self._tensors[0] + 4 * index
        return Table(self.flash, place + self.flash.number("<I", place)).text(3)
