"""ExecuTorch without PyTorch: the device runtime in a newer Python with ``executorch-numpy-runtime``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.engines.base import Arrays
from device_runtime.engines.torch_engine import TorchEngine
from mas_edge.export import executorch
from mas_edge.export.trace import trace_program
from mas_edge.job import load_job
from mas_edge.learning import build, vector_of
from mas_edge.orchestrator.broker import EmbeddedBroker
from mas_edge.protocol.program import dump
from tests.device_runtime.numpy_child import STEPS
from tests.e2e.fleet import Fleet, job_text
from tests.export.executorch.xnnpack_models import TOLERANCES, exported, off_by, samples
from tests.learning.jobs import feeds_of

ROOT = Path(__file__).parents[2]
MB = 10**6


@pytest.fixture(scope="session")
def newer_python() -> str:
    """Python 3.12 or later with the runtime: MAS_EDGE_PYTHON312, else .venv-312; skips, or fails if it is required."""
    found = os.environ.get("MAS_EDGE_PYTHON312") or str(ROOT / ".venv-312" / "bin" / "python")
    question = [found, "-c", "import executorch_numpy_runtime, msgspec, paho.mqtt"]
    if Path(found).exists() and subprocess.run(question, capture_output=True, check=False).returncode == 0:
        return found
    reason = f"there is no Python with executorch-numpy-runtime at {found}: make environments"
    if os.environ.get("MAS_EDGE_REQUIRE_ENVIRONMENTS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Child:
    """What the other interpreter did, and the same training with PyTorch."""

    report: dict[str, Any]
    first: Arrays
    last: Arrays
    models: dict[str, Arrays]
    eager_first: Arrays
    eager_last: Arrays


@pytest.fixture(scope="session")
def child(newer_python: str, tmp_path_factory: pytest.TempPathFactory) -> Child:
    """Train the demo's network for ten steps there, and run a model in each precision."""
    folder = tmp_path_factory.mktemp("numpy")
    job = load_job(ROOT / "models" / "watch.toml")
    traced = trace_program(job, "merged", [task.name for task in job.tasks], ["train_step"])
    (folder / "train.program").write_bytes(dump(executorch.emit(traced)))
    feeds = feeds_of(traced, "train_step") | {"weights": vector_of(build(job, traced.tasks))}
    feeds |= {"momentum": np.zeros_like(feeds["momentum"]), "hyper": np.array([0.01, 0.9, 1e-2, 0], np.float32)}
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    np.save(folder / "x.npy", samples(5, seed=9))
    for precision in ("fp32", "int8"):
        (folder / f"{precision}.pte").write_bytes(exported(precision))
    subprocess.run(
        [newer_python, "-m", "tests.device_runtime.numpy_child", str(folder)],
        check=True, timeout=200, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    runner, outputs = TorchEngine().load(traced), []
    for _ in range(STEPS):
        outputs.append(runner.run("train_step", feeds))
        feeds |= {name: outputs[-1][name] for name in ("weights", "momentum")}
    return Child(
        json.loads((folder / "report.json").read_text()), _arrays(folder / "first.npz"), _arrays(folder / "last.npz"),
        {name: _arrays(folder / f"{name}.npz") for name in ("fp32", "int8")}, outputs[0], outputs[-1],
    )  # fmt: skip


def _arrays(file: Path) -> Arrays:
    with np.load(file) as arrays:
        return dict(arrays)


def difference(got: Arrays, expected: Arrays) -> dict[str, float]:
    """Of every output, relative to its largest value."""
    assert set(got) == set(expected)
    return {name: float(np.abs(got[name] - y).max() / np.abs(y).max()) for name, y in expected.items()}


def test_it_trains_to_parity_with_pytorch(child: Child) -> None:
    first, last = difference(child.first, child.eager_first), difference(child.last, child.eager_last)
    assert max(first.values()) <= 1e-5, first
    assert last["weights"] <= 1e-3, last
    assert not np.array_equal(child.last["weights"], child.first["weights"])


def test_pytorch_is_not_there(child: Child) -> None:
    assert child.report["torch"] is False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux tells it")
def test_a_step_of_the_demos_network_takes_less_memory_than_promised(child: Child) -> None:
    assert 20 * MB < child.report["peak_bytes"] < 110 * MB


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES.items())
def test_xnnpack_models_of_a_newer_exporter_run_there(child: Child, precision: str, tolerance: float) -> None:
    assert off_by(child.models[precision], samples(5, seed=9)) <= tolerance


@pytest.mark.e2e
def test_such_a_device_works_in_a_job_beside_one_with_pytorch(
    newer_python: str, embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = job_text(rounds=2, merge_rounds=1, per_round=2, min_devices=2)
    text = text.replace("[data]", 'engines = ["torch", "executorch"]\n[data]', 1)
    with Fleet(embedded_broker.url, tmp_path, text) as fleet:
        fleet.orchestrate()
        fleet.device("ada")
        with monkeypatch.context() as there:
            there.setattr(sys, "executable", newer_python)
            there.setenv("PYTHONPATH", str(ROOT))
            fleet.device_process("bob", engine="executorch")
        snapshot = fleet.finish()
    trained = [record for record in snapshot.rounds if record.kind == "train"]
    used = {name: report.engine for record in trained for name, report in record.reports.items()}
    assert used == {"ada": "torch", "bob": "executorch"}, fleet.log("bob.log")
