"""The .pte file: ExecuTorch's flatbuffer schema (``program.fbs``, file identifier ET12), as far as a program needs it.

Written directly, with the ``flatbuffers`` package alone: ExecuTorch's own way from a graph to a file took minutes for a
train step of a thousand calls, and its import takes six seconds. Slots are the fields' places in their table of the
schema; a union takes two (kind, value). What is left out has the schema's default.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import flatbuffers  # type: ignore[import-untyped]

IDENTIFIER = b"ET12"
ALIGNMENT = 16  # bytes; of constants in the file and of every value in the arena
SEGMENT_ALIGNMENT = 128
HEADER = struct.Struct("<4sIQQQ")  # magic, its size, the program's size, where the segments begin, and their size
ARENA = 1  # the one block of planned memory; 0 stands for constants
# The kinds of the unions KernelTypes and InstructionArguments.
NULL, INT, BOOL, DOUBLE, TENSOR, STRING, INT_LIST, DOUBLE_LIST, BOOL_LIST, TENSOR_LIST, OPTIONAL_TENSORS = range(1, 12)
KERNEL_CALL = 1

SCALAR_TYPES = {"uint8": 0, "int8": 1, "int16": 2, "int32": 3, "int64": 4, "float16": 5, "float32": 6, "float64": 7,
                "bool": 11}  # fmt: skip


@dataclass(frozen=True)
class TensorValue:
    """A tensor of static shape at ``offset`` bytes of the arena, or the constant with the number ``constant``.

    Without either it is an input that is read where the caller has it.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int | None = 0
    constant: int = 0  # 0: none


@dataclass(frozen=True)
class ListValue:
    """A list argument: of numbers or tensors by their place among the values, or of true and false."""

    kind: int  # INT_LIST, TENSOR_LIST, OPTIONAL_TENSORS (-1 for none) or BOOL_LIST
    items: tuple[int, ...]


Value = TensorValue | ListValue | int | float | bool | str | None


@dataclass(frozen=True)
class Call:
    """One kernel call: the operator's place among the operators, its arguments' and results' among the values."""

    operator: int
    arguments: list[int]


@dataclass
class Plan:
    """One method: the values that calls name by their place, what goes in and comes out, and the calls in order."""

    name: str
    values: list[Value] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    operators: list[tuple[str, str]] = field(default_factory=list)  # ("aten::add", "out")
    calls: list[Call] = field(default_factory=list)
    arena_bytes: int = 0


def write(plans: Sequence[Plan], constants: Sequence[bytes]) -> bytes:
    """Return the .pte with one method for each plan. A tensor's ``constant`` counts ``constants`` from 1.

    The file is the flatbuffer, with the extended header behind its identifier, and one segment with all constants.
    """
    segment, starts = b"", [0]  # constant 0 is empty by convention: a tensor of constant 0 has no data in the file
    for data in constants:
        starts.append(len(segment))
        segment += data + bytes(-len(data) % ALIGNMENT)
    flat = _flatbuffer(plans, starts, len(segment))
    size = len(flat) + HEADER.size
    begin = size + -size % SEGMENT_ALIGNMENT
    header = HEADER.pack(b"eh00", HEADER.size, size, begin if segment else 0, len(segment))
    root = int.from_bytes(flat[:4], "little") + HEADER.size
    program = root.to_bytes(4, "little") + flat[4:8] + header + flat[8:]
    return program + bytes(begin - size) + segment if segment else program


def _flatbuffer(plans: Sequence[Plan], starts: Sequence[int], segment_size: int) -> bytes:
    b = flatbuffers.Builder(1 << 16)
    methods = _offsets(b, [_plan(b, plan) for plan in plans])
    segment = _table(b, 2, lambda b: b.PrependUint64Slot(1, segment_size, 0))
    segments = _offsets(b, [segment] if segment_size else [])
    offsets = _numbers(b, starts, 8)
    constants = _table(b, 2, lambda b: _offset(b, 1, offsets))
    slots = {1: methods, 2: _offsets(b, []), 3: _offsets(b, []), 4: segments, 5: constants}
    root = _table(b, 8, lambda b: [_offset(b, slot, place) for slot, place in slots.items()])
    b.Finish(root, file_identifier=IDENTIFIER)
    return bytes(b.Output())


