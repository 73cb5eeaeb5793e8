"""What a .tflite from the network may hold, read without the ``flatbuffers`` package.

A model is a FlatBuffers table (https://flatbuffers.dev/internals; schema: tensorflow/lite/schema/schema.fbs). The
interpreters are native code; ``tflite-runtime`` 2.14 ends the process on about one damaged file in eight. So every
offset that is followed lies inside the file, every index names something that is there, what an operator reads has been
computed before it, and constants have the size of their tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.flatbuffer import Table, root_of

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
    except ValueError as error:
        _refuse(where, f"holds a damaged LiteRT model: {error}")


class _Reader:
    """The walk through one model."""

    def __init__(self, data: bytes) -> None:
        root = root_of(data)
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

    def _graph(self, graph: Table) -> int:
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

    def _operator(self, operator: Table, tensors: int, known: set[int]) -> None:
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

    def _tensor(self, tensor: Table) -> bool:
        """Check one tensor; whether it is a constant."""
        shape, kind = tensor.numbers(TENSOR_SHAPE, "i"), tensor.number(TENSOR_TYPE, "b")
        if kind not in ITEM_SIZES:
            _damaged(f"a tensor of the type {kind}")
        if min(shape, default=1) < 0 or math.prod(shape) * ITEM_SIZES[kind] > MAX_TENSOR_BYTES:
            _damaged(f"a tensor of shape {shape}")
        tensor.text(TENSOR_NAME)
        _check_quantization(tensor, shape)
        buffer = tensor.number(TENSOR_BUFFER, "I")
        _within(buffer, len(self._buffers), "buffer of a tensor")
        held = self._buffers[buffer]
        if held and held != math.prod(shape) * ITEM_SIZES[kind]:
            _damaged(f"a constant of shape {shape} has {held} bytes")
        return bool(held) or 0 in shape  # of no numbers there is nothing to compute: the shape of a scalar, say


def _names(maps: list[Table], tensors: int) -> Iterator[str]:
    for entry in maps:
        _within(entry.number(MAP_TENSOR, "I"), tensors, "tensor of a signature")
        yield entry.text(MAP_NAME)


def _builtin(code: Table) -> int:
    if code.length(CODE_CUSTOM):
        _damaged(f"the custom operator {code.text(CODE_CUSTOM)[:100]!r}; expected builtin ones")
    found = max(code.number(CODE_OLD, "b"), code.number(CODE_NEW, "i"))
    if found in CONTROL_FLOW:
        _damaged(f"control flow ({CONTROL_FLOW[found]}); expected plain graphs")
    return found


def _content(buffer: Table) -> int:
    """The bytes of a constant."""
    if buffer.number(BUFFER_OFFSET, "Q") or buffer.number(BUFFER_SIZE, "Q"):
        _damaged("a constant outside of the tables")
    return buffer.length(BUFFER_DATA)


def _check_quantization(tensor: Table, shape: list[int]) -> None:
    if tensor.has(TENSOR_SPARSITY):
        _damaged("a sparse tensor")
    found = tensor.table(TENSOR_QUANTIZATION)
    if found is None:
        return
    scales, zeros = found.length(QUANTIZATION_SCALE, 4), found.length(QUANTIZATION_ZERO, 8)
    axis = found.number(QUANTIZATION_AXIS, "i")
    if scales != zeros or found.has(QUANTIZATION_DETAILS) or not 0 <= axis < max(len(shape), 1):
        _damaged(f"{scales} scales and {zeros} zero points along axis {axis} of a tensor of shape {shape}")
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
