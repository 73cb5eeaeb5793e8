"""What a .tflite from the network may hold, read without the ``flatbuffers`` package.

A model is a FlatBuffers table (https://flatbuffers.dev/internals; schema: tensorflow/lite/schema/schema.fbs). The
interpreters are native code; ``tflite-runtime`` 2.14 ends the process on about one damaged file in eight. So every
offset that is followed lies inside the file, every index names something that is there, what an operator reads has been
computed before it, and constants have the size of their tensor.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.flatbuffer import Budget

IDENTIFIER = b"TFL3"
VERSION = 3
MAX_TENSOR_BYTES = 1 << 30  # more than any device has to spare; a damaged size must not become an allocation
# Element sizes by the schema's TensorType; what is not here (text, resources) no model of ours has.
ITEM_SIZES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8, 15: 4, 16: 2}
CONTROL_FLOW = {118: "IF", 119: "WHILE", 129: "CALL_ONCE"}  # their bodies are graphs of their own

# Field numbers of schema.fbs.
MODEL_VERSION, MODEL_CODES, MODEL_GRAPHS, MODEL_BUFFERS, MODEL_SIGNATURES = 0, 1, 2, 4, 7
CODE_OLD, CODE_CUSTOM, CODE_NEW = 0, 1, 3
GRAPH_TENSORS, GRAPH_INPUTS, GRAPH_OUTPUTS, GRAPH_OPERATORS = 0, 1, 2, 3
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME, TENSOR_QUANTIZATION, TENSOR_SPARSITY = 0, 1, 2, 3, 4, 6
QUANTIZATION_SCALE, QUANTIZATION_ZERO, QUANTIZATION_DETAILS, QUANTIZATION_AXIS = 2, 3, 5, 6
BUFFER_DATA, BUFFER_OFFSET, BUFFER_SIZE = 0, 1, 2
OPERATOR_CODE, OPERATOR_INPUTS, OPERATOR_OUTPUTS, OPERATOR_OPTIONS, OPERATOR_MORE_OPTIONS = 0, 1, 2, 4, 12
SIGNATURE_INPUTS, SIGNATURE_OUTPUTS, SIGNATURE_KEY, SIGNATURE_GRAPH = 0, 1, 2, 4
MAP_NAME, MAP_TENSOR = 0, 1


@dataclass(frozen=True)
class Signature:
    """One method of a model: the names of its inputs and outputs."""

    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True)
class Contents:
    """What a checked model holds."""

    signatures: dict[str, Signature]
    operators: dict[int, int]  # how often each builtin operator is used, by its number in the schema


def read_model(data: bytes, where: str) -> Contents:
    """Check the model and tell what it holds; ``where`` begins the message. Raises ProgramError."""
    if not data:
        _refuse(where, "holds no LiteRT model")
    if data[4:8] != IDENTIFIER:
        _refuse(where, f"is no LiteRT model: expected {IDENTIFIER!r} at byte 4, got {bytes(data[4:8])!r}")
    try:
        return _Reader(bytes(data)).contents()
    except (ValueError, struct.error) as error:
        _refuse(where, f"holds a damaged LiteRT model: {error}")


class _Table:
    """A table in the file; every read is checked against its end. Raises ValueError."""

    __slots__ = ("_at", "_budget", "_data", "_offsets", "_size")  # a file may hold a million of them

    def __init__(self, data: bytes, at: int, budget: Budget) -> None:
        self._data, self._at, self._budget = data, at, budget
        if not 0 <= at <= len(data) - 4:
            _damaged(f"a table at byte {at} of {len(data)}")
        fields = at - struct.unpack_from("<i", data, at)[0]
        if not 0 <= fields <= len(data) - 4:
            _damaged(f"the table at byte {at} has its fields at byte {fields}")
        length, self._size = struct.unpack_from("<HH", data, fields)
        if length < 4 or length % 2 or fields + length > len(data) or at + self._size > len(data):
            _damaged(f"the table at byte {at} does not end within the file")
        budget.table(length)
        self._offsets = struct.unpack_from(f"<{(length - 4) // 2}H", data, fields + 4)

    def _place(self, field: int) -> int:
        """Where a field lies; 0 if it is not there."""
        offset = self._offsets[field] if field < len(self._offsets) else 0
        if offset and not 4 <= offset < self._size:
            _damaged(f"field {field} of the table at byte {self._at} lies outside of it")
        return self._at + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """A scalar; 0 if it is not there."""
        place = self._place(field)
        return int(struct.unpack_from("<" + form, self._data, place)[0]) if place else 0

    def _target(self, place: int) -> int:
        target = place + int(struct.unpack_from("<I", self._data, place)[0])
        if target > len(self._data) - 4:
            _damaged(f"byte {place} points to byte {target} of {len(self._data)}")
        return target

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return bool(self._place(field))

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Where a vector's items begin, and how many there are."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = self._target(place)
        count = int(struct.unpack_from("<I", self._data, start)[0])
        if start + 4 + count * size > len(self._data):
            _damaged(f"{count} items of {size} bytes at byte {start} do not end within the file")
        self._budget.read(count * size)
        return start + 4, count

    def length(self, field: int, size: int = 1) -> int:
        """How many items a vector has."""
        return self._vector(field, size)[1]

    def numbers(self, field: int, form: str) -> tuple[int, ...]:
        """A vector of scalars."""
        start, count = self._vector(field, struct.calcsize(form))
        return struct.unpack_from(f"<{count}{form}", self._data, start) if count else ()

    def text(self, field: int) -> str:
        """A string; empty if it is not there. It must be closed by a zero, as native code reads it."""
        start, count = self._vector(field, 1)
        if start and self._data[start + count : start + count + 1] != b"\0":
            _damaged(f"the text at byte {start} is not closed")
        return self._data[start : start + count].decode("utf-8")

    def table(self, field: int) -> _Table | None:
        """A table inside this one, checked as far as its frame."""
        place = self._place(field)
        return _Table(self._data, self._target(place), self._budget) if place else None

    def tables(self, field: int) -> list[_Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        return [_Table(self._data, self._target(start + 4 * i), self._budget) for i in range(count)]


class _Reader:
    """The walk through one model."""

    def __init__(self, data: bytes) -> None:
        root = _Table(data, struct.unpack_from("<I", data, 0)[0], Budget(len(data)))
        if root.number(MODEL_VERSION, "I") != VERSION:
            _damaged(f"schema version {root.number(MODEL_VERSION, 'I')}, expected {VERSION}")
        self._codes = [_builtin(code) for code in root.tables(MODEL_CODES)]
        self._buffers = [_content(buffer) for buffer in root.tables(MODEL_BUFFERS)]
        self._graphs = root.tables(MODEL_GRAPHS)
        self._signatures = root.tables(MODEL_SIGNATURES)
        self._operators: dict[int, int] = {}

    def contents(self) -> Contents:
        sizes = [self._graph(graph) for graph in self._graphs]
        signatures = {}
        for table in self._signatures:
            graph = table.number(SIGNATURE_GRAPH, "I")
            _within(graph, len(sizes), "graph of a signature")
            ends = (SIGNATURE_INPUTS, SIGNATURE_OUTPUTS)
            inputs, outputs = (list(_names(table.tables(field), sizes[graph])) for field in ends)
            signatures[table.text(SIGNATURE_KEY)] = Signature(inputs, outputs)
        return Contents(signatures, self._operators)

    def _graph(self, graph: _Table) -> int:
        """Check one graph; how many tensors it has."""
        tensors = graph.tables(GRAPH_TENSORS)
        known = {i for i, tensor in enumerate(tensors) if self._tensor(tensor)}
        for index in graph.numbers(GRAPH_INPUTS, "i"):
            _within(index, len(tensors), "input of the graph")
            known.add(index)
        for operator in graph.tables(GRAPH_OPERATORS):
            self._operator(operator, len(tensors), known)
        for index in graph.numbers(GRAPH_OUTPUTS, "i"):
            _within(index, len(tensors), "output of the graph")
            if index not in known:
                _damaged(f"nothing computes the output {index}")
        return len(tensors)

    def _operator(self, operator: _Table, tensors: int, known: set[int]) -> None:
        code = operator.number(OPERATOR_CODE, "I")
        _within(code, len(self._codes), "operator code")
        for index in operator.numbers(OPERATOR_INPUTS, "i"):
            if index != -1:  # an optional input that is left out
                _within(index, tensors, "input of an operator")
                if index not in known:
                    _damaged(f"an operator reads tensor {index} before it is computed")
        outputs = operator.numbers(OPERATOR_OUTPUTS, "i")
        for index in outputs:
            _within(index, tensors, "output of an operator")
            if index in known:
                _damaged(f"an operator writes to tensor {index}, which has a value")
        known.update(outputs)
        for field in (OPERATOR_OPTIONS, OPERATOR_MORE_OPTIONS):
            operator.table(field)
        builtin = self._codes[code]
        self._operators[builtin] = self._operators.get(builtin, 0) + 1

    def _tensor(self, tensor: _Table) -> bool:
        """Check one tensor; whether it is a constant."""
        shape, kind = tensor.numbers(TENSOR_SHAPE, "i"), tensor.number(TENSOR_TYPE, "b")
        if kind not in ITEM_SIZES:
            _damaged(f"a tensor of the type {kind}")
        if min(shape, default=1) < 0 or math.prod(shape) * ITEM_SIZES[kind] > MAX_TENSOR_BYTES:
            _damaged(f"a tensor of shape {list(shape)}")
        tensor.text(TENSOR_NAME)
        _check_quantization(tensor, shape)
        buffer = tensor.number(TENSOR_BUFFER, "I")
        _within(buffer, len(self._buffers), "buffer of a tensor")
        held = self._buffers[buffer]
        if held and held != math.prod(shape) * ITEM_SIZES[kind]:
            _damaged(f"a constant of shape {list(shape)} has {held} bytes")
        return bool(held) or 0 in shape  # of no numbers there is nothing to compute: the shape of a scalar, say


def _names(maps: list[_Table], tensors: int) -> Iterator[str]:
    for entry in maps:
        _within(entry.number(MAP_TENSOR, "I"), tensors, "tensor of a signature")
        yield entry.text(MAP_NAME)


def _builtin(code: _Table) -> int:
    if code.length(CODE_CUSTOM):
        _damaged(f"the custom operator {code.text(CODE_CUSTOM)[:100]!r}; expected builtin ones")
    found = max(code.number(CODE_OLD, "b"), code.number(CODE_NEW, "i"))
    if found in CONTROL_FLOW:
        _damaged(f"control flow ({CONTROL_FLOW[found]}); expected plain graphs")
    return found


def _content(buffer: _Table) -> int:
    """The bytes of a constant."""
    if buffer.number(BUFFER_OFFSET, "Q") or buffer.number(BUFFER_SIZE, "Q"):
        _damaged("a constant outside of the tables")
    return buffer.length(BUFFER_DATA)


def _check_quantization(tensor: _Table, shape: tuple[int, ...]) -> None:
    if tensor.has(TENSOR_SPARSITY):
        _damaged("a sparse tensor")
    found = tensor.table(TENSOR_QUANTIZATION)
    if found is None:
        return
    scales, zeros = found.length(QUANTIZATION_SCALE, 4), found.length(QUANTIZATION_ZERO, 8)
    axis = found.number(QUANTIZATION_AXIS, "i")
    if scales != zeros or found.has(QUANTIZATION_DETAILS) or not 0 <= axis < max(len(shape), 1):
        _damaged(f"{scales} scales and {zeros} zero points along axis {axis} of a tensor of shape {list(shape)}")
    if scales > 1 and scales != shape[axis]:
        _damaged(f"{scales} scales along an axis of {shape[axis]}")


def _within(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        _damaged(f"{what} {index} of {count}")


def _damaged(text: str) -> NoReturn:
    raise ValueError(text)


def _refuse(where: str, text: str) -> NoReturn:
    message = f"{where} {text}"
    raise ProgramError(message)
