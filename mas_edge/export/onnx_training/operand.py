"""What converters take and give: tensors of the graph with known shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

TYPES = {
    "float32": onnx.TensorProto.FLOAT, "float64": onnx.TensorProto.DOUBLE, "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32, "uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8,
    "bool": onnx.TensorProto.BOOL,
}  # fmt: skip


@dataclass(frozen=True)
class Operand:
    """A tensor of the graph."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


# Called with the writer, what PyTorch says of the result (an operand without a name, or a list of them), and every
# argument of the operator's schema in order, tensors as operands. Returns the result; None where nobody asks for one.
Converter = Callable[..., "Operand | Sequence[Operand | None]"]
