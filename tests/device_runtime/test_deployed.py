from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from device_runtime.data import open_data
from device_runtime.deployed import Bounds, check_health
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.weights import Entry, Layout, pack, unpack
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = tiny_job()
PLENTY_S = 1e6  # no machine is that slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "active.onnx"
    path.write_bytes(export_inference(JOB, TASKS, vector_of(build(JOB, TASKS))))
    return path


@pytest.fixture(scope="module")
def golden() -> bytes:
    return golden_of(JOB, TASKS, vector_of(build(JOB, TASKS)), seed=1)


def repacked(golden: bytes, **changed: np.ndarray | None) -> bytes:
    """The golden file with some of its tensors replaced, added or (None) left out."""
    tensors = {name: changed.get(name, tensor) for name, tensor in {**unpack(golden), **changed}.items()}
    kept = {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items() if tensor is not None}
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in kept.items()])
    return pack(layout, np.concatenate([tensor.ravel() for tensor in kept.values()]))


def one_node(path: Path, operator: str, *, inputs: str = "x", outputs: str = "sign") -> Path:
    """A valid ONNX file of one operator on samples of shape [2, 3]."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, 3]) for name in (inputs, outputs)]
    graph = helper.make_graph([helper.make_node(operator, [inputs], [outputs])], "g", value[:1], value[1:])
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())
    return path


def test_a_model_that_gives_the_golden_outputs_is_healthy(model: Path, golden: bytes) -> None:
    health = check_health(model, golden, Bounds(1e-4, PLENTY_S))
    assert (health.healthy, health.reason) == (True, "")
    assert health.max_difference < 1e-5
    assert health.latency_s > 0


def test_a_healthy_model_has_run_on_every_test_sample_of_the_device(model: Path, golden: bytes, tmp_path: Path) -> None:
    data = tiny_data(tmp_path, train=3, test=21)
    health = check_health(model, golden, Bounds(1e-4, PLENTY_S), data)
    assert (health.healthy, health.samples) == (True, 21)


def test_the_difference_is_measured_against_the_golden_value(model: Path, golden: bytes) -> None:
    outputs = unpack(golden)["out.mean"]
    off = repacked(golden, **{"out.mean": outputs + 0.01 * np.maximum(1, np.abs(outputs))})
    assert check_health(model, off, Bounds(0.011, PLENTY_S)).healthy
    health = check_health(model, off, Bounds(0.009, PLENTY_S))
    assert not health.healthy
    assert health.max_difference == pytest.approx(0.01, rel=0.02)
    assert "differ from the golden ones by 0.01, allowed 0.009" in health.reason


def test_a_model_of_other_weights_is_not_healthy(tmp_path: Path, golden: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(export_inference(JOB, TASKS, vector_of(build(JOB, TASKS, seed=9))))
    assert "differ from the golden ones" in check_health(path, golden, Bounds(1e-3, PLENTY_S)).reason


def test_a_slow_model_is_not_healthy_and_its_latency_is_told(model: Path, golden: bytes) -> None:
    health = check_health(model, golden, Bounds(1e-4, max_latency_s=0.0))
    assert not health.healthy
    assert health.latency_s > 0
    assert "one sample takes" in health.reason


def test_a_model_that_is_not_what_it_was_sent_as_is_not_healthy(model: Path, golden: bytes, tmp_path: Path) -> None:
    path = tmp_path / "trial.pte"
    path.write_bytes(model.read_bytes())
    health = check_health(path, golden, Bounds(1e-4, PLENTY_S))
    assert (health.healthy, health.reason) == (False, "the model is for onnxruntime and was sent as pte")


def test_a_missing_file_is_not_healthy(tmp_path: Path, golden: bytes) -> None:
    health = check_health(tmp_path / "none.onnx", golden, Bounds(1e-4, PLENTY_S))
    assert (health.reason, health.final) == ("there is no model file none.onnx", False)


@pytest.mark.parametrize("damage", ["empty", "foreign", "truncated", "flipped"])
def test_a_corrupt_file_is_not_healthy(model: Path, golden: bytes, tmp_path: Path, damage: str) -> None:
    good = model.read_bytes()
    path = tmp_path / "trial.onnx"
    path.write_bytes(
        {
            "empty": b"",
            "foreign": b"\x89PNG\r\n\x1a\n" * 50,
            "truncated": good[: len(good) // 2],
            "flipped": bytes(byte ^ 0xFF for byte in good),
        }[damage]
    )
    health = check_health(path, golden, Bounds(1e-4, PLENTY_S))
    assert not health.healthy
    assert "\n" not in health.reason
    assert re.search("is no onnx, pte, tflite|damaged ONNX model|onnxruntime cannot load the model file", health.reason)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"inputs": "image"}, "the model takes ['image'] and gives ['sign']; expected ['x']"),
        ({"outputs": "depth"}, "the model takes ['x'] and gives ['depth']; expected ['x'] and ['sign', 'mean', 'way']"),
    ],
)
def test_a_model_with_other_names_is_not_healthy(
    tmp_path: Path, golden: bytes, names: dict[str, str], reason: str
) -> None:
    path = one_node(tmp_path / "m.onnx", "Relu", **names)
    assert check_health(path, golden, Bounds(1e-4, PLENTY_S)).reason.startswith(reason)


def test_a_model_for_another_sample_shape_is_not_healthy(model: Path, golden: bytes) -> None:
    other = repacked(golden, x=np.zeros((4, 2, 5), np.float32))
    assert "takes float32 samples of shape [2, 3], got float32 of shape [2, 5]" in (
        check_health(model, other, Bounds(1e-4, PLENTY_S)).reason
    )


def test_a_model_that_gives_nan_is_not_healthy(tmp_path: Path, golden: bytes) -> None:
    path = one_node(tmp_path / "m.onnx", "Log")  # of negative numbers
    samples = repacked(golden, **dict.fromkeys(("out.mean", "out.way")), **{"out.sign": np.zeros((4, 2, 3))})
    assert "output 'sign' is not finite" in check_health(path, samples, Bounds(1e-4, PLENTY_S)).reason


def test_a_model_that_fails_on_the_devices_own_samples_is_not_healthy(tmp_path: Path) -> None:
    path = one_node(tmp_path / "m.onnx", "Sqrt")
    x = np.ones((2, 2, 3), np.float32)
    layout = Layout([Entry("x", [2, 2, 3], "golden"), Entry("out.sign", [2, 2, 3], "golden")])
    samples = pack(layout, np.concatenate([x.ravel(), x.ravel()]))
    assert check_health(path, samples, Bounds(1e-4, PLENTY_S)).healthy
    health = check_health(path, samples, Bounds(1e-4, PLENTY_S), tiny_data(tmp_path / "data"))
    assert not health.healthy
    assert "not finite" in health.reason


def test_a_device_with_other_samples_is_told_so(model: Path, golden: bytes, tmp_path: Path) -> None:
    tiny_data(tmp_path)
    (tmp_path / "data.toml").write_text('format = 1\ninput_shape = [6]\n[tasks.mean]\nkind = "value"\n')
    np.save(tmp_path / "x.npy", np.zeros((16, 6), np.float32))
    health = check_health(model, golden, Bounds(1e-4, PLENTY_S), open_data(tmp_path))
    assert health.reason == "the model takes samples of shape [2, 3], this device's are [6]"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(b"", "cannot be read"), (b"\x00" * 40, "cannot be read")],
)
def test_golden_samples_that_cannot_be_read_are_told(model: Path, damage: bytes, reason: str) -> None:
    assert reason in check_health(model, damage, Bounds(1e-4, PLENTY_S)).reason


def test_golden_samples_without_an_input_are_told(model: Path, golden: bytes) -> None:
    assert "expected x and out.<task>" in check_health(model, repacked(golden, x=None), Bounds(1e-4, PLENTY_S)).reason


def test_a_device_without_onnxruntime_is_told_what_to_install(
    model: Path, golden: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    health = check_health(model, golden, Bounds(1e-4, PLENTY_S))
    assert (health.healthy, health.final) == (False, False)  # it may be healthy when that is done
    assert "pip install 'mas-edge[onnx]'" in health.reason


def test_the_fixture_of_one_node_is_a_valid_model(tmp_path: Path) -> None:
    onnx.checker.check_model(onnx.load(one_node(tmp_path / "m.onnx", "Relu")))
