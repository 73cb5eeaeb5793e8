"""The plan of one method while it grows: its memory, its constants, its calls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload

from mas_edge.export.executorch import arena, flat
from mas_edge.export.executorch.arena import Storage
from mas_edge.export.executorch.kernels import outputs_of
from mas_edge.export.executorch.operand import ITEM_BYTES, Operand, expanded, fresh, merged, reshaped

ATEN = torch.ops.aten
# Kernels of two (or three) tensors that are slow where shapes differ: 3 ns a number instead of 0.4.
ELEMENTWISE = {
    ATEN.add.out, ATEN.sub.out, ATEN.mul.out, ATEN.div.out, ATEN.where.self_out, ATEN.maximum.out, ATEN.minimum.out,
}  # fmt: skip
LARGE = 4096  # numbers; below, the call costs more than the loop


OPTIONAL_LIST = "List[Optional[Tensor]]"


class Optionals(list[Any]):
    """A list in which a tensor may be missing: the file tells it from a list of tensors."""


class Builder:
    """Collects calls; ``plan`` lays out the memory. ``constants`` belong to the whole file, each once."""

    def __init__(self, constants: dict[bytes, int]) -> None:
        self._constants = constants
        self._storages: list[Storage] = []
        self._sizes: list[int] = []  # of the storages, in numbers
        self._inputs: list[Operand] = []
        self._calls: list[tuple[OpOverload, list[Any]]] = []  # arguments: operands, lists of them, plain values
        self._made: dict[Operand, Operand] = {}  # views that were made real
        self._borrowed: set[int] = set()  # storages that are the caller's

    def input(self, shape: tuple[int, ...], dtype: str) -> Operand:
        """The next input of the method."""
        self._inputs.append(self._new(shape, dtype))
        return self._inputs[-1]

    def constant(self, shape: tuple[int, ...], dtype: str, data: bytes) -> Operand:
        """A tensor that is in the file."""
        return fresh(shape, dtype, constant=self._constants.setdefault(data, len(self._constants) + 1))

    def number(self, number: float, dtype: str) -> Operand:
        """A tensor of no axes."""
        return self.constant((), dtype, np.array(number, dtype).tobytes())

    def _new(self, shape: tuple[int, ...], dtype: str) -> Operand:
        now = len(self._calls)
        self._storages.append(Storage(math.prod(shape) * ITEM_BYTES[dtype], now, now))
        self._sizes.append(math.prod(shape))
        return fresh(shape, dtype, len(self._storages) - 1)

    # --- calls -----------------------------------------------------------------------------------------------------

    def call(self, kernel: OpOverload, arguments: Sequence[Any], results: Sequence[Operand]) -> list[Operand]:
        """Call ``kernel`` with operands, lists and plain values; ``results`` tell shapes and dtypes."""
        given = self._spread(kernel, list(arguments), results[0])
        shapes = [operand.shape for operand in results]
        if kernel in ELEMENTWISE and given[1] is not None:
            given, narrow = self._in_rows(given, results[0])
            results = [narrow]
        real = [self._real_argument(argument) for argument in given]
        types = [str(argument.type) for argument in kernel._schema.arguments]
        real = [Optionals(a) if t == OPTIONAL_LIST and a is not None else a for a, t in zip(real, types, strict=False)]
        now = len(self._calls)
        for operand in _operands(real):
            if not operand.constant:
                self._storages[operand.storage].last = now
        made = [self._new(each.shape, each.dtype) for each in results]
        if outputs_of(kernel) == 1:
            outs: Any = made[0] if len(made) == 1 else made
            self._calls.append((kernel, [*real, outs, outs]))
        else:
            self._calls.append((kernel, [*real, *made, made]))
        return [fresh(shape, each.dtype, each.storage) for shape, each in zip(shapes, made, strict=True)]

    def _spread(self, kernel: OpOverload, arguments: list[Any], out: Operand) -> list[Any]:
        """Repeat what is smaller than the result, where the kernel's own way to do so is slow."""
        if kernel not in ELEMENTWISE or out.size < LARGE:
            return arguments
        scalars = kernel is not ATEN.where.self_out  # a single number is fast everywhere else

        def spread(argument: Any) -> Any:
            if not isinstance(argument, Operand) or argument.shape == out.shape or (scalars and argument.size == 1):
                return argument
            return argument if scalars and _is_column(argument, out) else expanded(argument, out.shape)

        return [spread(argument) for argument in arguments]

    def _in_rows(self, arguments: list[Any], out: Operand) -> tuple[list[Any], Operand]:
        """[A, 1] against [A, B] is fast; with more axes it is not."""
        columns = [a for a in arguments if isinstance(a, Operand) and a.shape != out.shape and a.size > 1]
        if out.size < LARGE or len(columns) != 1 or not _is_column(columns[0], out):
            return arguments, out
        rows = columns[0].size
        shape = (rows, out.size // rows)

        def turn(argument: Any) -> Any:
            if not isinstance(argument, Operand) or argument.size == 1:
                return argument
            wanted = (rows, 1) if argument is columns[0] else shape
            return reshaped(self.real(argument), wanted)

        return [turn(argument) for argument in arguments], fresh(shape, out.dtype)

    def _real_argument(self, argument: Any) -> Any:
        if isinstance(argument, Operand):
            return self.real(argument)
        if isinstance(argument, list):
            return [self._real_argument(item) for item in argument]
        return argument

    def real(self, operand: Operand) -> Operand:
        """The operand as memory that a kernel can read: itself if it is contiguous, else a copy."""
        if operand.contiguous:
            return operand
        if operand not in self._made:
            self._made[operand] = self._copied(operand)
        return self._made[operand]

    def _copied(self, operand: Operand) -> Operand:
        small = merged(operand)
        target = fresh(operand.shape, operand.dtype)
        turned = self._turned(operand, small)
        if turned is not None:
            return replace(turned, shape=target.shape, strides=target.strides)
        if not small.shape:  # one number
            small = replace(small, shape=(1,), strides=(1,))
        whole = self._whole(operand)
        arguments = [whole, list(small.shape), list(small.strides), operand.offset]
        copy = self.call(ATEN.as_strided_copy.out, arguments, [fresh(small.shape, operand.dtype)])[0]
        return replace(copy, shape=target.shape, strides=target.strides)

    def _turned(self, operand: Operand, small: Operand) -> Operand | None:
        """The copy of a plain transpose of matrices, whose own kernel is the faster one."""
        if operand.constant or len(small.shape) not in (2, 3):
            return None
        batch = small.shape[0] if len(small.shape) == 3 else 1
        rows, columns = small.shape[-2:]
        strides = (rows * columns, 1, rows) if len(small.shape) == 3 else (1, rows)
        if small.strides != strides:
            return None
        source = replace(fresh((batch, columns, rows), operand.dtype, operand.storage), offset=operand.offset)
        out = fresh((batch, rows, columns), operand.dtype)
        return self.call(ATEN.transpose_copy.int_out, [source, 1, 2], [out])[0]

    def _whole(self, operand: Operand) -> Operand:
        """All of the memory behind a view."""
        if not operand.constant:
            return fresh((self._sizes[operand.storage],), operand.dtype, operand.storage)
        size = 1 + operand.offset + sum((n - 1) * s for n, s in zip(operand.shape, operand.strides, strict=True))
        return fresh((size,), operand.dtype, constant=operand.constant)

    # --- the plan ----------------------------------------------------------------------------------------------------

    def plan(self, name: str, outputs: Sequence[Operand]) -> flat.Plan:
        """Lay out the memory and write everything down; the results are in memory of their own."""
        results = self._results(outputs)
        plan = flat.Plan(name)
        self._borrowed = self._borrowable()
        plan.arena_bytes = arena.plan([s for i, s in enumerate(self._storages) if i not in self._borrowed])
        places: dict[Any, int] = {}

        def place(item: Any) -> int:
            value = self._value(item, place)
            # Nothing but their storage tells two borrowed inputs of one shape apart.
            key = (type(value), repr(value), item.storage if isinstance(item, Operand) and self._lent(item) else None)
            if key not in places:
                places[key] = len(plan.values)
                plan.values.append(value)
            return places[key]

        plan.inputs = [place(operand) for operand in self._inputs]
        operators: dict[tuple[str, str], int] = {}
        for kernel, arguments in self._calls:
            number = operators.setdefault((kernel._schema.name, kernel._schema.overload_name), len(operators))
            plan.calls.append(flat.Call(number, [place(item) for item in arguments]))
        plan.operators = list(operators)
        plan.outputs = [place(operand) for operand in results]
        return plan

    def _borrowable(self) -> set[int]:
        """The storages of inputs that are only read whole: the caller's memory serves, and nothing is copied."""
        whole = {operand.storage: operand for operand in self._inputs}
        used = [operand for _, arguments in self._calls for operand in _operands(arguments)]
        return whole.keys() - {each.storage for each in used if each.storage in whole and each != whole[each.storage]}

    def _lent(self, operand: Operand) -> bool:
        return not operand.constant and operand.storage in self._borrowed

    def _results(self, outputs: Sequence[Operand]) -> list[Operand]:
        """The results, none of them in the memory of another or of an input: a caller may read them at leisure."""
        taken = {operand.storage for operand in self._inputs}
        found = []
        for output in outputs:
            operand = self.real(output)
            if operand.constant or operand.storage in taken or operand.size != self._sizes[operand.storage]:
                operand = self.call(ATEN.cat.out, [[operand], 0], [operand])[0]
            taken.add(operand.storage)
            found.append(operand)
        for operand in found:
            self._storages[operand.storage].last = len(self._calls)
        return found

    def _value(self, item: Any, place: Any) -> flat.Value:
        if isinstance(item, Operand):
            if self._lent(item):
                return flat.TensorValue(item.shape, item.dtype, None)
            begin = 0 if item.constant else self._storages[item.storage].offset
            return flat.TensorValue(item.shape, item.dtype, begin + item.offset * ITEM_BYTES[item.dtype], item.constant)
        if not isinstance(item, list):
            value: flat.Value = item
            return value
        if any(isinstance(each, Operand) for each in item):
            kind = flat.OPTIONAL_TENSORS if isinstance(item, Optionals) else flat.TENSOR_LIST
            return flat.ListValue(kind, tuple(-1 if each is None else place(each) for each in item))
        if item and all(isinstance(each, bool) for each in item):
            return flat.ListValue(flat.BOOL_LIST, tuple(item))
        return flat.ListValue(flat.INT_LIST, tuple(place(each) for each in item))


def _operands(arguments: Sequence[Any]) -> Iterator[Operand]:
    for argument in arguments:
        if isinstance(argument, Operand):
            yield argument
        elif isinstance(argument, list):
            yield from _operands(argument)


def _is_column(operand: Operand, out: Operand) -> bool:
    """Whether its shape is the first axes of the result's, then ones."""
    shape = (1,) * (len(out.shape) - len(operand.shape)) + operand.shape
    length = next((i for i, (mine, its) in enumerate(zip(shape, out.shape, strict=True)) if mine != its), len(shape))
    return operand.size > 1 and math.prod(shape[length:]) == 1
