"""From a job to an int8 model in a board's slot, with nobody's hand in between. Real converter, broker and board."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from device_runtime.data import open_data
from device_runtime.inference import open_model
from mas_edge.export.micro.deployable import VARIABLE
from mas_edge.orchestrator.result import result_of
from mas_edge.protocol.artifact import digest_of
from tests.brokers import Running
from tests.docs.pages import ROOT
from tests.e2e.fleet import Fleet, job_text
from tests.micro.board import needs_micropython
from tests.micro.test_board import LEFT_OUT, board_in

PYTHON = Path(os.environ.get(VARIABLE) or ROOT / ".venv-litert" / "bin" / "python")
pytestmark = [
    pytest.mark.e2e,
    needs_micropython,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="no environment with LiteRT's converter: make .venv-litert/.installed"
    ),
]
TEXT = job_text(rounds=1, merge_rounds=1, min_devices=2, per_round=2).replace("groups = 2", "groups = 1")
NETWORK = '[network]\nencoder = "tests.micro.dense:encoder"\nencoder_args = { width = 8 }\n'


def test_a_board_in_a_job_ends_with_an_int8_model_that_answers_for_its_tasks(
    running_broker: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(PYTHON))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    head, _, tail = TEXT.partition("[network]")
    text = 'engines = ["torch", "micro"]\n' + head + NETWORK + tail[tail.index("\n[federation]") :]
    text = text.replace(LEFT_OUT, "").replace('kind = "', 'head = "tests.micro.dense:head"\nkind = "')
    text = text.replace("input_shape = [3, 16]", f'input_shape = [3, 16]\ncalibration = "{tmp_path / "data" / "ada"}"')
    with Fleet(running_broker.url, tmp_path, text) as fleet, board_in(fleet) as board:
        fleet.device("ada")
        assert fleet.orchestrate().join() is True
        snapshot = fleet.snapshot()
        assert board.on
    report = next(record.reports["esp"] for record in snapshot.rounds if record.kind == "deploy")
    assert (report.healthy, report.health_reason) == (True, "")
    assert report.engine == "micro"
    assert report.latency_s > 0
    assert report.samples == {"sign": 12}  # what it has labels of a class for
    deployment = result_of(snapshot)["deployment"]
    assert (deployment["devices"], deployment["healthy"]) == (2, 2), deployment
    model = (fleet.state / "models" / "group-0.int8.tflite").read_bytes()
    assert report.model == digest_of(model)
    assert (tmp_path / "esp" / "flash" / "group-0.a").read_bytes() == model
    right = accuracy(fleet.state / "models" / "group-0.onnx", fleet)
    assert abs(report.metrics["sign"] - right) <= 1 / 12  # int8 may turn one of them


def accuracy(model: Path, fleet: Fleet) -> float:
    """Of the task ``sign`` on the board's own test samples, in float32."""
    arrays = open_data(fleet.data("esp")).arrays
    test = np.flatnonzero(arrays["split"] == 1)
    answers = open_model(model, ["sign", "way"]).run(np.asarray(arrays["x"][test], np.float32))
    return float((answers["sign"].argmax(axis=1) == arrays["sign"][test]).mean())
