"""From a traced program to one .pte: each method's calls, one after the other, as ExecuTorch's kernel calls.

No delegate, no constant weights: weights are inputs, so one file serves every round, and a kernel reads a parameter
where it lies in the flat vector. A value that is only another view of memory costs nothing until a kernel needs it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload

from mas_edge.export.executorch import flat, kernels, views
from mas_edge.export.executorch.builder import LARGE, Builder
from mas_edge.export.executorch.operand import ITEM_BYTES, Operand, cut, expanded, fresh, reshaped
from mas_edge.export.functional import RANDOM, arguments_of, functional, where
from mas_edge.export.lowering import convolution, indexing, norms, pointwise, pooling, resampling
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Method, Program

ATEN = torch.ops.aten
ROOMS = (convolution, indexing, norms, pointwise, pooling, resampling)
DEFINITIONS = {op: definition for room in ROOMS for op, definition in room.DEFINITIONS.items()}
INSTEAD = {
    **dict.fromkeys(RANDOM, "dropout and noise are drawn anew in every step; set the rate to 0, or train with torch"),
    "aten.sort.default": "use max, amax or topk of fixed size computed before training",
    "aten.nonzero.default": "use torch.where(condition, a, b): the size of the result must be known before it runs",
    "aten._local_scalar_dense.default": "do not branch on a tensor's value",
}
DEFAULT = "write that part with other operators, or let its devices train with engine torch or onnxruntime"


def emit(program: Program) -> Program:
    """Return ``program`` for the engine executorch: all methods in one .pte, nothing else changed.

    Raises:
        JobError: an operator has no kernel; the message names it, its module, and what to use instead.
    """
    constants: dict[bytes, int] = {}
    plans = [_emit_method(name, method, program.group, constants) for name, method in program.methods.items()]
    bare = {name: Method(method.inputs, method.outputs, [], []) for name, method in program.methods.items()}
    return msgspec.structs.replace(
        program, engine="executorch", methods=bare, file=flat.write(plans, list(constants))
    )  # fmt: skip


def _emit_method(name: str, method: Method, group: str, constants: dict[bytes, int]) -> flat.Plan:
    graph = functional(method, f"method {name!r} of program {group!r}", _kept(), DEFINITIONS)
    builder = Builder(constants)
    given = [builder.input(tuple(value.shape), value.dtype) for value in method.inputs]
    given += [builder.constant(tuple(each.shape), each.dtype, each.data) for each in method.constants]
    values: dict[fx.Node, Any] = dict(zip(graph.find_nodes(op="placeholder"), given, strict=True))
    for node in graph.nodes:
        if node.op == "get_attr":  # a matrix or a number of a definition
            tensor: Tensor = getattr(graph.owning_module, str(node.target))
            array = np.ascontiguousarray(tensor.numpy())
            values[node] = builder.constant(tuple(tensor.shape), array.dtype.name, array.tobytes())
        elif node.op == "call_function":
            values[node] = _emit_node(builder, node, values)
    results: Sequence[fx.Node] = graph.output_node().args[0]  # type: ignore[assignment]
    return builder.plan(name, [values[result] for result in results])


@cache
def _kept() -> frozenset[str]:
    """The operators that need no simpler definition."""
    known = views.VIEWS.keys() | views.RESHAPES | CONVERTERS.keys()
    return frozenset(str(op) for op in core_aten_decompositions() if op in known or kernels.kernel_of(op) is not None)


def _emit_node(b: Builder, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        source, place = node.args
        return values[source][place]  # type: ignore[index]
    target: OpOverload = node.target  # type: ignore[assignment]
    results = _described(node)
    arguments = arguments_of(node, values)
    if target in views.RESHAPES:
        return reshaped(arguments[0], results[0].shape) or reshaped(b.real(arguments[0]), results[0].shape)
    if target in views.VIEWS:
        positional = [values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args]
        return views.VIEWS[target](positional[0], [each.shape for each in results], *positional[1:], **node.kwargs)
    if target in CONVERTERS:
        return CONVERTERS[target](b, results[0], *arguments)
    kernel = kernels.kernel_of(target)
    if kernel is None:
        reason = INSTEAD.get(str(target), DEFAULT)
        message = f"{where(node)} uses {target}, which cannot train on ExecuTorch: {reason}"
        raise JobError(message)
    made = b.call(kernel, _for_kernel(b, kernel, target, arguments), results)
    return made if isinstance(node.meta["val"], (list, tuple)) else made[0]


def _for_kernel(b: Builder, kernel: OpOverload, target: OpOverload, arguments: list[Any]) -> list[Any]:
    """The arguments that the out variant has, numbers as tensors where it wants those."""
    named = dict(zip((argument.name for argument in target._schema.arguments), arguments, strict=True))
    tensors = [item for item in arguments if isinstance(item, Operand)]
    found = []
    for argument in kernel._schema.arguments:
        if argument.is_out:
            continue
        value = named.get(argument.name, argument.default_value)
        if isinstance(value, (torch.memory_format, torch.layout, torch.device, torch.dtype)):
            value = None  # the result says it
        if isinstance(value, (int, float)) and str(argument.type) == "Tensor":
            # In the type of its neighbour: kernels are fast where the types agree.
            value = b.number(value, "float32" if isinstance(value, float) else tensors[0].dtype)
        found.append(value)
    return found


def _described(node: fx.Node) -> list[Operand]:
    """Shape and dtype of what a node gives, as operands without memory."""
    value = node.meta["val"]
    found = []
    for tensor in value if isinstance(value, (list, tuple)) else [value]:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in ITEM_BYTES:
            message = f"{where(node)} computes in {dtype}; on ExecuTorch: {', '.join(ITEM_BYTES)}"
            raise JobError(message)
        found.append(fresh(tuple(tensor.shape), dtype))
    return found


def _as_strided(
    b: Builder, out: Operand, x: Operand, size: Sequence[int], stride: Sequence[int], offset: Any
) -> Operand:
    """Any view of contiguous memory."""
    base = b.real(x)
    return Operand(tuple(size), out.dtype, tuple(stride), base.storage, base.constant, base.offset + int(offset or 0))


def _relu_backward(b: Builder, out: Operand, grad: Operand, x: Operand, threshold: float) -> Operand:
    """The gradient where ``x`` is above the threshold, as a product: 0.7 ms where ``where`` with a number took 6.4."""
    above = b.call(ATEN.gt.Scalar_out, [x, threshold], [out])[0]  # true is 1.0: a comparison takes any type of result
    return b.call(ATEN.mul.out, [grad, above], [out])[0]


def _pad(b: Builder, out: Operand, x: Operand, pads: Sequence[int], value: float = 0) -> Operand:
    """Padding, or cutting where a number is negative, which the kernel does not do."""
    for back in range(len(pads) // 2):
        axis = len(x.shape) - 1 - back
        first, last = max(-pads[2 * back], 0), max(-pads[2 * back + 1], 0)
        x = cut(x, axis, first, x.shape[axis] - first - last)
    around = [max(number, 0) for number in pads]
    return b.call(ATEN.constant_pad_nd.out, [x, around, value], [out])[0] if any(around) else x


def _zeros(b: Builder, out: Operand, *_: object) -> Operand:
    """Memory that nobody reads before it is written."""
    return expanded(b.number(0, out.dtype), out.shape)


def _copy(b: Builder, out: Operand, _target: Operand, source: Operand, _non_blocking: object) -> Operand:
    """The source's numbers in the target's shape and type."""
    if source.dtype != out.dtype:
        source = b.call(ATEN._to_copy.out, [source, False, None], [fresh(source.shape, out.dtype)])[0]
    return expanded(source, out.shape)


def _sum(b: Builder, out: Operand, x: Operand, axes: Sequence[int] | None, keepdim: bool, _dtype: object) -> Operand:
    """A sum of many numbers in two steps: the kernel adds one after the other, and rounding grows with their number."""
    rank = len(x.shape)
    over = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    count = math.prod(x.shape[axis] for axis in over)
    inner = next((n for n in range(math.isqrt(count), 1, -1) if count % n == 0), 1)
    if over != list(range(rank - len(over), rank)) or count < LARGE or inner == 1 or x.dtype != out.dtype:
        return b.call(ATEN.sum.IntList_out, [x, over, keepdim, None], [out])[0]
    rows = math.prod(out.shape)
    parts = reshaped(b.real(x), (rows, count // inner, inner))
    partial = b.call(ATEN.sum.IntList_out, [parts, [2], False, None], [fresh((rows, count // inner), out.dtype)])[0]
    total = b.call(ATEN.sum.IntList_out, [partial, [1], False, None], [fresh((rows,), out.dtype)])[0]
    return replace(total, shape=out.shape, strides=out.strides)


CONVERTERS: dict[OpOverload, Callable[..., Operand]] = {
    ATEN.as_strided.default: _as_strided, ATEN.threshold_backward.default: _relu_backward,
    ATEN.constant_pad_nd.default: _pad, ATEN.empty_permuted.default: _zeros, ATEN.empty.memory_format: _zeros,
    ATEN.empty_like.default: _zeros, ATEN.new_empty.default: _zeros,
    ATEN.new_empty_strided.default: _zeros, ATEN.copy.default: _copy, ATEN.sum.dim_IntList: _sum,
}  # fmt: skip