def _plan(b: flatbuffers.Builder, plan: Plan) -> int:
    kinds: dict[object, int] = {}

    def value(item: Value) -> int:
        # Equal numbers and lists share one table; True == 1 == 1.0, so the type belongs to the key.
        key = (type(item), item, str(item))
        if key not in kinds:
            kinds[key] = _value(b, item)
        return kinds[key]

    values = _offsets(b, [value(item) for item in plan.values])
    operators = _offsets(b, [_operator(b, *operator) for operator in plan.operators])
    calls = _offsets(b, [_call(b, call) for call in plan.calls])
    chain = _offsets(b, [_table(b, 4, lambda b: _offset(b, 2, calls))])
    name, text = b.CreateString(plan.name), b.CreateString("")
    container = _table(b, 2, lambda b: (_offset(b, 0, text), _offset(b, 1, text)))
    inputs, outputs = _numbers(b, plan.inputs, 4), _numbers(b, plan.outputs, 4)
    delegates, sizes = _offsets(b, []), _numbers(b, [0, plan.arena_bytes], 8)
    places = (name, container, values, inputs, outputs, chain, operators, delegates, sizes)
    return _table(b, 10, lambda b: [_offset(b, slot, place) for slot, place in enumerate(places)])


def _value(b: flatbuffers.Builder, item: Value) -> int:
    kind, place = _content(b, item)
    return _table(b, 2, lambda b: (b.PrependUint8Slot(0, kind, 0), _offset(b, 1, place)))


def _content(b: flatbuffers.Builder, item: Value) -> tuple[int, int]:
    match item:
        case None:
            return NULL, _table(b, 0, lambda _: None)
        case bool():
            return BOOL, _table(b, 1, lambda b: b.PrependBoolSlot(0, item, False))
        case int():
            return INT, _table(b, 1, lambda b: b.PrependInt64Slot(0, item, 0))
        case float():
            return DOUBLE, _table(b, 1, lambda b: b.PrependFloat64Slot(0, item, 0.0))
        case str():
            text = b.CreateString(item)
            return STRING, _table(b, 1, lambda b: _offset(b, 0, text))
        case ListValue():
            size = {INT_LIST: 8, BOOL_LIST: 1}.get(item.kind, 4)
            items = _numbers(b, item.items, size)
            return item.kind, _table(b, 1, lambda b: _offset(b, 0, items))
        case TensorValue():
            return TENSOR, _tensor(b, item)


def _tensor(b: flatbuffers.Builder, tensor: TensorValue) -> int:
    sizes, order = _numbers(b, tensor.shape, 4), _numbers(b, range(len(tensor.shape)), 1)
    place = 0
    if not tensor.constant and tensor.offset is not None:
        low, high = tensor.offset & 0xFFFFFFFF, tensor.offset >> 32

        def fill_place(b: flatbuffers.Builder) -> None:
            b.PrependUint32Slot(0, ARENA, 0)
            b.PrependUint32Slot(1, low, 0)
            b.PrependUint32Slot(2, high, 0)

        place = _table(b, 3, fill_place)

    def fill(b: flatbuffers.Builder) -> None:
        b.PrependInt8Slot(0, SCALAR_TYPES[tensor.dtype], 0)
        _offset(b, 2, sizes)
        _offset(b, 3, order)
        b.PrependUint32Slot(5, tensor.constant, 0)
        if place:
            _offset(b, 6, place)

    return _table(b, 10, fill)


def _operator(b: flatbuffers.Builder, name: str, overload: str) -> int:
    texts = b.CreateString(name), b.CreateString(overload)
    return _table(b, 2, lambda b: [_offset(b, slot, text) for slot, text in enumerate(texts)])


def _call(b: flatbuffers.Builder, call: Call) -> int:
    arguments = _numbers(b, call.arguments, 4)

    def fill(b: flatbuffers.Builder) -> None:
        b.PrependInt32Slot(0, call.operator, 0)
        _offset(b, 1, arguments)

    kernel = _table(b, 2, fill)
    return _table(b, 2, lambda b: (b.PrependUint8Slot(0, KERNEL_CALL, 0), _offset(b, 1, kernel)))


def _table(b: flatbuffers.Builder, slots: int, fill: Callable[[flatbuffers.Builder], object]) -> int:
    b.StartObject(slots)
    fill(b)
    place: int = b.EndObject()
    return place


def _offset(b: flatbuffers.Builder, slot: int, place: int) -> object:
    return b.PrependUOffsetTRelativeSlot(slot, place, 0)


def _offsets(b: flatbuffers.Builder, places: Sequence[int]) -> int:
    b.StartVector(4, len(places), 4)
    for place in reversed(places):
        b.PrependUOffsetTRelative(place)
    vector: int = b.EndVector()
    return vector


def _numbers(b: flatbuffers.Builder, numbers: Sequence[int], size: int) -> int:
    """A vector of little-endian integers of ``size`` bytes each."""
    b.StartVector(size, len(numbers), size)
    add = {1: b.PrependUint8, 4: b.PrependInt32, 8: b.PrependInt64}[size]
    for number in reversed(numbers):
        add(number)
    vector: int = b.EndVector()
    return vector
