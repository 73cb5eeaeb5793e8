"""What ``mas-edge doctor`` finds and says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.cli.doctor import WIDTH
from device_runtime.diagnosis import Diagnosis, examine
from mas_edge.cli import doctor
from mas_edge.export.targets import TARGETS
from tests.device_runtime.broken_engines import break_every_engine


@pytest.fixture(scope="module")
def device() -> Diagnosis:
    """The engines of this machine, tested once."""
    return examine()


@pytest.fixture(autouse=True)
def _tested_once(device: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: device)


def test_a_machine_with_all_that_the_server_needs_can_run_jobs() -> None:
    found = doctor.look()
    assert (found.exit_code, found.problems) == (0, [])
    lines = doctor.page(found)
    assert lines[-1] == "This machine can run jobs."
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    assert all(f"  {target} " in text for target in TARGETS)
    assert "embedded     iotcore 0.4" in text


@pytest.mark.mosquitto
def test_mosquitto_is_named_with_its_version(mosquitto_is_here: None) -> None:
    assert any(broker.what.startswith("mosquitto version 2.") for broker in doctor.look().brokers)


def test_a_mosquitto_that_does_not_start_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("no program")
    program.chmod(0o755)
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: program)
    assert "mosquitto that does not start" in doctor.look().brokers[0].what


def test_without_a_broker_it_ends_with_5_and_the_three_ways_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_mosquitto", lambda: None)
    monkeypatch.setattr(doctor, "is_installed", lambda: False)
    found = doctor.look()
    assert found.exit_code == 5
    end = " ".join(doctor.page(found))
    assert all(way in end for way in ("apt install mosquitto", "'mas-edge[broker]'", "--broker URL"))


def test_what_cannot_be_exported_from_here_names_the_packages_and_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "onnxscript" else object())
    found = doctor.look()
    assert found.exit_code == 6
    assert found.problems == ["onnxscript not installed: pip install 'mas-edge[server]'"]
    assert [one.target for one in found.exports if one.missing] == ["onnx"]
    assert "  export to onnx needs onnxscript: pip install 'mas-edge[server]'" in doctor.page(found)


def test_a_server_whose_engines_do_not_work_cannot_check_programs(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mas_edge", "doctor", "--json"],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(break_every_engine(tmp_path))},
    )  # fmt: skip
    assert ended.returncode == 6, ended.stderr
    assert json.loads(ended.stdout)["problems"] == [
        "programs for torch cannot be checked here, as it does not work",
        "programs for onnxruntime cannot be checked here, as it does not work",
    ]
