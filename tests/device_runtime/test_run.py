"""The start of ``mas-edge-device run``: which engine it trains with, said and kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device_runtime.broken_engines import break_every_engine
from tests.device_runtime.tiny_job import tiny_data


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A device whose broker never answers."""
    tiny_data(tmp_path / "data", train=4, test=1)
    where = ["--data", str(tmp_path / "data"), "--state", str(tmp_path / "state"), "--broker", "mqtt://127.0.0.1:9"]
    return [sys.executable, "-m", "device_runtime", "run", "--name", "pi-1", *where, "--engine", "onnxruntime"]


def test_the_choice_is_one_line_and_kept_for_the_next_start(command: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.kill()
        kept = (tmp_path / "state" / "engines.json").read_text()
        assert line.startswith("engine onnxruntime: step ")
        assert '"engine": "onnxruntime"' in kept


def test_an_engine_that_does_not_work_ends_the_start_in_one_line(command: list[str], tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(break_every_engine(tmp_path / "broken"))}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 7
    assert ended.stderr.splitlines()[-1].startswith("error: no engine works here (onnxruntime: ")
    assert "libbroken.so.1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_policy_with_a_rule_that_is_not_known_ends_the_start_in_one_line(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text("[rules]\nmin_batery = 50\n")
    ended = subprocess.run(
        [*command, "--policy", str(tmp_path / "policy.toml")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 7
    assert "policy.toml: unknown key 'min_batery' in [rules]; allowed there: charging, min_battery, " in ended.stderr
    assert "\n" not in ended.stderr.strip()


@pytest.mark.parametrize("threads", ["0", "-1", "2.5", "all", "9" * 30])
def test_threads_that_no_machine_can_have_are_refused_before_anything_begins(command: list[str], threads: str) -> None:
    ended = subprocess.run([*command, f"--threads={threads}"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.endswith("is no number of threads; expected 1 or more\n")
