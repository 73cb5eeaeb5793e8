from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mas_edge.orchestrator.broker.managed import find_mosquitto
from tests.docs.pages import ROOT

pytestmark = pytest.mark.alone


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the time of a process as Linux tells it")
@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_rounds_are_measured_beside_what_their_bytes_cost_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    options = ["--devices", "2", "--rounds", "3", "--blocks", "1", "--payload", "10 KB", "--json", str(file)]
    command = [sys.executable, str(ROOT / "tools" / "bench_rounds.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    rows = {row["what"]: row for row in json.loads(file.read_text())["rows"]}
    assert list(rows) == ["mas-edge", "raw TCP", "bare broker"]
    for what, row in rows.items():
        assert row["rounds"] == 3
        assert 0 < row["fastest_s"] <= row["median_s"] <= row["slowest_s"]
        assert what in done.stdout
    assert rows["raw TCP"]["median_s"] < rows["mas-edge"]["median_s"]
    assert set(rows["mas-edge"]["memory_mb"]) == set(rows["mas-edge"]["cpu_s"]) == {"server", "client", "broker"}
