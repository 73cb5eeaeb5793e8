from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest

from device_runtime.inference import open_model
from mas_edge.export.inference import export_inference
from mas_edge.export.quantized_onnx import quantized
from mas_edge.protocol.errors import ServerError
from tests.export.small_run import JOB, weights_of

TASKS = ["label", "amount"]
SAMPLES = np.random.default_rng(0).standard_normal((64, *JOB.data.input_shape), np.float32)


@pytest.fixture(scope="module")
def exact() -> bytes:
    return export_inference(JOB, TASKS, weights_of(JOB, TASKS))


def test_an_int8_model_answers_nearly_as_its_float32_one_at_every_batch_size(exact: bytes) -> None:
    small = quantized(exact, SAMPLES)
    for x in (SAMPLES[:1], SAMPLES[:7], SAMPLES):
        expected, got = open_model(exact, TASKS).run(x), open_model(small, TASKS).run(x)
        for task in TASKS:
            assert got[task].shape == expected[task].shape
    for task in TASKS:
        off = float(np.linalg.norm(got[task] - expected[task]) / np.linalg.norm(expected[task]))
        assert 0 < off < 0.15, task  # of numbers near 0: the network is small and has learned nothing


def test_weights_are_stored_in_one_byte_and_by_channel(exact: bytes) -> None:
    model = onnx.load_model_from_string(quantized(exact, SAMPLES))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    kernels = [
        tensor for tensor in held.values() if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 3
    ]
    assert len(kernels) >= 4
    names = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert all(list(held[names[kernel.name]].dims) == [kernel.dims[0]] for kernel in kernels)


def test_the_same_model_and_samples_give_the_same_bytes_and_other_samples_others(exact: bytes) -> None:
    assert quantized(exact, SAMPLES) == quantized(exact, SAMPLES)
    assert quantized(exact, SAMPLES) != quantized(exact, 9 * SAMPLES)


def test_it_is_the_exporters_int8(exact: bytes) -> None:
    made = export_inference(JOB, TASKS, weights_of(JOB, TASKS), "int8", SAMPLES)
    assert made == quantized(exact, SAMPLES)


@pytest.mark.parametrize("samples", [None, SAMPLES[:0]])
def test_int8_without_samples_is_refused(samples: np.ndarray | None) -> None:
    with pytest.raises(ServerError, match="int8 needs samples"):
        export_inference(JOB, TASKS, weights_of(JOB, TASKS), "int8", samples)


def test_what_cannot_be_quantised_ends_in_one_error_and_leaves_the_log_alone() -> None:
    level = logging.getLogger().level
    with pytest.raises(ServerError, match="cannot be written in int8"):
        quantized(b"\x08\x09", SAMPLES)
    assert logging.getLogger().level == level
