# mypy: ignore-errors
"""The default of the hook ``infer``: dense int8 networks out of a .tflite file, computed in integers.

A firmware with tflite-micro, emlearn or kernels of its own names a module of the same two functions in its
configuration; it is then what runs convolutions. Here: FULLY_CONNECTED (with or without ReLU), RELU, RESHAPE, QUANTIZE
and DEQUANTIZE, one sample a call, by the arithmetic of the LiteRT 8-bit quantization specification but for its rounding
of the multiplier, which may move an output by one step.
"""

import struct
from array import array

from .flash import size_of
from .wire import Refused

MAX_MODEL = 64 * 1024  # bytes: this interpreter holds the model in memory
FULLY_CONNECTED, RELU, RESHAPE, QUANTIZE, DEQUANTIZE = 9, 19, 22, 114, 6
INT8, FLOAT32, INT32 = 9, 0, 2


def load(path, tasks):
    """The model at ``path``, whose outputs are called ``tasks`` or are theirs in that order. Raises Refused."""
    try:
        if size_of(path) > MAX_MODEL:
            raise ValueError
        with open(path, "rb") as file:
            data = file.read()
        if data[4:8] != b"TFL3":
            raise ValueError
        return Model(data, tasks)
    except (ValueError, IndexError, KeyError, OSError, MemoryError):
        raise Refused("the model is no .tflite file that this board can run")


class Table:
    """A FlatBuffers table: fields by number."""

    def __init__(self, data, place):
        self.data, self.place = data, place
        self._fields = place - _number("<i", data, place)

    def field(self, number):
        """Where field ``number`` lies; 0 if it is not there."""
        size = _number("<H", self.data, self._fields)
        offset = _number("<H", self.data, self._fields + 4 + 2 * number) if 4 + 2 * number < size else 0
        return self.place + offset if offset else 0

    def number(self, number, code, default=0):
        """A number that lies in the table."""
        place = self.field(number)
        return _number(code, self.data, place) if place else default

    def table(self, number):
        """A table it points to; None if there is none."""
        place = self.field(number)
        return Table(self.data, place + _number("<I", self.data, place)) if place else None

    def vector(self, number):
        """(place of the first element, how many)."""
        place = self.field(number)
        if not place:
            return 0, 0
        place += _number("<I", self.data, place)
        return place + 4, _number("<I", self.data, place)

    def tables(self, number):
        """The tables of a vector."""
        place, count = self.vector(number)
        places = range(place, place + 4 * count, 4)
        return [Table(self.data, each + _number("<I", self.data, each)) for each in places]

    def numbers(self, number, code, size):
        """The numbers of a vector, each of ``size`` bytes."""
        place, count = self.vector(number)
        return [_number(code, self.data, place + size * index) for index in range(count)]


def _number(code, data, place):
    if place < 0:
        raise ValueError
    return struct.unpack_from(code, data, place)[0]


class Tensor:
    """One tensor: its type, scale and zero point, and its constant bytes if it has any."""

    def __init__(self, table, buffers):
        self.kind = table.number(1, "<b")
        place, count = table.vector(3)
        self.name = str(table.data[place : place + count], "utf-8")
        self.shape = table.numbers(0, "<i", 4)
        quantization = table.table(4)
        scales = quantization.numbers(2, "<f", 4) if quantization else []
        zeros = quantization.numbers(3, "<q", 8) if quantization else []
        self.scales, self.zero = scales or [1.0], zeros[0] if zeros else 0
        place, count = buffers[table.number(2, "<I")].vector(0)
        self.constant = array("i" if self.kind == INT32 else "b", table.data[place : place + count]) if count else None


class Model:
    """A model that runs."""

    def __init__(self, data, tasks):
        model = Table(data, _number("<I", data, 0))
        codes = [max(each.number(0, "<b"), each.number(3, "<i")) for each in model.tables(1)]
        graph = model.tables(2)[0]
        buffers = model.tables(4)
        self._tensors = [Tensor(each, buffers) for each in graph.tables(0)]
        self._input, self._outputs = graph.numbers(1, "<i", 4)[0], graph.numbers(2, "<i", 4)
        self._steps = []
        for each in graph.tables(3):
            code = codes[each.number(0, "<I")]
            if code not in (FULLY_CONNECTED, RELU, RESHAPE, QUANTIZE, DEQUANTIZE):
                message = "the model needs operator %d, which int8.py has not: name a firmware's module in infer" % code
                raise Refused(message)
            options = each.table(4) if code == FULLY_CONNECTED else None
            relu = bool(options and options.number(0, "<b"))
            self._steps.append((code, each.numbers(1, "<i", 4), each.numbers(2, "<i", 4)[0], relu))
        self._tasks = self._named(tasks)

    def _named(self, tasks):
        """The tensor of each task: by its name, else by the order of the outputs."""
        if len(tasks) != len(self._outputs):
            message = "the model has %d outputs for %d tasks" % (len(self._outputs), len(tasks))
            raise Refused(message)
        names = [self._tensors[each].name for each in self._outputs]
        found = [names.index(task) if task in names else place for place, task in enumerate(tasks)]
        return {task: self._outputs[place] for task, place in zip(tasks, found)}

    def run(self, x):
        """The outputs of one sample ``x``, flat floats, by task as lists of floats."""
        values = {self._input: self._stored(x, self._tensors[self._input])}
        for code, taken, given, relu in self._steps:
            source, target = self._tensors[taken[0]], self._tensors[given]
            value = values[taken[0]]
            if code == FULLY_CONNECTED:
                value = self._dense(value, taken, target, relu)
            elif code == RELU:
                value = array("b", [max(each, source.zero) for each in value])
            elif code in (QUANTIZE, DEQUANTIZE):
                value = self._stored(_real(value, source), target)
            values[given] = value
        return {task: list(_real(values[place], self._tensors[place])) for task, place in self._tasks.items()}

    def _stored(self, x, tensor):
        """Real numbers as the tensor stores them."""
        if tensor.kind == FLOAT32:
            return x
        scale = tensor.scales[0]
        return array("b", [_clipped(_rounded(value / scale) + tensor.zero) for value in x])

    def _dense(self, x, taken, target, relu):
        source, weights = self._tensors[taken[0]], self._tensors[taken[1]]
        bias = self._tensors[taken[2]].constant if len(taken) > 2 and taken[2] >= 0 else None
        kernel, width, zero = weights.constant, len(x), source.zero
        low = max(-128, target.zero) if relu else -128
        out = array("b", bytes(len(kernel) // width))
        place = 0
        for row in range(len(out)):
            total = bias[row] if bias else 0
            for value in x:
                total += (value - zero) * kernel[place]
                place += 1
            scale = weights.scales[row if len(weights.scales) > 1 else 0] * source.scales[0] / target.scales[0]
            out[row] = max(low, _clipped(_rounded(total * scale) + target.zero))
        return out


def _real(values, tensor):
    if tensor.kind == FLOAT32:
        return values
    return [(value - tensor.zero) * tensor.scales[0] for value in values]


def _rounded(value):
    return int(value + 0.5) if value >= 0 else -int(0.5 - value)


def _clipped(value):
    return max(-128, min(127, value))
