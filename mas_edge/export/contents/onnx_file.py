"""An ONNX model; needs the ``onnx`` package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from mas_edge.export.contents.listing import Contents, MethodContents, Tensor
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError, ServerError


def read_onnx(data: bytes) -> Contents:
    """What is in it; data in files of its own is not looked for.

    Raises:
        ProgramError: it is no ONNX model, or damaged.
        ServerError: ``onnx`` is not installed.
    """
    try:
        import onnx
    except ImportError:
        message = f"looking into ONNX needs onnx: pip install 'mas-edge[server]' (sha256 {digest_of(data)})"
        raise ServerError(message) from None
    try:
        model = onnx.load_model_from_string(data)
        names = dict(onnx.TensorProto.DataType.items())
    except Exception as error:  # protobuf's errors differ by its implementation
        message = f"is no ONNX model, or a damaged one: {str(error).partition(chr(10))[0]}"
        raise ProgramError(message) from None
    graph = model.graph
    if not graph.node or not graph.output:
        message = "is no ONNX model, or a truncated one: it holds no graph"
        raise ProgramError(message)
    types = {number: name.lower().replace("float", "float32") if name == "FLOAT" else name.lower()
             for name, number in names.items()}  # fmt: skip
    operators = Counter(_names(graph.node))
    constants = [*graph.initializer, *(a.t for node in _nodes(graph.node) for a in node.attribute if a.HasField("t"))]
    held = {tensor.name for tensor in graph.initializer}
    return Contents(
        kind="ONNX model",
        engine="onnxruntime",
        size=len(data),
        sha256=digest_of(data),
        facts={"opset": ", ".join(f"{o.domain or 'onnx'} {o.version}" for o in model.opset_import),
               "producer": f"{model.producer_name} {model.producer_version}".strip() or "not said"},
        methods=[
            MethodContents(
                name=graph.name or "graph",
                inputs=[_tensor(value, types) for value in graph.input if value.name not in held],
                outputs=[_tensor(value, types) for value in graph.output],
                operators=dict(operators.most_common()),
                constants_bytes=sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in constants),
            )
        ],
    )  # fmt: skip


def _nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """The nodes of a graph and of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)


def _names(nodes: Iterable[Any]) -> Iterator[str]:
    for node in _nodes(nodes):
        yield f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _tensor(value: Any, types: dict[int, str]) -> Tensor:
    kind = value.type.tensor_type
    shape = [size.dim_param or int(size.dim_value) for size in kind.shape.dim]
    return Tensor(value.name, types.get(kind.elem_type, "?"), shape)
