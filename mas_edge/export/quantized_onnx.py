"""Static int8 for ONNX models: weights by channel, activations by tensor, their ranges from real samples.

Written as pairs of QuantizeLinear and DequantizeLinear around each layer (QDQ), which ONNX Runtime fuses into integer
kernels where it has them and computes as written where it has none, so that the file runs everywhere. Only ``onnx`` and
``onnxruntime`` are needed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.export.quiet import quiet
from mas_edge.protocol.errors import ServerError

# Products of many numbers, where int8 saves time and space, and what lies between two of them. Normalisations,
# reductions and activation functions with a curve stay in float32: they cost little, and there a step of 1/255 shows.
LAYERS = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool"]
BATCH = 16  # samples a calibration run; all of one batch's activations are in memory at once


def quantized(model: bytes, samples: NDArray[np.float32], input_name: str = "x") -> bytes:
    """Return the float32 ONNX ``model`` with int8 layers; ``samples`` [n, *input_shape] set the ranges.

    Raises:
        ServerError: a package is missing, or the model cannot be quantised.
    """
    try:
        import onnx
        from onnxruntime.quantization import (  # type: ignore[import-untyped, unused-ignore]
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ImportError as error:
        message = f"int8 for ONNX needs a package that is not here ({error}): pip install 'mas-edge[server]'"
        raise ServerError(message) from None

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        """The calibration samples, a batch at a time."""

        def __init__(self) -> None:
            self._starts = iter(range(0, len(samples), BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            start = next(self._starts, None)
            return None if start is None else {input_name: samples[start : start + BATCH]}

    with tempfile.TemporaryDirectory(prefix="mas-edge-int8-") as folder, quiet():
        written = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                onnx.load_model_from_string(model), written, Samples(), quant_format=QuantFormat.QDQ,
                op_types_to_quantize=LAYERS, per_channel=True, activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )  # fmt: skip
        except Exception as error:  # the quantiser has no error type of its own
            message = f"the model cannot be written in int8: {type(error).__name__}: {error}"
            raise ServerError(message) from None
        return _plain(onnx.load_model(written))


def _plain(model: Any) -> bytes:
    """Without the quantiser's notes: the same model and samples give the same bytes."""
    model.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    data: bytes = model.SerializeToString(deterministic=True)
    return data
