"""What stands in a .tflite of ours: inputs, outputs, operators. Needs the packages of the build environment."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: int8, real value = scale * (integer - zero_point)."""

    name: str  # "x", or the task
    shape: tuple[int, ...]  # with the batch of 1
    scale: float
    zero_point: int


def tensors_of(model: bytes) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs in the order in which an interpreter numbers them."""
    tables = _model(model)
    graph, signature = tables.subgraphs[0], tables.signatureDefs[0]
    return _specs(graph, graph.inputs, signature.inputs), _specs(graph, graph.outputs, signature.outputs)


def operators_of(model: bytes) -> dict[str, int]:
    """How often each operator is used, by its name in the schema, in the order of the alphabet."""
    tables = _model(model)
    names = {number: name for name, number in vars(_schema().BuiltinOperator).items() if isinstance(number, int)}
    codes = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in tables.operatorCodes]
    counts = Counter(codes[operator.opcodeIndex] for graph in tables.subgraphs for operator in graph.operators)
    return dict(sorted(counts.items()))


def _specs(graph: Any, order: Sequence[int], maps: Sequence[Any]) -> list[TensorSpec]:
    names = {entry.tensorIndex: entry.name.decode() for entry in maps}
    found = []
    for index in order:
        tensor = graph.tensors[index]
        shape = tuple(int(size) for size in tensor.shape)
        scale, zero = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
        found.append(TensorSpec(names[index], shape, scale, zero))
    return found


def _schema() -> Any:
    return importlib.import_module("ai_edge_litert.schema_py_generated")


def _model(data: bytes) -> Any:
    return _schema().ModelT.InitFromPackedBuf(data, 0)
