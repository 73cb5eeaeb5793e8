from __future__ import annotations

import importlib
import logging
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_runtime.engines.executorch_engine import inference_model
from device_runtime.engines.pte_model import check_pte
from mas_edge.export.executorch import inference
from mas_edge.export.executorch.inference import export_inference
from mas_edge.protocol.errors import JobError, ServerError, WeightsError
from tests.export.executorch.xnnpack_models import JOB, TASKS, TOLERANCES, exported, off_by, samples, vector


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES.items())
def test_a_model_gives_eagers_outputs_in_the_order_of_its_tasks(precision: str, tolerance: float) -> None:
    x = samples(6, seed=4)
    got = inference_model(exported(precision), TASKS).run(x)
    assert [(task, y.shape, y.dtype.name) for task, y in got.items()] == [
        ("label", (6, 3), "float32"), ("amount", (6,), "float32"),
    ]  # fmt: skip
    assert off_by(got, x) <= tolerance


@pytest.mark.parametrize("precision", TOLERANCES)
def test_xnnpack_runs_most_of_it_and_the_device_takes_the_file(precision: str) -> None:
    check_pte(exported(precision), "it")
    assert b"XnnpackBackend" in exported(precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader: Any = importlib.import_module("executorch.exir._serialize._program")
        plan = reader.deserialize_pte_binary(exported(precision)).program.execution_plan[0]
    calls = [type(instruction.instr_args).__name__ for instruction in plan.chains[0].instructions]
    assert plan.name == "forward"
    assert calls.count("DelegateCall") >= 1
    assert not [operator.name for operator in plan.operators if "conv" in operator.name or "mm" in operator.name]


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (None, r"int8 needs samples of shape \[n, 2, 16\] .* got none: give the folder .* or export in fp32"),
        (np.zeros((4, 2, 15), np.float32), r"got an array of shape \[4, 2, 15\]"),
        (np.zeros((0, 2, 16), np.float32), r"got an array of shape \[0, 2, 16\]"),
    ],
)
def test_int8_without_samples_of_the_job_is_refused(calibration: NDArray[np.float32] | None, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        export_inference(JOB, TASKS, vector(), "int8", calibration)


def test_another_precision_is_refused() -> None:
    with pytest.raises(JobError, match="precision is 'fp16'; ExecuTorch models are exported in fp32 or int8"):
        export_inference(JOB, TASKS, vector(), "fp16")


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError):
        export_inference(JOB, TASKS, vector()[:-1])


class TestWithoutLowering:
    """An export of ten seconds is not needed to see what is made of its end."""

    def test_a_model_that_differs_from_eager_is_not_released(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference, "_lowered", lambda *_: exported("fp32"))
        assert export_inference(JOB, TASKS, vector()) == exported("fp32")
        with pytest.raises(ServerError, match=r"output 'label' differs from eager by .*; allowed is 0.0001 of max"):
            export_inference(JOB, TASKS, vector() + np.float32(0.1))

    def test_a_model_of_other_outputs_is_not_released(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference, "_lowered", lambda *_: exported("fp32"))
        swapped = TASKS[::-1]
        weights = np.zeros_like(vector())
        with pytest.raises(ServerError, match=r"output 'amount' has shape \(5, 3\), not \(5,\)"):
            export_inference(JOB, swapped, weights)

    def test_a_file_that_does_not_run_is_not_released(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inference, "_lowered", lambda *_: exported("fp32")[:-64])
        with pytest.raises(ServerError, match="ExecuTorch does not run the exported model: the model holds a damaged"):
            export_inference(JOB, TASKS, vector())

    @pytest.mark.parametrize(
        ("error", "kind", "reason"),
        [
            (
                RuntimeError("\nno lowering of aten.fft\nat line 3"),
                JobError,
                "RuntimeError: no lowering of aten.fft; use",
            ),
            (ModuleNotFoundError("No module named 'torchao'"), ServerError, r"torchao'\): pip install 'mas-edge\["),
        ],
    )
    def test_no_error_of_the_exporter_reaches_a_user(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        error: Exception,
        kind: Any,
        reason: str,
    ) -> None:
        def fails(*_: object) -> bytes:
            print("a note of the exporter")
            warnings.warn("a warning of the exporter", stacklevel=1)
            logging.getLogger("torchao.quantization").warning("a line in its log")
            logging.getLogger().warning("a line in everybody's log")
            raise error

        monkeypatch.setattr(inference, "_lowered", fails)
        with pytest.raises(kind, match=reason) as caught:
            export_inference(JOB, TASKS, vector())
        assert "\n" not in str(caught.value)
        assert tuple(capfd.readouterr()) == ("", "")
