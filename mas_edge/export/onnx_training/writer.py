"""An ONNX graph under construction: operands with known shapes, nodes in order, constants kept once.

Every size is static, so each operand knows its shape and dtype and no shape is ever computed on the device. The same
call on the same operands is written once. What no output needs is left out at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mas_edge.export.onnx_training.operand import TYPES, Operand
from mas_edge.protocol.program import Value

OPSET, IR = 18, 9  # understood by every ONNX Runtime since 1.15
COMPARISONS = {"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"}


class Writer:
    """Writes one graph. Methods named after ONNX operators return the operand that the operator gives."""

    def __init__(self, inputs: Sequence[Value]) -> None:
        self.inputs = {value.name: Operand(value.name, tuple(value.shape), value.dtype) for value in inputs}
        self._nodes: list[onnx.NodeProto] = []
        self._written: dict[Any, list[Operand]] = {}
        self._constants: dict[Any, Operand] = {}
        self._tensors: list[onnx.TensorProto] = []
        self._sources: dict[str, Operand] = {}  # of an expanded operand: what it was before
        self._transposes: dict[str, tuple[Operand, tuple[int, ...]]] = {}

    # --- constants -------------------------------------------------------------------------------------------------

    def constant(self, array: NDArray[Any]) -> Operand:
        """A tensor that is part of the graph."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"c{len(self._constants)}"
            self._tensors.append(numpy_helper.from_array(array, name))
            self._constants[key] = Operand(name, array.shape, array.dtype.name)
        return self._constants[key]

    def ints(self, values: Sequence[int]) -> Operand:
        """A vector of int64, as the arguments of shape operators are."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float | int | bool, dtype: str) -> Operand:
        """A 0-dim constant."""
        return self.constant(np.array(value, dtype))

    def full(self, shape: Sequence[int], value: float | int | bool, dtype: str) -> Operand:
        """A tensor of one value; large ones are not stored but expanded."""
        return self.expand(self.scalar(value, dtype), shape)

    # --- nodes -----------------------------------------------------------------------------------------------------

    def call(
        self, op: str, inputs: Sequence[Operand | None], outputs: Sequence[tuple[Sequence[int], str]], **attributes: Any
    ) -> list[Operand]:
        """Write a node with ``outputs`` given as (shape, dtype)."""
        names = [operand.name if operand else "" for operand in inputs]
        key = (op, *names, repr(sorted(attributes.items())), len(outputs))
        if key not in self._written:
            results = [
                Operand(f"v{len(self._nodes)}_{i}", tuple(shape), dtype) for i, (shape, dtype) in enumerate(outputs)
            ]
            self._nodes.append(helper.make_node(op, names, [result.name for result in results], **attributes))
            self._written[key] = results
        return self._written[key]

    def one(
        self, op: str, *inputs: Operand | None, shape: Sequence[int], dtype: str | None = None, **attributes: Any
    ) -> Operand:
        """Write a node with one output; its dtype is the first input's unless ``dtype`` says otherwise."""
        first = next(operand.dtype for operand in inputs if operand)
        return self.call(op, inputs, [(shape, dtype or first)], **attributes)[0]

    def pointwise(self, op: str, *inputs: Operand, dtype: str | None = None) -> Operand:
        """An operator that broadcasts. What was only expanded to fit is taken as it was before."""
        shape = np.broadcast_shapes(*(operand.shape for operand in inputs))
        kept = [self._sources.get(operand.name, operand) for operand in inputs]
        if np.broadcast_shapes(*(operand.shape for operand in kept)) != shape:
            kept = list(inputs)
        known = "bool" if op in COMPARISONS else inputs[-1].dtype
        return self.one(op, *kept, shape=shape, dtype=dtype or known)

    def add(self, a: Operand, b: Operand) -> Operand:
        """a + b."""
        return self.pointwise("Add", a, b)

    def sub(self, a: Operand, b: Operand) -> Operand:
        """a - b."""
        return self.pointwise("Sub", a, b)

    def mul(self, a: Operand, b: Operand) -> Operand:
        """a * b."""
        return self.pointwise("Mul", a, b)

    def div(self, a: Operand, b: Operand) -> Operand:
        """a / b."""
        return self.pointwise("Div", a, b)

    def times(self, a: Operand, factor: float) -> Operand:
        """A operand times a number."""
        return a if factor == 1 else self.mul(a, self.scalar(factor, a.dtype))

    def where(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """A where ``condition`` holds, else b."""
        return self.pointwise("Where", condition, a, b)

    def cast(self, a: Operand, dtype: str) -> Operand:
        """The same values in another dtype."""
        return a if a.dtype == dtype else self.one("Cast", a, shape=a.shape, dtype=dtype, to=TYPES[dtype])

    def matmul(self, a: Operand, b: Operand) -> Operand:
        """The matrix product over the last two axes; the ones before broadcast. Vectors count as in NumPy."""
        if a.rank == b.rank == 1:
            return self.one("MatMul", a, b, shape=())
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return self.one("MatMul", a, b, shape=(*batch, a.shape[-2], b.shape[-1]))

    def reduce(self, op: str, a: Operand, axes: Sequence[int], keep: bool = False) -> Operand:
        """A ``Reduce...`` operator over ``axes``."""
        axes = sorted(axis % a.rank for axis in axes) if a.rank else []
        shape = [1 if axis in axes else size for axis, size in enumerate(a.shape) if keep or axis not in axes]
        if not axes:
            return a
        return self.one(op, a, self.ints(axes), shape=shape, keepdims=int(keep))

    # --- shapes ----------------------------------------------------------------------------------------------------

    def reshape(self, a: Operand, shape: Sequence[int]) -> Operand:
        """The same elements in order under another shape."""
        return a if a.shape == tuple(shape) else self.one("Reshape", a, self.ints(shape), shape=shape)

    def transpose(self, a: Operand, order: Sequence[int]) -> Operand:
        """Axis i of the result is axis ``order[i]`` of ``a``."""
        order = tuple(axis % a.rank for axis in order)
        if a.name in self._transposes:
            a, before = self._transposes[a.name]
            order = tuple(before[axis] for axis in order)
        if order == tuple(range(a.rank)):
            return a
        shape = [a.shape[axis] for axis in order]
        moved = [axis for axis in order if a.shape[axis] != 1]
        if moved == sorted(moved):  # only axes of size 1 move: nothing in memory does
            return self.reshape(a, shape)
        result = self.one("Transpose", a, shape=shape, perm=list(order))
        self._transposes[result.name] = (a, order)
        return result

    def swap(self, a: Operand, start: int, middle: int, stop: int) -> Operand:
        """Axes [start, middle) and [middle, stop) change places.

        A chain of such exchanges is up to eight times faster in ONNX Runtime than one transpose of many axes.
        """
        first, second = a.shape[start:middle], a.shape[middle:stop]
        flat = [math.prod(a.shape[:start]), math.prod(first), math.prod(second), math.prod(a.shape[stop:])]
        moved = self.transpose(self.reshape(a, flat), [0, 2, 1, 3])
        return self.reshape(moved, [*a.shape[:start], *second, *first, *a.shape[stop:]])

    def before_transpose(self, a: Operand) -> Operand | None:
        """What matrix ``a`` is the transpose of, if it was written as one."""
        return self._transposes[a.name][0] if a.rank == 2 and a.name in self._transposes else None

    def expand(self, a: Operand, shape: Sequence[int]) -> Operand:
        """Repeat along axes of size 1, and along new ones in front."""
        if a.shape == tuple(shape):
            return a
        result = self.one("Expand", a, self.ints(shape), shape=shape)
        self._sources[result.name] = self._sources.get(a.name, a)
        return result

    def slice(self, a: Operand, axis: int, start: int, stop: int, step: int = 1) -> Operand:
        """``a[start:stop:step]`` along ``axis``, with 0 <= start <= stop <= size."""
        axis %= a.rank
        if (start, stop, step) == (0, a.shape[axis], 1):
            return a
        shape = [*a.shape[:axis], max(0, -(-(stop - start) // step)), *a.shape[axis + 1 :]]
        ends = map(self.ints, ([start], [stop], [axis], [step]))
        return self.one("Slice", a, *ends, shape=shape)

    def concat(self, parts: Sequence[Operand], axis: int) -> Operand:
        """The parts one after the other along ``axis``."""
        axis %= parts[0].rank
        length = sum(part.shape[axis] for part in parts)
        shape = [*parts[0].shape[:axis], length, *parts[0].shape[axis + 1 :]]
        return parts[0] if len(parts) == 1 else self.one("Concat", *parts, shape=shape, axis=axis)

    def split(self, a: Operand, sizes: Sequence[int], axis: int) -> list[Operand]:
        """Pieces of the given sizes along ``axis``."""
        axis %= a.rank
        shapes = [([*a.shape[:axis], size, *a.shape[axis + 1 :]], a.dtype) for size in sizes]
        return [a] if len(sizes) == 1 else self.call("Split", [a, self.ints(sizes)], shapes, axis=axis)

    def pad(self, a: Operand, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Operand:
        """Add ``value`` around; negative numbers take away instead. One number an axis."""
        if not any(begin) and not any(end):
            return a
        shape = [size + first + last for size, first, last in zip(a.shape, begin, end, strict=True)]
        return self.one("Pad", a, self.ints([*begin, *end]), self.scalar(value, a.dtype), shape=shape)

    # --- the end ---------------------------------------------------------------------------------------------------

    def model(self, outputs: Sequence[tuple[str, Operand]]) -> bytes:
        """The serialised model whose outputs have the given names."""
        for name, operand in outputs:
            self._nodes.append(helper.make_node("Identity", [operand.name], [name]))
        nodes, tensors = self._needed([name for name, _ in outputs])
        inputs = [helper.make_tensor_value_info(o.name, TYPES[o.dtype], o.shape) for o in self.inputs.values()]
        results = [helper.make_tensor_value_info(name, TYPES[o.dtype], o.shape) for name, o in outputs]
        graph = helper.make_graph(nodes, "method", inputs, results, tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="mas-edge")
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _needed(self, names: Sequence[str]) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        alive, nodes = set(names), []
        for node in reversed(self._nodes):
            if alive.intersection(node.output):
                alive.update(node.input)
                nodes.append(node)
        return nodes[::-1], [tensor for tensor in self._tensors if tensor.name in alive]
