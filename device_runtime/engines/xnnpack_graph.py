"""What an XNNPACK delegate inside a .pte may hold: what names a value names one, constants have their tensor's size.

The delegate's data is a header of 30 bytes, a FlatBuffers table (ExecuTorch's backends/xnnpack/serialization/
runtime_schema.fbs) and constants, which may lie in the file's named segments instead.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import NoReturn

from mas_edge.protocol.flatbuffer import Table, item_of, root_of

# At byte 4: magic, the header's size, where table and constants begin and how long they are.
MAGIC, HEADER = b"XH00", struct.Struct("<4sHIIIQ")
IDENTIFIERS = (b"XN00", b"XN01")  # of the table, at its byte 4
MAX_BYTES = 1 << 30  # of one tensor; a damaged size must not become hours of work
MAX_DIMS = 6  # XNN_MAX_TENSOR_DIMS
NONE = 0xFFFFFFFF  # XNN_INVALID_VALUE_ID: an argument that is left out
IN_NAMED = 0xFFFFFFFFFFFFFFFF  # the offset of a constant that has a name instead
TRANSPOSED = 1  # flag of a linear layer whose filter is [in, out]
INPUT, OUTPUT = 1, 2  # flags of a value that comes from outside or goes there
# Bits of a number by XNNDatatype; what is not here our models do not use.
BITS = {1: 32, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8, 7: 32, 8: 4, 9: 8, 12: 32, 13: 32, 14: 16}

GRAPH_NODES, GRAPH_VALUES, GRAPH_EXTERNALS, GRAPH_INPUTS, GRAPH_OUTPUTS = 1, 2, 3, 4, 5
GRAPH_OLD_CONSTANTS, GRAPH_CONSTANTS = 6, 8
VALUE_TYPE, VALUE_COUNT, VALUE_DIMS, VALUE_CONSTANT, VALUE_EXTERNAL, VALUE_FLAGS, VALUE_ID = 0, 1, 2, 3, 4, 5, 6
INFINITE = 0x7F800000  # float32 infinity as an integer; finite positive ones are below
PER_CHANNEL, PER_TENSOR = 1, 2  # of the union XNNQuantParams

# Which fields of a node name values, the result last, by its kind in the union XNodeUnion.
_ONE, _TWO, _CONVOLUTION, _POOLING = (0, 1), (0, 1, 2), (15, 16, 17, 18), (10, 11)
FIELDS: dict[int, tuple[int, ...]] = {
    1: _TWO, 2: (0, 1, 2, 3), 3: _ONE, 4: _ONE, 5: (2, 3), 6: _ONE, 7: _CONVOLUTION, 8: _TWO, 9: (2, 3), 10: (3, 4),
    11: _POOLING, 12: _TWO, 13: _CONVOLUTION, 14: _POOLING, 15: _TWO, 16: _TWO, 17: _ONE, 18: _ONE, 19: _ONE,
    20: (2, 3), 22: _ONE, 23: _ONE, 24: _ONE, 25: (1, 2), 26: _TWO, 27: _ONE, 28: _ONE, 29: (1, 2), 30: _ONE, 31: _TWO,
    32: (1, 2, 5), 33: (1, 2, 3, 5), 34: (1, 2, 3, 4, 5), 35: (3, 4), 37: _TWO, 38: (1, 2, 3, 4, 7, 5),
    39: _CONVOLUTION, 40: _ONE, 41: _ONE, 42: _ONE, 43: _ONE, 44: _ONE, 45: _ONE, 46: _ONE, 47: _ONE,
}  # fmt: skip
LINEAR, CONVOLUTIONS = 2, (7, 13, 39)
WEIGHTED = (LINEAR, *CONVOLUTIONS)  # input, filter, bias or none, result
# Nodes with lists of numbers: which fields, and which one says how many (-1: all have the same length).
LISTS = {5: (0, (1,)), 10: (-1, (0, 1)), 20: (0, (1,)), 35: (0, (1, 2))}


def check_graph(data: bytes, named: Mapping[str, int]) -> int:
    """Check the delegate's data; ``named`` are the sizes of segments. Returns how many tensors it takes and gives.

    Raises:
        ValueError: it does not hold together.
    """
    if data[4:8] != MAGIC or len(data) < 4 + HEADER.size:
        _damaged(f"its delegate's data begins with {data[:8]!r}")
    _, length, begin, size, constants, room = HEADER.unpack_from(data, 4)
    if length != 4 + HEADER.size or begin + size > len(data) or (room and constants + room > len(data)):
        _damaged(f"a delegate's table or constants do not end within its {len(data)} bytes")
    table = data[begin : begin + size]
    if table[4:8] not in IDENTIFIERS:
        _damaged(f"a delegate of the version {table[4:8]!r}; expected one of {IDENTIFIERS}")
    return _Graph(root_of(table), named, room).check()


class _Graph:
    """The walk through one graph. Raises ValueError."""

    def __init__(self, root: Table, named: Mapping[str, int], room: int) -> None:
        self._root = root
        if root.length(GRAPH_OLD_CONSTANTS, 4):
            _damaged("a delegate's constants inside of its table")
        self._sizes = [_size_of(constant, named, room) for constant in root.tables(GRAPH_CONSTANTS)]
        self._externals = root.number(GRAPH_EXTERNALS, "I")
        self._shapes: dict[int, list[int]] = {}  # of every value by its number
        self._known: set[int] = set()  # values that are given or computed

    def check(self) -> int:
        root = self._root
        ends = [*root.numbers(GRAPH_INPUTS, "I"), *root.numbers(GRAPH_OUTPUTS, "I")]
        outside = set()
        for value in root.tables(GRAPH_VALUES):
            outside |= self._value(value)
        if self._externals != len(ends) or outside != set(range(len(ends))) or not set(ends) <= self._shapes.keys():
            _damaged(f"a delegate of {self._externals} tensors that names {sorted(outside)} and {ends}")
        for node in root.tables(GRAPH_NODES):
            self._node(node)
        if not self._known.issuperset(ends):
            _damaged(f"a delegate that does not compute all of {ends}")
        return len(ends)

    def _value(self, table: Table) -> set[int]:
        """Check one value; its place among the arguments if it has one."""
        tensor, scales = (table.table(1), None) if table.number(0, "B") == 1 else _quantised(table)
        if tensor is None:
            _damaged("a delegate's value without a tensor")
        kind, sizes = tensor.number(VALUE_TYPE, "h"), tensor.numbers(VALUE_DIMS, "I")
        if kind not in BITS or len(sizes) != tensor.number(VALUE_COUNT, "I") or len(sizes) > MAX_DIMS:
            _damaged(f"a delegate's tensor of the type {kind} and the shape {sizes}")
        if math.prod(sizes) * BITS[kind] > 8 * MAX_BYTES:
            _damaged(f"a delegate's tensor of the shape {sizes}")
        constant = tensor.number(VALUE_CONSTANT, "I")
        if constant and item_of(self._sizes, constant) * 8 < math.prod(sizes) * BITS[kind]:
            _damaged(f"a delegate's constant {constant} is too small for the shape {sizes}")
        if scales is not None:
            self._check_scales(*scales, sizes)
        name, outside = tensor.number(VALUE_ID, "I"), tensor.number(VALUE_EXTERNAL, "I")
        if name in self._shapes:
            _damaged(f"a delegate has two values {name}")
        self._shapes[name] = sizes
        flags = tensor.number(VALUE_FLAGS, "I")
        if constant or flags & INPUT:
            self._known.add(name)
        if flags & (INPUT | OUTPUT):
            return {outside}
        if outside != NONE:  # it would take the place of an argument
            _damaged(f"a delegate's inner value {name} with the outer number {outside}")
        return set()

    def _check_scales(self, kind: int, table: Table, sizes: list[int]) -> None:
        if kind == PER_TENSOR:
            scale, zero = table.number(0, "I"), table.number(1, "i")
            if not 0 < scale < INFINITE or not -128 <= zero <= 255:
                _damaged(f"a delegate's tensor of the zero point {zero} and the scale {scale:#x}, a float32")
            return
        if kind != PER_CHANNEL:
            _damaged(f"a delegate's tensor quantised in the way {kind}; expected one scale for all or a channel")
        axis, count = table.number(1, "i"), table.length(0, 4)
        buffer = table.number(2, "I")
        if buffer:
            count = table.number(3, "I")
            if item_of(self._sizes, buffer) < 4 * count:
                _damaged(f"{count} scales are too many for the constant {buffer}")
        if count != item_of(sizes, axis):
            _damaged(f"{count} scales along axis {axis} of a tensor of the shape {sizes}")

    def _node(self, node: Table) -> None:
        kind, content = node.number(0, "B"), node.table(1)
        if content is None or kind not in FIELDS:
            _damaged(f"a delegate's node of the kind {kind}")
        *inputs, result = (content.number(field, "I") for field in FIELDS[kind])
        left_out = inputs[2:] == [NONE] and kind in WEIGHTED
        if not self._known.issuperset(inputs[:2] if left_out else inputs):
            _damaged(f"a delegate's node reads the values {inputs}, not all of which are computed")
        if result not in self._shapes or result in self._known:
            _damaged(f"a delegate's node writes value {result}, which there is not or which has a value")
        self._known.add(result)
        if kind in WEIGHTED:
            self._check_weights(content, kind, self._shapes[inputs[1]], None if left_out else self._shapes[inputs[2]])
        if kind in LISTS:
            count, fields = LISTS[kind]
            lengths = {content.length(field, 4) for field in fields}
            if count >= 0:
                lengths.add(content.number(count, "I"))
            if len(lengths) > 1 or max(lengths) > MAX_DIMS:
                _damaged(f"a delegate's node of the kind {kind} with lists of {sorted(lengths)} numbers")

    def _check_weights(self, node: Table, kind: int, kernel: list[int], bias: list[int] | None) -> None:
        """What native code reads of filter and bias is told by the node, not by their shapes."""
        if kind == LINEAR:
            rows, count = (kernel[:1] or [0])[0], math.prod(kernel)
            rows = kernel[-1] if node.number(4, "I") & TRANSPOSED else rows
        else:
            height, width, inputs, outputs, groups = (node.number(field, "I") for field in (4, 5, 10, 11, 12))
            rows, count = outputs * groups, height * width * inputs * outputs * groups
        if count != math.prod(kernel) or (bias is not None and math.prod(bias) != rows):
            _damaged(f"a delegate's node of {count} weights, filter {kernel}, bias {bias}")


def _size_of(constant: Table, named: Mapping[str, int], room: int) -> int:
    """The bytes of one constant."""
    offset, size, name = constant.number(0, "Q"), constant.number(1, "Q"), constant.text(2)
    if offset == IN_NAMED and size > named.get(name, -1):
        _damaged(f"a delegate's constant {name[:100]!r} of {size} bytes that the file has not")
    if offset != IN_NAMED and offset + size > room:
        _damaged(f"a delegate's constant at byte {offset} of {room}")
    return size


def _quantised(table: Table) -> tuple[Table, tuple[int, Table]]:
    outer = table.table(1)
    tensor, scales = (outer.table(0), outer.table(2)) if outer is not None else (None, None)
    if outer is None or tensor is None or scales is None or table.number(0, "B") != 2:
        _damaged(f"a delegate's value of the kind {table.number(0, 'B')}")
    return tensor, (outer.number(1, "B"), scales)


def _damaged(text: str) -> NoReturn:
    raise ValueError(text)
