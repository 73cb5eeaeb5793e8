"""What a .pte from the network may hold, read without the ``flatbuffers`` package.

A .pte is a FlatBuffers table (ExecuTorch's schema/program.fbs), then segments of constants and delegates' data. The
runtimes are native code and trust it: of files with a few damaged bytes one in seven ended the process. So every offset
that is followed lies inside the file, every index names something that is there, every tensor lies within the memory of
its method or within the constants, kernels are known ones and get the kinds of arguments they take, and the only
delegate is XNNPACK, whose own graph is looked at in ``xnnpack_graph``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from device_runtime.engines.pte_kernels import ARGUMENTS
from device_runtime.engines.xnnpack_graph import check_graph
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.flatbuffer import Budget, Table, item_of, root_of

IDENTIFIER = b"ET12"  # at byte 4 of every .pte
MAGIC, HEADER = b"eh00", struct.Struct("<4sIQQ")  # at byte 8: its size, the program's size, where segments begin
DELEGATE = "XnnpackBackend"
MAX_MEMORY = 1 << 34  # bytes of one method; a damaged size must not become an allocation
SLACK = 1 << 16  # bytes behind the last tensor, to whatever a planner aligns
MAX_DIMS = 16  # kTensorDimensionLimit of the runtime
# Element sizes by ScalarType; what is not here (complex, quantised types of PyTorch) no file of ours has.
ITEM_SIZES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 15: 2}

# Field numbers of program.fbs.
PROGRAM_VERSION, PROGRAM_METHODS, PROGRAM_OLD_CONSTANTS, PROGRAM_INLINE, PROGRAM_SEGMENTS = 0, 1, 2, 3, 4
PROGRAM_CONSTANTS, PROGRAM_STATE, PROGRAM_NAMED = 5, 6, 7
PLAN_NAME, PLAN_CONTAINER, PLAN_VALUES, PLAN_INPUTS, PLAN_OUTPUTS, PLAN_CHAINS = 0, 1, 2, 3, 4, 5
PLAN_OPERATORS, PLAN_DELEGATES, PLAN_SIZES, PLAN_DEVICES = 6, 7, 8, 9
TENSOR_TYPE, TENSOR_OFFSET, TENSOR_SIZES, TENSOR_ORDER, TENSOR_CONSTANT, TENSOR_PLACE = 0, 1, 2, 3, 5, 6
TENSOR_DYNAMISM, TENSOR_EXTRA = 8, 9
CHAIN_CALLS = 2
# Kinds of the unions KernelTypes and InstructionArguments.
NULL, INT, BOOL, DOUBLE, TENSOR, STRING, INTS, DOUBLES, BOOLS, TENSORS, OPTIONAL_TENSORS = range(1, 12)
KERNEL_CALL, DELEGATE_CALL = 1, 2
VIEW = ("executorch_prim::et_view", "default")  # gives its result the memory of its argument
# By the letters of ``pte_kernels``: the kinds of value that an argument may be; a small letter allows NULL besides.
KINDS = {
    "T": {TENSOR}, "O": {TENSOR}, "N": {INT, BOOL, DOUBLE}, "I": {INT}, "B": {BOOL}, "F": {DOUBLE}, "Z": {STRING},
    "L": {INTS}, "D": {DOUBLES}, "A": {BOOLS}, "X": {TENSORS}, "P": {TENSORS}, "Y": {OPTIONAL_TENSORS},
}  # fmt: skip
KINDS |= {letter.lower(): kinds | {NULL} for letter, kinds in KINDS.items()}


def check_pte(data: bytes, where: str) -> None:
    """Refuse a file that does not hold together; ``where`` begins the message. Raises ProgramError."""
    if data[4:8] != IDENTIFIER:
        _refuse(where, f"is not an ExecuTorch file: expected {IDENTIFIER!r} at byte 4, got {bytes(data[4:8])!r}")
    try:
        _File(data).check()
    except (ValueError, OverflowError) as error:
        _refuse(where, f"holds a damaged ExecuTorch file: {error}")


class _File:
    """The whole file: the program's table and the segments behind it. Raises ValueError, as all below."""

    def __init__(self, data: bytes) -> None:
        size, begin = len(data), 0
        if data[8:12] == MAGIC:
            if len(data) < 8 + HEADER.size:
                _damaged("its header does not end")
            _, length, size, begin = HEADER.unpack_from(data, 8)
            if length < HEADER.size or not 8 + length <= size <= len(data) or begin > len(data):
                _damaged(f"a program of {size} bytes, segments from byte {begin}, in {len(data)} bytes")
        self._data = data
        self._root = root_of(data[:size])
        self._delegated = Budget(len(data))  # delegates' tables are files of their own: all of them together
        self._segments = [self._segment(table, begin, size) for table in self._root.tables(PROGRAM_SEGMENTS)]
        self._inline = [table.raw(0) for table in self._root.tables(PROGRAM_INLINE)]
        self.constants = self._constants()
        self._named = {
            table.text(0): len(item_of(self._segments, table.number(1, "I")))
            for table in self._root.tables(PROGRAM_NAMED)
        }

    def check(self) -> None:
        root = self._root
        if root.number(PROGRAM_VERSION, "I"):
            _damaged(f"schema version {root.number(PROGRAM_VERSION, 'I')}, expected 0")
        if root.length(PROGRAM_OLD_CONSTANTS, 4) or root.length(PROGRAM_STATE, 4):
            _damaged("constants in the table or with a state; expected them in one segment")
        methods = root.tables(PROGRAM_METHODS)
        names = [method.text(PLAN_NAME) for method in methods]
        if not names or not all(names) or len(set(names)) < len(names):
            _damaged(f"the methods are {str(names)[:200]}")
        for method in methods:
            _Method(self, method).check()

    def _segment(self, table: Table, begin: int, program: int) -> memoryview:
        start, size = begin + table.number(0, "Q"), table.number(1, "Q")
        if start < program or start + size > len(self._data):
            _damaged(f"a segment from byte {start} to {start + size} of {len(self._data)}")
        return memoryview(self._data)[start : start + size]

    def _constants(self) -> list[int]:
        """The bytes from each constant's beginning to the end of their segment."""
        table = self._root.table(PROGRAM_CONSTANTS)
        offsets = table.numbers(1, "Q") if table else []
        if table is None or len(offsets) < 2:  # the first one stands for none
            return [0] * len(offsets)
        size = len(item_of(self._segments, table.number(0, "I")))
        if max(offsets) > size:
            _damaged(f"a constant at byte {max(offsets)} of {size}")
        return [size - offset for offset in offsets]

    def delegate(self, table: Table) -> int:
        """Check one delegate; how many tensors it takes and gives."""
        if table.text(0) != DELEGATE:
            _damaged(f"the delegate {table.text(0)[:100]!r}; expected {DELEGATE}")
        reference = table.table(1)
        if reference is None:
            _damaged("a delegate without data")
        for option in table.tables(2):
            _ = option.text(0), option.raw(1)
        place = reference.number(1, "I")
        data = item_of(self._segments, place) if reference.number(0, "b") else item_of(self._inline, place)
        self._delegated.read(len(data))
        return check_graph(bytes(data), self._named)


