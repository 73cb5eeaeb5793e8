"""The pass before every emitter: a method's calls without changes in place, with shapes, in an engine's operators.

The nodes are run once more on fake tensors under ``functionalize``: what is changed in place comes out as a new value,
in views too. Operators for which there is no converter are replaced by their definition in terms of simpler ones, where
PyTorch has one (``torch._decomp``, the core ATen set), or by the engine's own definition.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from device_runtime.engines.torch_engine import DTYPES, graph_module
from mas_edge.protocol.program import Constant, Method, Value

ATEN = torch.ops.aten
# Random numbers: definitions would hide what they are behind ``rand``, and the emitter refuses them by their name.
RANDOM = {
    "aten.bernoulli.p", "aten.bernoulli.Tensor", "aten.bernoulli.default", "aten.native_dropout.default",
    "aten.rand_like.default", "aten.randn_like.default", "aten.rrelu_with_noise_functional.default",
}  # fmt: skip


Definitions = Mapping[OpOverload, Callable[..., Any]]


def functional(method: Method, where: str, kept: Collection[str], own: Definitions | None = None) -> fx.Graph:
    """Return ``method`` as a graph of pure operators: those in ``kept`` as they are, those in ``own`` as defined there.

    Its placeholders are the inputs, then the constants: functionalize has to know both, as a clone of a constant may be
    changed in place. ``node.meta["val"]`` holds shapes and dtypes, ``node.meta["module"]`` the module of a call.
    """
    module = graph_module(where, method)
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    for node, call in zip(calls, method.nodes, strict=True):
        node.meta["custom"] = {"module": call.module}  # the one field of its meta that tracing hands on
        if node.target is ATEN.native_batch_norm.default:  # whose schema does not say that it changes its statistics
            named = node.args[3] is not None
            node.target = ATEN._native_batch_norm_legit.default if named else ATEN._native_batch_norm_legit.no_stats
            node.args = node.args if named else (*node.args[:3], *node.args[5:])
    for node in module.graph.find_nodes(op="get_attr"):
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.placeholder(str(node.target)))
        module.graph.erase_node(node)
    values: list[Value | Constant] = [*method.inputs, *method.constants]
    examples = [torch.zeros(value.shape, dtype=DTYPES[value.dtype]) for value in values]

    def run(*arguments: Tensor) -> Any:
        return fx.Interpreter(module).run(*arguments)

    with fx.traceback.preserve_node_meta():
        traced = make_fx(
            functionalize(run), decomposition_table=_definitions(kept, own or {}), tracing_mode="fake",
            _allow_non_fake_inputs=True,
        )(*examples)  # fmt: skip
    graph: fx.Graph = traced.graph
    graph.eliminate_dead_code()
    for node in graph.nodes:
        node.meta["module"] = node.meta.get("custom", {}).get("module", "")
    return graph


def _definitions(kept: Collection[str], own: Definitions) -> dict[OpOverload, Callable[..., Any]]:
    known = core_aten_decompositions()
    return {op: known[op] for op in known if str(op) not in kept and str(op) not in RANDOM} | dict(own)


def arguments_of(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[Any]:
    """Every argument of a call in the order of its schema, those that are not given by their default."""
    target: OpOverload = node.target  # type: ignore[assignment]
    given = dict(zip((argument.name for argument in target._schema.arguments), node.args, strict=False)) | node.kwargs

    def resolve(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return values[argument]
        return [resolve(item) for item in argument] if isinstance(argument, (list, tuple)) else argument

    return [resolve(given.get(argument.name, argument.default_value)) for argument in target._schema.arguments]


def where(node: fx.Node) -> str:
    """The place in the network that a call comes from. Forward passes come first, so that one is named at its own."""
    module = node.meta["module"]
    return f"module {module!r} of the network" if module else "the network, a loss or a metric"
