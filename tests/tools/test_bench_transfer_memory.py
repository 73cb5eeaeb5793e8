from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mas_edge.orchestrator.broker.managed import find_mosquitto
from tests.docs.pages import ROOT

pytestmark = pytest.mark.alone

DEVICE_MB = 40  # of an agent without an engine; measured: 35 with 100 MB (docs/results/rounds.md)


def measured(tmp_path: Path, *options: str) -> dict[str, float]:
    """The most that each process held, in MB."""
    file = tmp_path / "rows.json"
    command = [sys.executable, str(ROOT / "tools" / "bench_transfer_memory.py"), *options, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=200)
    assert file.exists(), done.stdout + done.stderr[-1000:]
    return {row["what"]: row["peak_mb"] for row in json.loads(file.read_text())["rows"]}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process as Linux tells it")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_neither_broker_nor_device_holds_the_model_that_goes_down(tmp_path: Path) -> None:
    model_mb = 32
    small, large = (
        measured(tmp_path, "distribute", "--devices", "2", "--megabytes", size) for size in ("1", str(model_mb))
    )
    assert large["broker"] <= 16
    assert large["device"] <= DEVICE_MB
    # Two copies of the model, for the averaging; the device and the broker hold a window of it.
    assert large["orchestrator"] <= small["orchestrator"] + 3.5 * model_mb
    assert large["device"] <= small["device"] + model_mb / 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process as Linux tells it")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_updates_do_not_add_up_in_the_broker_nor_in_the_orchestrator(tmp_path: Path) -> None:
    few = measured(tmp_path, "collect", "--devices", "2", "--megabytes", "4")
    many = measured(tmp_path, "collect", "--devices", "6", "--megabytes", "4", "--updates", "12")
    assert many["broker"] <= 16
    assert many["orchestrator"] <= few["orchestrator"] + 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process as Linux tells it")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_neither_broker_nor_device_holds_the_update_that_goes_up(tmp_path: Path) -> None:
    update_mb = 32
    small, large = (
        measured(tmp_path, "upload", "--devices", "2", "--megabytes", size) for size in ("1", str(update_mb))
    )
    assert large["broker"] <= 16
    assert large["device"] <= DEVICE_MB
    assert large["device"] <= small["device"] + update_mb / 3
