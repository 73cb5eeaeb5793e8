from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.engines import available
from mas_edge.orchestrator.broker.managed import find_mosquitto
from tests.docs.pages import ROOT

pytestmark = pytest.mark.alone


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the time of a process as Linux tells it")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
@pytest.mark.skipif("onnxruntime" not in available(), reason="ONNX Runtime, the quickest engine to test, is missing")
def test_a_later_start_does_not_pay_for_the_test_of_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    options = ["--engine", "onnxruntime", "--starts", "2", "--json", str(file)]
    command = [sys.executable, str(ROOT / "tools" / "bench_start.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=200)
    assert file.exists(), done.stdout + done.stderr[-1000:]
    first, later = json.loads(file.read_text())["rows"]
    assert later["own_s"] > 0
    assert 0 < later["children_s"] < first["children_s"] / 1.5
