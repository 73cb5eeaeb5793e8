"""What the self-test of an engine finds; every test of it is a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.engines import ENGINES, available, selftest
from device_runtime.engines.selftest import DATA, METHOD, TOLERANCE, feeds_of, require_equal
from device_runtime.engines.tflite_model import read_model
from mas_edge.export import verify
from mas_edge.protocol.errors import DeviceError

ROOT = Path(__file__).parents[2]


def examined(engine: str, folder: Path = ROOT) -> dict[str, Any]:
    """The line that the process printed; it runs the packages that lie in ``folder``."""
    command = [sys.executable, "-m", "device_runtime.engines.selftest", engine]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if found["error"] else 0)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages that a device needs, to be harmed."""
    for name in ("device_runtime", "mas_edge"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize("engine", available())
def test_an_engine_that_works_is_measured(engine: str) -> None:
    found = examined(engine)
    assert (found["engine"], found["error"]) == (engine, "")
    assert found["version"]
    assert min(found[name] for name in ("step_ms", "step_cpu_ms", "ready_s", "ready_cpu_s", "memory_mb")) > 0


def test_a_program_ships_for_every_engine_and_they_take_the_same_inputs() -> None:
    programs = [selftest.read(engine)[0] for engine in ENGINES]
    assert [program.engine for program in programs] == list(ENGINES)
    assert {path.stem for path in DATA.glob("*.program")} == set(ENGINES)
    assert all(program.methods[METHOD].inputs == programs[0].methods[METHOD].inputs for program in programs)


def test_the_tflite_file_that_ships_holds_together() -> None:
    """Without the library; it has a constant of no numbers, the shape of a scalar."""
    assert METHOD in read_model(selftest.read("litert")[0].file, "the self-test").signatures


def test_a_program_with_one_flipped_byte_is_an_error_that_says_so(copy: Path) -> None:
    path = copy / DATA.relative_to(ROOT) / "onnxruntime.program"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "program file is damaged" in examined("onnxruntime", copy)["error"]


def test_an_engine_that_computes_something_else_is_found_out(copy: Path) -> None:
    path = copy / DATA.relative_to(ROOT) / "answer.tensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of the last loss, its exponent
    path.write_bytes(data)
    assert "it computes wrong numbers: 'losses' is off by" in examined("onnxruntime", copy)["error"]


def test_an_engine_for_which_no_program_ships_is_not_called_working(copy: Path) -> None:
    (copy / DATA.relative_to(ROOT) / "onnxruntime.program").unlink()
    assert "no self-test for 'onnxruntime' ships with this version" in examined("onnxruntime", copy)["error"]


def test_an_engine_that_nobody_knows_is_an_error_and_no_traceback() -> None:
    assert "engine 'steam' is not known" in examined("steam")["error"]


def test_outputs_may_be_as_far_off_as_when_a_program_leaves_the_server() -> None:
    assert TOLERANCE == verify.TOLERANCE
    answer = {"y": np.array([1, 1000], np.float32)}
    require_equal({"y": np.array([1.005, 1000], np.float32)}, answer)
    for wrong in ([1.02, 1000], [np.nan, 1000], [1]):
        with pytest.raises(DeviceError, match="'y'"):
            require_equal({"y": np.array(wrong, np.float32)}, answer)
    with pytest.raises(DeviceError, match="gives nothing for 'y'"):
        require_equal({}, answer)


def test_the_inputs_are_the_same_on_every_machine() -> None:
    program, _ = selftest.read("torch")
    feeds = feeds_of(program)
    assert feeds["weights"][:3].tolist() == pytest.approx(FIRST_WEIGHTS, abs=1e-7)
    assert feeds["y.kind"].tolist() == FIRST_KINDS
    assert np.abs(feeds["x"]).max() <= 1 < 10 * np.abs(feeds["x"]).mean()


FIRST_WEIGHTS = [-0.0195344, -0.2282983, 0.2157133]
FIRST_KINDS = [1, 1, 1, 1, 1, 0, 3, 0]
