"""Training programs for LiteRT: experimental, as LiteRT's converter was made for inference.

Every method becomes a signature of one .tflite. Its graph is rewritten in operators that the converter accepts and the
runtime computes correctly (``definitions``); nothing leaves before ``mas_edge.export.verify`` has held it to eager.
Only operators that ``tflite-runtime`` 2.14 knows as well, which devices may have instead of ``ai-edge-litert``.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor, fx, nn

from device_runtime.engines.torch_engine import DTYPES
from mas_edge.export.functional import RANDOM, functional
from mas_edge.export.litert.conversion import Signature, convert, require_converter
from mas_edge.export.litert.definitions import DEFINITIONS
from mas_edge.export.litert.scaling import scale_before_expanding
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Constant, Method, Program, Value, graph_output


def emit(program: Program) -> Program:
    """Return ``program`` for the engine litert: one .tflite with a signature for each method. Experimental.

    Tensors are named as declared, outputs ``out.<name>``. Converting takes about a tenth of a second an operator.

    Raises:
        JobError: an operator has no counterpart; the message names it.
        ServerError: the packages of the LiteRT build environment are not installed.
    """
    require_converter()
    signatures = [_signature(method, name, program.group) for name, method in program.methods.items()]
    converted = convert(signatures, f"program {program.group!r} (training on LiteRT is experimental)")
    bare = {
        name: msgspec.structs.replace(method, results=[], nodes=[], constants=[])
        for name, method in program.methods.items()
    }
    return msgspec.structs.replace(program, engine="litert", methods=bare, file=converted.data)


def _signature(method: Method, name: str, group: str) -> Signature:
    graph = functional(method, f"method {name!r} of program {group!r}", (), DEFINITIONS)
    _refuse_random(graph)
    scale_before_expanding(graph)
    constants = [_tensor(constant) for constant in method.constants] + _taken_out(graph)
    return Signature(
        name,
        _Step(graph, constants).eval(),
        tuple(map(_example, method.inputs)),
        [value.name for value in method.inputs],
        [graph_output(value.name) for value in method.outputs],
    )


def _taken_out(graph: fx.Graph) -> list[Tensor]:
    """The numbers that definitions made into tensors; in the graph they become arguments behind the others.

    ``torch.export`` loses track of them where they are.
    """
    taken = []
    last = graph.find_nodes(op="placeholder")[-1]
    for node in graph.find_nodes(op="get_attr"):
        taken.append(getattr(graph.owning_module, str(node.target)))
        with graph.inserting_after(last):
            last = graph.placeholder(f"taken_{len(taken)}")
        node.replace_all_uses_with(last)
        graph.erase_node(node)
    return taken


def _refuse_random(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if str(node.target) in RANDOM:
            module = node.meta["module"]
            where = f"module {module!r} of the network" if module else "the network, a loss or a metric"
            message = (
                f"{where} uses {node.target}, which cannot train on LiteRT: dropout and noise are drawn anew in every "
                "step; set the rate to 0, or train with torch"
            )
            raise JobError(message)


class _Step(nn.Module):
    """A method's graph with its constants as buffers, so that only the inputs are arguments."""

    def __init__(self, graph: fx.Graph, constants: list[Tensor]) -> None:
        super().__init__()
        self.graph = fx.GraphModule({}, graph)
        for i, constant in enumerate(constants):
            self.register_buffer(f"constant_{i}", constant)

    def forward(self, *inputs: Tensor) -> Any:
        """The method's results in order."""
        return tuple(self.graph(*inputs, *self.buffers(recurse=False)))


def _tensor(constant: Constant) -> Tensor:
    return torch.frombuffer(bytearray(constant.data), dtype=DTYPES[constant.dtype]).reshape(constant.shape)


def _example(value: Value) -> Tensor:
    return torch.zeros(value.shape, dtype=DTYPES[value.dtype])
