from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of a process as Linux tells it")
def test_no_program_takes_more_memory_than_is_reckoned_with(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    options = ["--net", "three-heads", "--batch", "2", "--engine", "torch", "onnxruntime", "--json", str(file)]
    command = [sys.executable, str(ROOT / "tools" / "measure_memory.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    rows = json.loads(file.read_text())
    assert [(row["engine"], row["methods"]) for row in rows] == [
        ("torch", 3), ("onnxruntime", 3), ("torch", 2), ("onnxruntime", 2),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row["graph_mb"] < row["taken_mb"] <= row["needed_mb"] < 4 * row["taken_mb"]
        assert row["engine"] in done.stdout