@dataclass(frozen=True)
class _Value:
    """One value of a method: its kind of the union; of a tensor, where it lies; of a list, what it holds."""

    kind: int
    constant: bool = False
    placed: bool = True  # False: it has no memory of its own
    items: Sequence[int] = ()


class _Method:
    """The walk through one method."""

    def __init__(self, file: _File, plan: Table) -> None:
        self._file, self._plan = file, plan
        self._sizes = plan.numbers(PLAN_SIZES, "q")
        if min(self._sizes, default=0) < 0 or sum(self._sizes) > MAX_MEMORY or plan.length(PLAN_DEVICES, 4):
            _damaged(f"memory of {self._sizes} bytes")
        self._ends = [0] * len(self._sizes)  # of the last tensor in each
        self._values: list[_Value] = []
        self._lent: set[int] = set()  # inputs that are read where the caller has them

    def check(self) -> None:
        plan = self._plan
        if plan.table(PLAN_CONTAINER) is None:
            _damaged("a method without a description of its structure")
        for table in plan.tables(PLAN_VALUES):
            self._values.append(self._value(table))
        for value in self._values:
            if value.kind == INTS and any(item_of(self._values, item).kind != INT for item in value.items):
                _damaged("a list of integers that holds something else")
        if sum(self._sizes) > sum(self._ends) + SLACK:
            _damaged(f"memory of {sum(self._sizes)} bytes, of which tensors take {sum(self._ends)}")
        filled = set(plan.numbers(PLAN_INPUTS, "i"))
        for place in filled:
            self._require(place, "O", filled)
        self._lent = {place for place in filled if not self._values[place].placed}
        self._calls(filled)
        for place in plan.numbers(PLAN_OUTPUTS, "i"):
            self._require(place, "T", filled)

    def _calls(self, filled: set[int]) -> None:
        """Check every call; ``filled`` are the tensors without memory of their own that have got some."""
        operators = [(table.text(0), table.text(1)) for table in self._plan.tables(PLAN_OPERATORS)]
        delegates = [self._file.delegate(table) for table in self._plan.tables(PLAN_DELEGATES)]
        unknown = [".".join(operator) for operator in operators if operator not in ARGUMENTS]
        if unknown:
            _damaged(f"it calls {', '.join(unknown)[:200]}, which is none of the kernels that may be called")
        chains = self._plan.tables(PLAN_CHAINS)
        if len(chains) != 1:
            _damaged(f"{len(chains)} chains of calls, expected one")
        for instruction in chains[0].tables(CHAIN_CALLS):
            kind, call = instruction.number(0, "B"), instruction.table(1)
            if call is None or kind not in (KERNEL_CALL, DELEGATE_CALL):
                _damaged(f"an instruction of the kind {kind}; expected calls of kernels and delegates")
            place, arguments = call.number(0, "i"), call.numbers(1, "i")
            for argument in arguments:
                item_of(self._values, argument)
            if kind == DELEGATE_CALL:
                self._delegate_call(item_of(delegates, place), arguments, filled)
            else:
                self._kernel_call(item_of(operators, place), arguments, filled)

    def _kernel_call(self, operator: tuple[str, str], arguments: list[int], filled: set[int]) -> None:
        letters = ARGUMENTS[operator]
        if operator == VIEW and len(arguments) > 2:
            filled.add(arguments[2])
        if len(arguments) < len(letters):
            _damaged(f"{'.'.join(operator)} with {len(arguments)} arguments, it takes {len(letters)}")
        for letter, argument in zip(letters, arguments, strict=False):
            self._require(argument, letter, filled)

    def _delegate_call(self, wanted: int, arguments: list[int], filled: set[int]) -> None:
        if len(arguments) != wanted:
            _damaged(f"a delegate of {wanted} tensors is called with {len(arguments)}")
        for argument in arguments:
            self._require(argument, "T", filled)

    def _require(self, place: int, letter: str, filled: set[int]) -> None:
        value = item_of(self._values, place)
        if value.kind not in KINDS[letter]:
            _damaged(f"value {place} is of the kind {value.kind}, where one of {sorted(KINDS[letter])} belongs")
        tensors = [place] if value.kind == TENSOR else value.items if value.kind in (TENSORS, OPTIONAL_TENSORS) else ()
        for tensor in tensors:
            if tensor >= 0 and not self._values[tensor].placed and tensor not in filled:
                _damaged(f"the tensor {tensor} has no memory where it is used")
            if letter in "OP" and (self._values[tensor].constant or tensor in self._lent):
                _damaged(f"something writes to value {tensor}, which is a constant or the caller's")

    # --- values --------------------------------------------------------------------------------------------------

    def _value(self, table: Table) -> _Value:
        kind, content = table.number(0, "B"), table.table(1)
        if content is None or not NULL <= kind <= OPTIONAL_TENSORS:
            _damaged(f"a value of the kind {kind}")
        if kind == TENSOR:
            return self._tensor(content)
        if kind in LISTS:
            return _Value(kind, items=LISTS[kind](content, self._values))
        if kind == STRING:
            content.text(0)
        elif kind != NULL:
            content.number(0, "B" if kind == BOOL else "q")
        return _Value(kind)

    def _tensor(self, table: Table) -> _Value:
        kind, sizes = table.number(TENSOR_TYPE, "b"), table.numbers(TENSOR_SIZES, "i")
        if kind not in ITEM_SIZES or min(sizes, default=0) < 0 or len(sizes) > MAX_DIMS:
            _damaged(f"a tensor of the type {kind} and the shape {sizes}")
        if sorted(table.numbers(TENSOR_ORDER, "B")) != list(range(len(sizes))):
            _damaged(f"a tensor of shape {sizes} in the order {table.numbers(TENSOR_ORDER, 'B')}")
        if table.number(TENSOR_OFFSET, "i") or not 0 <= table.number(TENSOR_DYNAMISM, "b") <= 1:
            _damaged("a tensor with an offset, or without any bound of its size")
        self._check_extra(table.table(TENSOR_EXTRA))
        size = math.prod(sizes) * ITEM_SIZES[kind]
        constant, place = table.number(TENSOR_CONSTANT, "I"), table.table(TENSOR_PLACE)
        if constant and (place is not None or size > item_of(self._file.constants, constant)):
            _damaged(f"the constant {constant} of {size} bytes does not end within its segment")
        if place is not None:
            block = place.number(0, "I")
            end = (place.number(2, "I") << 32) + place.number(1, "I") + size
            if block < 1 or end > item_of(self._sizes, block):
                _damaged(f"a tensor that ends at byte {end} of memory {block}, of sizes {self._sizes}")
            self._ends[block] = max(self._ends[block], end)
        return _Value(TENSOR, bool(constant), bool(constant) or place is not None)

    def _check_extra(self, extra: Table | None) -> None:
        if extra is not None and any(extra.number(field, "b") for field in (2, 3, 4)):
            _damaged("a tensor outside of the file, or on another device")


def _items_of(form: str) -> Callable[[Table, list[_Value]], list[int]]:
    return lambda content, _values: content.numbers(0, form)


def _plain(size: int) -> Callable[[Table, list[_Value]], list[int]]:
    def check(content: Table, _values: list[_Value]) -> list[int]:
        content.length(0, size)
        return []

    return check


def _tensors(least: int) -> Callable[[Table, list[_Value]], list[int]]:
    def items(content: Table, values: list[_Value]) -> list[int]:
        """They come before the list: the runtime reads values in order."""
        found = content.numbers(0, "i")
        for item in found:
            if item < least or (item >= 0 and item_of(values, item).kind not in (TENSOR, NULL)[: 1 - least]):
                _damaged(f"a list of tensors that holds value {item}")
        return found

    return items


LISTS: dict[int, Callable[[Table, list[_Value]], list[int]]] = {
    INTS: _items_of("q"), DOUBLES: _plain(8), BOOLS: _plain(1), TENSORS: _tensors(0), OPTIONAL_TENSORS: _tensors(-1),
}  # fmt: skip


def _damaged(text: str) -> NoReturn:
    raise ValueError(text)


def _refuse(where: str, text: str) -> NoReturn:
    message = f"{where} {text}"
    raise ProgramError(message)
