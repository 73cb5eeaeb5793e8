"""Opening deployed models: what runs, what is refused, and with which words."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.inference import open_model
from mas_edge.export.inference import export_inference
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.errors import DeviceError, EdgeError, ProgramError
from tests.device_runtime.tiny_job import TASKS, tiny_job

JOB = tiny_job()


@pytest.fixture(scope="module")
def onnx_file() -> bytes:
    return export_inference(JOB, TASKS, vector_of(build(JOB, TASKS)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_model_answers_for_each_task_and_any_number_of_samples(onnx_file: bytes, count: int) -> None:
    model = open_model(onnx_file, TASKS)
    x = np.random.default_rng(0).standard_normal((count, 2, 3), np.float32)
    answers = model.run(x)
    assert model.engine == "onnxruntime"
    assert list(answers) == TASKS
    assert {task: len(answer) for task, answer in answers.items()} == dict.fromkeys(TASKS, count)
    for i in range(count):
        for task, alone in model.run(x[i : i + 1]).items():
            np.testing.assert_allclose(alone[0], answers[task][i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("x", [np.zeros((1, 3, 2), np.float32), np.zeros((1, 2, 3)), np.float32(1)])
def test_samples_of_another_shape_or_dtype_are_refused(onnx_file: bytes, x: np.ndarray) -> None:
    with pytest.raises(DeviceError, match=r"takes float32 samples of shape \[2, 3\], got"):
        open_model(onnx_file, TASKS).run(np.asarray(x))


def test_a_model_of_other_tasks_is_refused(onnx_file: bytes) -> None:
    with pytest.raises(ProgramError, match=r"the model takes .* and gives .*; expected .*depth"):
        open_model(onnx_file, ["depth"])


@pytest.mark.parametrize(
    ("library", "data"), [("onnxruntime", b"\x08\x08"), ("device_runtime.engines.litert_engine", b"    TFL3")]
)
def test_a_device_without_the_engine_is_told_what_to_install(
    onnx_file: bytes, monkeypatch: pytest.MonkeyPatch, library: str, data: bytes
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(DeviceError, match=r"not installed on this device .*pip install 'mas-edge\["):
        open_model(onnx_file if data[:1] == b"\x08" else data, TASKS)


def test_a_model_that_reads_another_file_is_refused(onnx_file: bytes) -> None:
    proto = onnx.load_from_string(onnx_file)
    tensor = proto.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ProgramError, match="keeps tensors in another file"):
        open_model(proto.SerializeToString(), TASKS)


@settings(max_examples=60, deadline=None, derandomize=True)  # the runtime below is native code
@given(st.data())
def test_no_damage_to_a_model_ends_in_anything_but_an_error_of_ours_or_an_answer(
    onnx_file: bytes, data: st.DataObject
) -> None:
    broken = bytearray(onnx_file)
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=4)):
        broken[place] ^= data.draw(st.integers(1, 255))
    try:
        open_model(bytes(broken), TASKS).run(np.zeros((2, 2, 3), np.float32))
    except EdgeError as error:
        assert "\n" not in str(error)
