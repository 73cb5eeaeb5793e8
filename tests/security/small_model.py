"""A model of one matrix a task, written by hand: an exporter takes the best part of a minute on a busy machine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from device_runtime.deployed import OUTPUT_PREFIX
from device_runtime.inference import INPUT
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import Entry, Layout, pack
from tests.device_runtime.tiny_job import TASKS

SHAPE = (2, 3)  # of a sample of tiny_data
OUTPUTS, SAMPLES = 2, 4
FLOAT = onnx.TensorProto.FLOAT


class Made(NamedTuple):
    """A model and its golden samples."""

    model: bytes
    golden: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.model)


def small_model(seed: int, padding: int = 0) -> Made:
    """The same for the same seed; ``padding``: bytes that only make the file larger."""
    rng = np.random.default_rng(seed)
    matrices = {task: rng.standard_normal((6, OUTPUTS)).astype(np.float32) for task in TASKS}
    nodes = [helper.make_node("Flatten", [INPUT], ["flat"])]
    nodes += [helper.make_node("MatMul", ["flat", f"w.{task}"], [task]) for task in TASKS]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(INPUT, FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info(task, FLOAT, ["n", OUTPUTS]) for task in TASKS],
        [numpy_helper.from_array(matrix, f"w.{task}") for task, matrix in matrices.items()],
        doc_string="x" * padding,
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = rng.standard_normal((SAMPLES, *SHAPE)).astype(np.float32)
    tensors = {INPUT: x, **{OUTPUT_PREFIX + task: x.reshape(SAMPLES, -1) @ w for task, w in matrices.items()}}
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
    return Made(made.SerializeToString(), pack(layout, np.concatenate([each.reshape(-1) for each in tensors.values()])))
