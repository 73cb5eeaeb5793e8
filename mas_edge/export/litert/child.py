"""``python -m mas_edge.export.litert.child FOLDER``: run LiteRT's converter and its quantizer on a prepared folder.

Started by ``mas_edge.export.litert.conversion``, which says what the folder holds. Imports the packages of the build
environment; nothing else here does.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.child import end_with_parent
from mas_edge.export.litert.flatbuffer import Names, finished


def main(room: Path) -> int:
    """Convert what lies in ``room``; the exit status."""
    end_with_parent()
    torch.set_num_threads(1)
    try:
        tables = json.loads((room / "signatures.json").read_text())
        names = {table["name"]: Names(table["inputs"], table["outputs"]) for table in tables}
        raw = _converted(room, list(names))
        (room / "model.tflite").write_bytes(finished(raw, names))
        if (room / "samples.npy").exists():
            integers = (room / "integers").read_text() == "True"
            quantized = _quantized(raw, np.load(room / "samples.npy"), integers=integers)
            (room / "int8.tflite").write_bytes(finished(quantized, names))
    except Exception as error:  # whatever the converter raises; the parent makes an error of ours from it
        (room / "error").write_text(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        return 1
    return 0


def _converted(room: Path, names: list[str]) -> bytes:
    converter: Any = importlib.import_module("litert_torch")
    for name in names:
        program = torch.export.load(room / f"{name}.pt2")
        examples = program.example_inputs[0] if program.example_inputs else ()
        converter = converter.signature(name, program.module(), examples)
    # 64-bit integers stay: targets are int64 in every program, and class indices are never computed with otherwise
    data: bytes = converter.convert(enable_x64=True).model_content()
    return data


def _quantized(data: bytes, samples: NDArray[np.float32], *, integers: bool) -> bytes:
    """The model in int8, by the smallest and the largest value that each of its tensors took on ``samples``.

    Not the quantizer's own calibration: its moving average of ranges cuts off what single samples reach, which made
    20 % (relative L2) of an error of 3 %.
    """
    quantizer: Any = importlib.import_module("ai_edge_quantizer.quantizer")
    calibrator: Any = importlib.import_module("ai_edge_quantizer.calibrator")
    recipe: Any = importlib.import_module("ai_edge_quantizer.recipe")
    statistics: Any = importlib.import_module("ai_edge_quantizer.utils.qsv_utils")
    work = quantizer.Quantizer(bytearray(data))
    work.load_quantization_recipe(recipe.static_wi8_ai8())
    if not integers:
        operations: Any = importlib.import_module("ai_edge_quantizer.qtyping").TFLOperationName
        for end in (operations.INPUT, operations.OUTPUT):
            work.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    ranges = calibrator.Calibrator(data, num_threads=1, qsv_update_func=statistics.min_max_update)
    ranges.calibrate({"infer": [{"args_0": sample[np.newaxis]} for sample in samples]}, work._recipe_manager)
    done = work.quantize(ranges.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False)
    return bytes(done.quantized_model)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
