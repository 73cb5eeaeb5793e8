"""The driver: each method's calls, one after the other, through the table of converters."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx
from torch._ops import OpOverload

from mas_edge.export.functional import RANDOM, arguments_of, functional, where
from mas_edge.export.onnx_training import (
    convolution,
    indexing,
    losses,
    norms,
    pointwise,
    pooling,
    reductions,
    resampling,
    views,
)
from mas_edge.export.onnx_training.operand import TYPES, Converter, Operand
from mas_edge.export.onnx_training.writer import Writer
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Constant, Method, Program, graph_output

ROOMS = (convolution, indexing, losses, norms, pointwise, pooling, reductions, resampling, views)
CONVERTERS: dict[str, Converter] = {name: convert for room in ROOMS for name, convert in room.CONVERTERS.items()}
INSTEAD = {
    **dict.fromkeys(RANDOM, "dropout and noise are drawn anew in every step; set the rate to 0, or train with torch"),
    "aten.as_strided.default": "use reshape, permute, unfold by slices",
    "aten.sort.default": "use max, amax or topk of fixed size computed before training",
    "aten.nonzero.default": "use torch.where(condition, a, b): the size of the result must be known before it runs",
    "aten._local_scalar_dense.default": "do not branch on a tensor's value",
}
DEFAULT = "write that part with other operators, or let its devices train with engine torch"


def emit(program: Program) -> Program:
    """Return ``program`` for the engine onnxruntime: every method an ONNX model of opset 18, nothing else changed.

    Raises:
        JobError: an operator has no counterpart; the message names it, its module, and what to use instead.
    """
    methods = {name: _emit_method(method, name, program.group) for name, method in program.methods.items()}
    return msgspec.structs.replace(program, engine="onnxruntime", methods=methods)


def _emit_method(method: Method, name: str, group: str) -> Method:
    graph = functional(method, f"method {name!r} of program {group!r}", CONVERTERS)
    writer = Writer(method.inputs)
    given = [*writer.inputs.values(), *(writer.constant(_array(constant)) for constant in method.constants)]
    values: dict[fx.Node, Any] = dict(zip(graph.find_nodes(op="placeholder"), given, strict=True))
    for node in graph.nodes:
        if node.op == "get_attr":  # a number that a definition made into a tensor
            values[node] = writer.constant(getattr(graph.owning_module, str(node.target)).numpy())
        elif node.op == "call_function":
            values[node] = _emit_node(writer, node, values)
    results: Sequence[fx.Node] = graph.output_node().args[0]  # type: ignore[assignment]
    named = [(graph_output(value.name), values[result]) for value, result in zip(method.outputs, results, strict=True)]
    return Method(method.inputs, method.outputs, [], [], [], writer.model(named))


def _array(constant: Constant) -> NDArray[Any]:
    return np.frombuffer(constant.data, constant.dtype).reshape(constant.shape)


def _emit_node(w: Writer, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    if node.target is operator.getitem:
        source, place = node.args
        return values[source][place]  # type: ignore[index]
    name = str(node.target)
    if name not in CONVERTERS or not isinstance(node.target, OpOverload):
        message = f"{where(node)} uses {name}, which cannot train on ONNX Runtime: {INSTEAD.get(name, DEFAULT)}"
        raise JobError(message)
    try:
        return CONVERTERS[name](w, _described(node.meta["val"], node), *arguments_of(node, values))
    except JobError as error:
        message = f"{where(node)}: {error}"
        raise JobError(message) from None


def _described(value: Any, node: fx.Node) -> Any:
    """Shape and dtype of what a node gives, as operands without a name."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in TYPES:
            message = f"{where(node)} computes in {dtype}; on ONNX Runtime: {', '.join(TYPES)}"
            raise JobError(message)
        return Operand("", tuple(value.shape), dtype)
    return [_described(item, node) for item in value] if isinstance(value, (list, tuple)) else None
