from __future__ import annotations

import hashlib
import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mas_edge.export import inference
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.export.trained import eager_answers
from mas_edge.job import Data, Federation, Job, Network, Task
from mas_edge.learning.network import build, load_vector, vector_of
from mas_edge.protocol.errors import JobError, ServerError, WeightsError
from mas_edge.protocol.weights import Vector, unpack

onnxruntime: Any = importlib.import_module("onnxruntime")
# The names are those the exporter gives to values of its own: a task may be called like an operator.
TASKS = ["relu", "linear", "val_0"]


def encoder(input_shape: tuple[int, ...]) -> nn.Module:
    """A convolution with a batch normalization, which the exporter folds into one."""
    return nn.Sequential(
        nn.Conv1d(input_shape[0], 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8)
    )


def head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    """One linear layer."""
    return nn.Linear(feature_shape[0], task.classes or task.shape[0])


class Forgetful(nn.Module):
    """Trains, but bakes the batch it was traced with into the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[i].flatten() for i in range(x.shape[0])])


class Unexportable(nn.Module):
    """An operator that has no ONNX form."""

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = torch.linalg.eigvalsh(x @ x.transpose(1, 2))
        return values


def forgetful(input_shape: tuple[int, ...]) -> nn.Module:
    """An encoder that loops over the batch."""
    return Forgetful()


def unexportable(input_shape: tuple[int, ...]) -> nn.Module:
    """An encoder of eigenvalues."""
    return Unexportable()


def job(made_by: str = "encoder") -> Job:
    where = f"{__name__}:head"
    return Job(
        name="small",
        data=Data(input_shape=[3, 8]),
        tasks=[
            Task(name="relu", kind="class", classes=5, head=where),
            Task(name="linear", kind="value", shape=[2], head=where),
            Task(name="val_0", kind="direction", shape=[3], head=where),
        ],
        network=Network(encoder=f"{__name__}:{made_by}"),
        federation=Federation(rounds=2, merge_rounds=1),
    )


def trained(tasks: list[str]) -> Vector:
    """Weights with statistics that are not those of the start."""
    network = build(job(), tasks)
    network.train()(torch.randn(16, 3, 8, generator=torch.Generator().manual_seed(3)))
    return vector_of(network)


def eager(tasks: list[str], vector: Vector, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    network = build(job(), tasks)
    load_vector(network, vector)
    with torch.no_grad():
        return {task: y.numpy() for task, y in network.eval()(torch.from_numpy(x)).items()}


@pytest.fixture(scope="module")
def model() -> bytes:
    return export_inference(job(), TASKS, trained(TASKS))


def run(model: bytes, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_model_gives_eagers_outputs_at_any_batch_size(model: bytes, batch: int) -> None:
    x = np.random.default_rng(batch).standard_normal((batch, 3, 8), np.float32)
    outputs = run(model, x)
    assert list(outputs) == TASKS
    for task, expected in eager(TASKS, trained(TASKS), x).items():
        np.testing.assert_allclose(outputs[task], expected, atol=1e-5, rtol=1e-5)


def test_outputs_come_in_the_order_of_the_tasks() -> None:
    tasks = ["val_0", "relu"]
    x = np.ones((2, 3, 8), np.float32)
    outputs = run(export_inference(job(), tasks, trained(tasks)), x)
    assert [(task, output.shape) for task, output in outputs.items()] == [("val_0", (2, 3)), ("relu", (2, 5))]


def test_the_model_is_a_valid_file_of_the_promised_opset(model: bytes) -> None:
    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 18)]


def test_the_same_weights_give_the_same_bytes(model: bytes) -> None:
    again = export_inference(job(), TASKS, trained(TASKS))
    assert hashlib.sha256(again).digest() == hashlib.sha256(model).digest()


def test_the_model_tells_nothing_of_the_machine_it_was_made_on(model: bytes) -> None:
    for secret in (Path(__file__).name, str(Path(torch.__file__).parent), "forward", "stack_trace", "Traceback"):
        assert secret.encode() not in model


def test_the_model_is_hardly_larger_than_its_weights(model: bytes) -> None:
    assert len(model) < 4 * trained(TASKS).size + 4096


def test_exporting_is_silent_and_leaves_the_process_as_it_was(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    level, filters = logging.getLogger("torch.onnx").level, list(warnings.filters)
    export_inference(job(), ["relu"], trained(["relu"]))
    assert tuple(capfd.readouterr()) == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
    assert (logging.getLogger("torch.onnx").level, list(warnings.filters)) == (level, filters)


@pytest.mark.parametrize(
    ("made_by", "reason"),
    [
        ("forgetful", "network of linear cannot be written as ONNX: it fixes the batch size"),
        ("unexportable", r"network of linear cannot be written as ONNX: .*linalg_eigh.* use operators"),
    ],
)
def test_a_network_without_an_onnx_form_is_the_authors_to_change(made_by: str, reason: str) -> None:
    job_ = job(made_by)
    with pytest.raises(JobError, match=reason) as caught:
        export_inference(job_, ["linear"], vector_of(build(job_, ["linear"])))
    assert "\n" not in str(caught.value)


def test_a_model_that_differs_from_eager_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = eager_answers

    def slightly_off(*args: Any) -> dict[str, NDArray[np.float32]]:
        return {task: (output + np.float32(3e-4)) for task, output in honest(*args).items()}

    monkeypatch.setattr(inference, "eager_answers", slightly_off)
    with pytest.raises(ServerError, match=r"output 'linear' differs from eager by 0\.0003 at batch size 1"):
        export_inference(job(), ["linear"], trained(["linear"]))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError):
        export_inference(job(), ["relu"], np.zeros(3, np.float32))


def test_golden_samples_are_eagers_outputs() -> None:
    tensors = unpack(golden_of(job(), TASKS, trained(TASKS), seed=5))
    assert set(tensors) == {"x", *(f"out.{task}" for task in TASKS)}
    assert tensors["x"].shape == (4, 3, 8)
    for task, expected in eager(TASKS, trained(TASKS), np.array(tensors["x"])).items():
        np.testing.assert_array_equal(tensors[f"out.{task}"], expected)


def test_golden_samples_depend_on_the_seed_alone() -> None:
    first, again, other = (golden_of(job(), ["relu"], trained(["relu"]), seed, batch=2) for seed in (5, 5, 6))
    assert first == again
    assert not np.array_equal(unpack(first)["x"], unpack(other)["x"])
