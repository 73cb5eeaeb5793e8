from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from device_runtime.engines import available
from tests.docs.pages import ROOT


def test_every_engine_is_measured_against_eager_in_one_run(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    options = ["--net", "watch", "--batch", "2", "--steps", "2", "--repeats", "1", "--json", str(file)]
    command = [sys.executable, str(ROOT / "tools" / "bench_engines.py"), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    rows = json.loads(file.read_text())
    assert [row["engine"] for row in rows] == ["eager", *available()]
    assert rows[0]["ratio"] == 1
    for row in rows:
        assert min(row["step_ms"], row["ready_s"], row["peak_mb"]) > 0
        assert row["engine"] in done.stdout
    assert rows[2]["peak_mb"] < rows[1]["peak_mb"]  # the process does not import torch
