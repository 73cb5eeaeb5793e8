from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT


def test_the_benchmark_of_the_split_search_measures_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    options = ["--exact", "5", "--many", "20", "--groups", "5", "--check", "7", "--seeds", "1", "--json", str(file)]
    command = [sys.executable, str(ROOT / "tools" / "bench_split.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    tables = json.loads(file.read_text(encoding="utf-8"))
    assert [row["tasks"] for row in tables["exact"]] == [5]
    assert [(row["matrix"], row["N"]) for row in tables["many"]] == [("noise", 5), ("5 planted", 5)]
    assert all(row["value"] <= row["bound"] and 0 < row["closed"] <= 1 for row in tables["many"])
    assert tables["many"][1]["closed"] > 0.95
    assert tables["check"] == [{"tasks": 7, "searches": 5, "optima found": 5, "bounds that hold": 5}]
    assert "| 20 | 5 planted | 5 |" in done.stdout
