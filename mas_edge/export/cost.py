"""How much one run of a traced method computes: its multiply-accumulates, counted from the graph.

Matrix products and convolutions with their gradients are counted, by the formulas of ``torch.utils.flop_counter`` (two
operations a multiply-accumulate); what works number by number, norms and the optimiser's update are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from torch import fx
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from mas_edge.protocol.program import Program


def multiply_accumulates(graph: fx.Graph) -> int:
    """Those of one run of ``graph``, whose nodes carry their fake tensors in ``meta["val"]``; a whole batch."""
    return sum(_operations(node) for node in graph.nodes if node.op == "call_function") // 2


def _operations(node: fx.Node) -> int:
    packet = node.target.overloadpacket if isinstance(node.target, OpOverload) else None
    count: Callable[..., int] | None = flop_registry.get(packet)
    if count is None:
        return 0
    args: Any = fx.map_arg(node.args, lambda arg: arg.meta["val"])
    kwargs: Any = fx.map_arg(node.kwargs, lambda arg: arg.meta["val"])
    return count(*args, **kwargs, out_val=node.meta["val"])


def with_costs(emitted: Program, traced: Program) -> Program:
    """``emitted`` with what ``traced`` says its methods cost: an engine's own format need not know it."""
    methods = {
        name: msgspec.structs.replace(
            method,
            memory_bytes=traced.methods[name].memory_bytes,
            multiply_accumulates=traced.methods[name].multiply_accumulates,
        )
        for name, method in emitted.methods.items()
    }
    return msgspec.structs.replace(emitted, methods=methods)
