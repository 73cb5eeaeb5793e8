"""The choice of the engine. Engines are broken for real: a folder before all others holds a library that misbehaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.engines import ENGINES, choice
from device_runtime.engines.choice import FILE, choose, fastest, probe
from device_runtime.engines.verdict import SelfTest
from mas_edge.protocol.errors import DeviceError

ONNX = "onnxruntime"


def broken(monkeypatch: pytest.MonkeyPatch, folder: Path, library: str, code: str) -> None:
    """From now on child processes find a ``library`` that does this when it is imported."""
    (folder / library).mkdir()
    (folder / library / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(folder)


def no_process_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")


MISBEHAVIOUR = {
    "raises": (
        "raise ImportError('libfoo.so.1: cannot open')",
        "does not start .ImportError: libfoo.so.1: cannot open",
    ),
    "raises what it likes": ("raise SystemError('built for another NumPy')", "SystemError: built for another NumPy"),
    "hangs": ("import time; time.sleep(60)", "did not answer within 2 s"),
    "crashes": ("import os; os.abort()", "crashed .Aborted"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "was killed: probably not enough memory"),
    "runs out of memory": ("raise MemoryError", "MemoryError|not enough memory"),
    "ends the process": ("raise SystemExit('no licence')", "ended with exit code 1: no licence"),
    "ends it in silence": ("import os; os._exit(3)", "ended with exit code 3: it said nothing"),
    "is something else": ("", "does not start .AttributeError"),
}


@pytest.mark.parametrize("case", MISBEHAVIOUR)
def test_an_engine_that_misbehaves_is_a_finding_with_its_reason(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, reason = MISBEHAVIOUR[case]
    broken(monkeypatch, tmp_path, ONNX, code)
    with pytest.raises(DeviceError, match=f"^no engine works here .onnxruntime: .*({reason}).*doctor"):
        choose(ONNX, tmp_path / "state", limit_s=2)


def test_what_a_library_prints_does_not_hide_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "print('{', end=''); import atexit; atexit.register(print, 'bye'); raise ImportError('no')"
    broken(monkeypatch, tmp_path, ONNX, text)
    assert "ImportError: no" in probe(ONNX).error


def test_auto_leaves_out_what_does_not_work_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch, tmp_path, "torch", "raise ImportError('libgomp.so.1: cannot open')")
    chosen = choose("auto", tmp_path / "state")
    assert chosen.engine == ONNX
    assert "torch" not in chosen.works
    assert chosen.line.startswith("engine onnxruntime: step ")
    assert "torch: engine 'torch' does not start (ImportError: libgomp.so.1: cannot open)" in chosen.line
    assert "engine torch is not used" in caplog.text


def test_an_engine_that_is_asked_for_is_tested_alone(tmp_path: Path) -> None:
    chosen = choose(ONNX, tmp_path)
    assert (chosen.engine, chosen.works) == (ONNX, (ONNX,))
    assert "(" not in chosen.line


def test_a_second_start_tests_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choose(ONNX, tmp_path)
    no_process_can_start(monkeypatch)
    assert choose(ONNX, tmp_path) == first


@pytest.mark.parametrize("change", ["library", "python", "runtime", "selftest", "threads"])
def test_a_change_of_what_was_tested_is_tested_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(ONNX, tmp_path)
    match change:
        case "library":
            monkeypatch.setattr(choice, "installed_version", lambda _name: "99.0")
        case "python":
            monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
        case "runtime":
            monkeypatch.setattr(choice, "RUNTIME_VERSION", "99.0")
        case "selftest":
            monkeypatch.setattr(choice, "digest", lambda: "another")
        case "threads":
            monkeypatch.setenv("OMP_NUM_THREADS", "7")
    no_process_can_start(monkeypatch)
    with pytest.raises(DeviceError, match="could not be started"):
        choose(ONNX, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"onnxruntime": {"key": 3}}'])
def test_a_broken_file_of_results_means_testing_again(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert choose(ONNX, tmp_path).engine == ONNX
    assert (tmp_path / FILE).read_bytes() != content


def test_what_failed_before_is_tried_again_rather_than_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        no_process_can_start(patch)
        with pytest.raises(DeviceError, match="could not be started"):
            choose(ONNX, tmp_path)
    assert choose(ONNX, tmp_path).engine == ONNX


def test_an_engine_that_takes_more_memory_than_it_may_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"onnxruntime: takes \d+ MB, this device allows 10 MB"):
        choose(ONNX, tmp_path, memory=10_000_000)
    assert choose(ONNX, tmp_path, memory=10**9).engine == ONNX


def test_a_state_directory_that_cannot_be_written_is_left_to_the_lock(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert choose(ONNX, tmp_path / "file" / "state").engine == ONNX


def test_the_agent_itself_imports_no_engine(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from device_runtime.engines.choice import choose
choose("onnxruntime", Path({str(tmp_path)!r}))
sys.exit(bool({{"onnxruntime", "torch"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_any_library_the_ways_to_get_one_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda _name: None)
    with pytest.raises(DeviceError, match=r"install one of: torch: pip install 'mas-edge\[torch\]'; onnxruntime: pip"):
        choose("auto", tmp_path)
    with pytest.raises(DeviceError, match=r"'litert' is not installed here: pip install 'mas-edge\[litert\]'"):
        choose("litert", tmp_path)
    with pytest.raises(DeviceError, match="engine 'steam' is not known; allowed: auto, torch, onnxruntime"):
        choose("steam", tmp_path)


def works(engine: str, step_ms: float, memory_mb: float) -> SelfTest:
    return SelfTest(engine=engine, step_ms=step_ms, memory_mb=memory_mb)


@pytest.mark.parametrize(
    ("working", "best"),
    [
        ([works("torch", 5, 250), works(ONNX, 3, 70)], ONNX),
        ([works("torch", 3, 250), works(ONNX, 5, 70)], "torch"),
        ([works("torch", 3.0, 250), works(ONNX, 3.2, 70)], ONNX),  # equally fast: the smaller one
        ([works("torch", 3.0, 250), works("torch:cuda", 9.0, 900), works(ONNX, 2.0, 70)], "torch:cuda"),
    ],
)
def test_the_fastest_is_taken(working: list[SelfTest], best: str) -> None:
    assert fastest(working).engine == best


def test_every_engine_is_in_the_line_tested_or_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime"}
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda name: object() if name in installed else None)
    monkeypatch.setattr(choice, "key_of", lambda name: name)
    line = choose("auto", tmp_path).line
    assert line.endswith("(torch, executorch, litert: not installed)")
    assert all(name in line for name in ENGINES)
