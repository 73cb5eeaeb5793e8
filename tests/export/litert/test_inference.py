"""One network is converted for all of these tests: the converter takes its time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mas_edge.export.litert import inference
from mas_edge.export.litert.conversion import Calibration, Converted
from mas_edge.export.litert.inference import converted_network, export_inference, losses
from mas_edge.export.trained import eager_answers, trained_network
from mas_edge.job import Job
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import JobError, ServerError
from tests.export.litert.environment import needs_old_runtime, require_converter, run_in_old_runtime
from tests.learning.jobs import KINDS, series_job

TASKS = ["label", "next"]


def job() -> Job:
    return series_job([KINDS[0], KINDS[3]])


def samples(count: int = 64) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 2, 16), np.float32)


@pytest.fixture(scope="module")
def converted() -> Converted:
    require_converter()
    network = trained_network(job(), TASKS, vector_of(build(job(), TASKS)))
    return converted_network(network, job(), TASKS, Calibration(samples()))


@pytest.fixture
def ready(converted: Converted, monkeypatch: pytest.MonkeyPatch) -> Converted:
    """What the converter gave stands for what it would give again."""
    monkeypatch.setattr(inference, "convert", lambda *_: converted)
    return converted


def run(data: bytes, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    from device_runtime.engines.litert_engine import inference_model

    return inference_model(data).run(x)


def eager(x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    network = trained_network(job(), TASKS, vector_of(build(job(), TASKS)))
    return dict(eager_answers(network, x))


def test_the_model_gives_eagers_outputs_under_the_tasks_names(converted: Converted) -> None:
    x = samples(3)
    answers = run(converted.data, x)
    assert sorted(answers) == sorted(TASKS)
    for task, expected in eager(x).items():
        np.testing.assert_allclose(answers[task], expected, atol=1e-5, rtol=1e-5)


def test_the_model_in_integers_gives_nearly_eagers_outputs_as_floats(converted: Converted) -> None:
    network = trained_network(job(), TASKS, vector_of(build(job(), TASKS)))
    found = losses(converted.int8, network, samples())
    assert all(0 < loss < 0.08 for loss in found.values()), found
    assert all(answer.dtype == np.float32 for answer in run(converted.int8, samples(1)).values())


def test_a_file_tells_nothing_of_the_code_it_was_made_from(converted: Converted) -> None:
    for data in (converted.data, converted.int8):
        for secret in (b"mas_edge", b"torch", b"Sequential", b"encoder", b"Conv"):
            assert secret not in data


def test_a_file_is_little_larger_than_its_weights(converted: Converted) -> None:
    size = vector_of(build(job(), TASKS)).size
    assert len(converted.data) < 4 * size + 16_000  # the converter's own: 30 000, mostly names
    assert len(converted.int8) < size + 20_000


def test_either_precision_leaves_through_one_door(ready: Converted) -> None:
    vector = vector_of(build(job(), TASKS))
    assert export_inference(job(), TASKS, vector) == ready.data
    assert export_inference(job(), TASKS, vector, "int8", samples()) == ready.int8


def test_a_model_that_differs_from_eager_does_not_leave(ready: Converted, monkeypatch: pytest.MonkeyPatch) -> None:
    def slightly_off(*arguments: Any) -> dict[str, NDArray[np.float32]]:
        return {task: output + np.float32(3e-4) for task, output in honest(*arguments).items()}

    honest = eager_answers
    monkeypatch.setattr(inference, "eager_answers", slightly_off)
    with pytest.raises(ServerError, match=r"output 'label' differs from eager by 0\.0003; allowed is 0\.0001"):
        export_inference(job(), TASKS, vector_of(build(job(), TASKS)))


def test_integers_that_lose_too_much_do_not_leave(ready: Converted) -> None:
    far = 20 * samples()  # beyond the ranges that the integers were given
    with pytest.raises(JobError, match=r"in int8 the output of '\w+' is off by \d\S* of its length .*allowed 0\.25"):
        export_inference(job(), TASKS, vector_of(build(job(), TASKS)), "int8", far)


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (None, "int8 needs real samples to set its ranges by: give the folder of a device"),
        (np.zeros((0, 2, 16), np.float32), "int8 needs real samples"),
        (
            np.zeros((4, 16, 2), np.float32),
            r"samples for int8 are float32 of shape \[4, 16, 2\]; .* shape \[n, 2, 16\]",
        ),
        (np.full((4, 2, 16), np.nan, np.float32), "expected finite numbers"),
    ],
    ids=["none", "empty", "another shape", "not finite"],
)
def test_integers_need_samples_of_the_job(calibration: Any, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        export_inference(job(), TASKS, vector_of(build(job(), TASKS)), "int8", calibration)


def test_other_precisions_are_refused() -> None:
    with pytest.raises(JobError, match="precision is 'int4'; LiteRT models are exported in fp32 or int8"):
        export_inference(job(), TASKS, vector_of(build(job(), TASKS)), "int4")


def test_the_exporter_is_importable_without_the_converter() -> None:
    code = """
import sys
sys.modules.update(litert_torch=None, ai_edge_litert=None, ai_edge_quantizer=None, flatbuffers=None)
import mas_edge.export.litert.inference, mas_edge.export.litert.training, mas_edge.export.micro
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_old_runtime
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tflite_runtime_gives_the_same(converted: Converted, precision: str, tmp_path: Path) -> None:
    data = converted.data if precision == "fp32" else converted.int8
    (tmp_path / "model.tflite").write_bytes(data)
    np.save(tmp_path / "x.npy", samples(4))
    code = """
import sys, pathlib, numpy as np
from device_runtime.engines import litert_engine
room = pathlib.Path(sys.argv[1])
model = litert_engine.inference_model((room / "model.tflite").read_bytes())
np.savez(room / "answers.npz", **model.run(np.load(room / "x.npy")))
print(litert_engine._library().__name__)
"""
    assert run_in_old_runtime(code, str(tmp_path)).strip() == "tflite_runtime.interpreter"
    here, there = run(data, samples(4)), np.load(tmp_path / "answers.npz")
    for task, answer in here.items():
        # XNNPACK of another year rounds some integers the other way, by one step each.
        np.testing.assert_allclose(there[task], answer, atol=1e-5 if precision == "fp32" else 0.05, rtol=1e-5)
