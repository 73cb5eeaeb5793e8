"""Small .tflite files made table by table, for tests to break. Needs the schema that comes with ai-edge-litert."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

ADD, FLOAT32, INT8 = 0, 0, 9
Change = Callable[[Any, Any], None]  # of the schema and the model


def schema() -> Any:
    return importlib.import_module("ai_edge_litert.schema_py_generated")


def packed(change: Change = lambda _schema, _model: None, signature: str = "infer") -> bytes:
    """A model of one signature: sum = x + [10, 20], changed by ``change`` before it is packed."""
    tables = schema()
    model = tables.ModelT()
    model.version = 3
    model.buffers = [tables.BufferT(), tables.BufferT()]
    model.buffers[1].data = np.array([10, 20], np.float32).view(np.uint8)
    code = tables.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = ADD, ADD, 1
    model.operatorCodes = [code]
    graph = tables.SubGraphT()
    graph.tensors = [tensor(name, [1, 2], buffer) for name, buffer in (("x", 0), ("c", 1), ("sum", 0))]
    graph.inputs, graph.outputs = [0], [2]
    operator = tables.OperatorT()
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = tables.BuiltinOptions.AddOptions, tables.AddOptionsT()
    graph.operators = [operator]
    model.subgraphs = [graph]
    method = tables.SignatureDefT()
    method.signatureKey, method.inputs, method.outputs = signature, [_entry("x", 0)], [_entry("sum", 2)]
    model.signatureDefs = [method]
    change(tables, model)
    builder = importlib.import_module("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tensor(name: str, shape: list[int], buffer: int) -> Any:
    made = schema().TensorT()
    made.name, made.shape, made.buffer, made.type = name, shape, buffer, FLOAT32
    return made


def _entry(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def in_integers(tables: Any, model: Any) -> None:
    """The same sum in int8: 0.5 a step for ``x``, 1 for what comes out."""
    model.buffers[1].data = np.array([10, 20], np.int8).view(np.uint8)
    for made, scale in zip(model.subgraphs[0].tensors, (0.5, 1.0, 1.0), strict=True):
        made.type, made.quantization = INT8, tables.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [0]
