"""A traced fx graph as a method of a program: cleaned, named, and checked operator by operator."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from device_runtime.engines.torch_engine import DTYPES, MEMORY_FORMATS, find_operator
from mas_edge.export.cost import multiply_accumulates
from mas_edge.export.memory import peak_bytes
from mas_edge.protocol.errors import JobError, ProgramError
from mas_edge.protocol.program import Constant, Method, Node, Value

ATEN = torch.ops.aten
# They return their argument under another name; only autograd, which has run by now, sees a difference.
SAME = {ATEN.detach.default, ATEN.alias.default, ATEN.lift_fresh.default}
RESHAPES = {ATEN.view.default, ATEN.expand.default, ATEN._unsafe_view.default}
# Updates its running statistics in place, which its schema does not say.
SILENT_UPDATES = {ATEN.native_batch_norm.default: (3, 4)}


def method_of(traced: fx.GraphModule, inputs: Sequence[Value], outputs: Sequence[str]) -> Method:
    """Return the method that ``traced`` computes; ``outputs`` names its results.

    Raises:
        JobError: the network changes an input in place, or holds something a program cannot say.
    """
    graph = traced.graph
    _drop_same(graph)
    placeholders = graph.find_nodes(op="placeholder")
    _require_pure(graph, placeholders)
    _drop_dead(graph)
    names = {node: value.name for node, value in zip(placeholders, inputs, strict=True)}
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "get_attr":
            names[node] = constants.setdefault(node.target, _constant(traced, node, f"c{len(constants)}")).name
        elif node.op == "call_function":
            names[node] = f"n{len(nodes)}"
            nodes.append(_node(node, names))
    results: list[fx.Node] = list(graph.output_node().args[0])  # type: ignore[arg-type]
    values = [_value(name, node) for name, node in zip(outputs, results, strict=True)]
    held = list(constants.values())
    return Method(
        list(inputs), values, [names[node] for node in results], nodes, held,
        memory_bytes=peak_bytes(graph), multiply_accumulates=multiply_accumulates(graph),
    )  # fmt: skip


def _drop_same(graph: fx.Graph) -> None:
    """Leave out calls that give their argument back, and a transpose of a transpose."""
    for node in list(graph.nodes):
        same = node.args[0] if node.target in SAME or (node.target in RESHAPES and _is_view_of_all(node)) else None
        if node.target is ATEN.t.default and node.args[0].target is ATEN.t.default:
            same = node.args[0].args[0]
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)


def _is_view_of_all(node: fx.Node) -> bool:
    """The reshape ends in the shape and strides that it began with."""
    old, new = node.args[0].meta["val"], node.meta["val"]  # type: ignore[union-attr]
    return bool(old.shape == new.shape and old.stride() == new.stride())


def _storages(node: fx.Node) -> set[int]:
    """The memory that the result of ``node`` lies in; views and what is changed in place share theirs."""
    value = node.meta.get("val")
    tensors = value if isinstance(value, (list, tuple)) else [value]
    return {tensor.untyped_storage()._cdata for tensor in tensors if isinstance(tensor, Tensor)}


def _changed(node: fx.Node) -> set[int]:
    """The memory that ``node`` writes to beside its result."""
    if not isinstance(node.target, OpOverload):
        return set()
    if node.target in SILENT_UPDATES:
        written = [node.args[i] for i in SILENT_UPDATES[node.target] if node.args[i] is not None]
    else:
        given = dict(zip((arg.name for arg in node.target._schema.arguments), node.args, strict=False)) | node.kwargs
        marked = [a.name for a in node.target._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        written = [given[name] for name in marked if name in given]
    return {place for arg in written if isinstance(arg, fx.Node) for place in _storages(arg)}


def _require_pure(graph: fx.Graph, placeholders: Iterable[fx.Node]) -> None:
    """Weights and samples belong to the caller, who would find them changed."""
    owned = {place for node in placeholders for place in _storages(node)}
    for node in graph.nodes:
        if _changed(node) & owned:
            message = (
                f"{_where(node)} changes its input or its parameters in place ({node.target}), which a program may "
                "not: work on a clone() of them"
            )
            raise JobError(message)


def _drop_dead(graph: fx.Graph) -> None:
    """Remove what no result depends on. A change in place is needed where the memory it changes is."""
    writers: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        for place in _changed(node):
            writers.setdefault(place, []).append(node)
    alive: set[fx.Node] = set()
    waiting = [graph.output_node()]
    while waiting:
        node = waiting.pop()
        if node not in alive:
            alive.add(node)
            waiting += node.all_input_nodes
            waiting += [writer for place in _storages(node) for writer in writers.get(place, [])]
    for node in reversed(graph.nodes):
        if node not in alive and node.op != "placeholder":
            graph.erase_node(node)


def _node(node: fx.Node, names: dict[fx.Node, str]) -> Node:
    def encode(arg: Any) -> Any:
        match arg:
            case fx.Node():
                return {"ref": names[arg]}
            case None | bool() | int() | str():
                return arg
            case float():
                return arg if math.isfinite(arg) else {"float": str(arg)}
            case list() | tuple():
                return [encode(item) for item in arg]
            case torch.dtype():
                return {"dtype": _dtype(arg, node)}
            case torch.memory_format():
                return {"memory_format": next(name for name, known in MEMORY_FORMATS.items() if known == arg)}
            case torch.device():
                return {"device": "any"}
            case torch.layout() if arg == torch.strided:
                return {"layout": "strided"}
        message = f"{_where(node)} needs the argument {arg!r} of {node.target}, which a program cannot hold"
        raise JobError(message)

    args, kwargs = [encode(arg) for arg in node.args], {name: encode(arg) for name, arg in node.kwargs.items()}
    return Node(names[node], _op(node), args, kwargs, node.meta.get("module", ""))


def _op(node: fx.Node) -> str:
    op = "getitem" if node.target is operator.getitem else str(node.target)
    try:
        find_operator(op)
    except ProgramError as error:
        message = f"{_where(node)} uses an operator that devices cannot run: {error}; write it in terms of ATen ones"
        raise JobError(message) from None
    return op


def _where(node: fx.Node) -> str:
    """Forward passes are recorded first, so that an operator is named at its forward pass."""
    module = node.meta.get("module", "")
    return f"module {module!r} of the network" if module else "the network, a loss or a metric"


def _dtype(dtype: torch.dtype, node: fx.Node) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        message = f"{_where(node)} computes in {dtype}; allowed: {', '.join(DTYPES)}"
        raise JobError(message)
    return name


def _constant(traced: fx.GraphModule, node: fx.Node, name: str) -> Constant:
    path: Callable[[Any], Any] = operator.attrgetter(str(node.target))
    tensor = path(traced)
    dtype = _dtype(tensor.dtype, node)
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return Constant(name, list(tensor.shape), dtype, data)


def _value(name: str, node: fx.Node) -> Value:
    value = node.meta["val"]
    return Value(name, list(value.shape), _dtype(value.dtype, node))
