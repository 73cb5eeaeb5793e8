"""What ``mas-edge-device doctor`` finds and says; the engines are tested for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from device_runtime.cli.doctor import WIDTH, advice_on, page
from device_runtime.diagnosis import Diagnosis, examine
from device_runtime.engines import CUDA, ENGINES
from device_runtime.engines.choice import fastest
from device_runtime.remedies import Place
from tests.device_runtime.broken_engines import break_every_engine

HERE = Place("linux")


def doctor(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a process; what lies in ``path`` comes before what is installed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    command = [sys.executable, "-m", "device_runtime", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    """This machine as it is."""
    return examine()


def test_every_engine_is_reported_and_what_works_is_measured(found: Diagnosis) -> None:
    assert [report.name for report in found.engines if report.name != CUDA] == list(ENGINES)
    for report in found.engines:
        if report.name in ("torch", "onnxruntime"):
            assert report.trains
        if report.test is not None and report.trains:
            assert min(report.test.step_ms, report.test.memory_mb, report.test.ready_s) > 0
            assert report.version


def test_the_engine_that_auto_takes_is_the_fastest(found: Diagnosis) -> None:
    working = [report.test for report in found.engines if report.test is not None and report.trains]
    assert found.best == fastest(working).engine


def test_the_page_fits_80_columns_and_names_everything(found: Diagnosis) -> None:
    lines = page(found, advice_on(found, HERE))
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    for word in (found.machine.python, *found.libraries.values(), *ENGINES):
        assert word in text
    assert lines[-1] == f"This device can train; --engine auto takes {found.best}."


def test_what_is_not_installed_comes_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda _name: None)
    bare = examine()
    assert (bare.best, [report.test for report in bare.engines]) == ("", [None] * len(ENGINES))
    assert [report.advice for report in bare.engines] == [f"{name}: {kind.install}" for name, kind in ENGINES.items()]
    assert page(bare, advice_on(bare, HERE))[-1] == "Nothing here can train."


def test_where_nothing_works_the_command_ends_with_7_and_says_what_to_do(tmp_path: Path) -> None:
    ended = doctor(path=break_every_engine(tmp_path))
    assert (ended.returncode, ended.stderr) == (7, "")
    assert "torch is not used: engine 'torch' does not start (ImportError:" in ended.stdout
    assert ended.stdout.endswith("Nothing here can train.\n")
    assert max(map(len, ended.stdout.splitlines())) <= WIDTH


def test_json_holds_what_the_page_says(tmp_path: Path) -> None:
    ended = doctor("--json", path=break_every_engine(tmp_path))
    whole: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == 7
    assert whole["best"] == ""
    assert whole["machine"]["cores"] >= 1
    assert [report["name"] for report in whole["engines"]] == list(ENGINES)
    assert all("libbroken.so.1" in report["advice"] for report in whole["engines"])
