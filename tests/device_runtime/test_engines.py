"""Which engines there are, and opening one by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from device_runtime.engines import ENGINES, available, libraries, open_engine
from mas_edge.job import ENGINES as ENGINES_OF_JOBS
from mas_edge.protocol.errors import DeviceError


def only(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    """As if these libraries were installed and no others."""
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda name: object() if name in installed else None)


def test_a_job_can_ask_for_every_engine_that_a_device_has() -> None:
    assert (*ENGINES, "micro") == ENGINES_OF_JOBS  # the last is a microboard's, which has an agent of its own


@pytest.mark.parametrize(
    ("installed", "engines"),
    [
        ([], []),
        (["torch"], ["torch"]),
        (["onnxruntime", "torch"], ["torch", "onnxruntime"]),
        (["executorch"], []),  # the official runtime needs torch
        (["executorch", "torch"], ["torch", "executorch"]),
        (["executorch_numpy_runtime"], ["executorch"]),
        (["ai_edge_litert"], ["litert"]),
        (["tflite_runtime"], ["litert"]),
    ],
)
def test_an_engine_is_there_when_a_library_that_trains_is(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], engines: list[str]
) -> None:
    only(monkeypatch, *installed)
    assert available() == engines


def test_the_small_library_of_an_engine_is_taken_before_the_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "executorch", "torch", "executorch_numpy_runtime")
    assert libraries("executorch") == ("executorch_numpy_runtime",)


def test_the_current_library_of_litert_is_taken_before_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tflite_runtime", "ai_edge_litert")
    assert libraries("litert") == ("ai_edge_litert",)


def test_a_32_bit_system_is_told_of_the_library_that_exists_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENGINES["litert"].install == "pip install 'mas-edge[litert]'"
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert ENGINES["litert"].install == "pip install 'mas-edge[tflite]'"
    assert ENGINES["litert"].reinstall == "pip install 'mas-edge[tflite]' --force-reinstall"


def test_an_engine_is_opened_by_name() -> None:
    assert open_engine("torch").name == open_engine("torch:cpu").name == "torch"
    with pytest.raises(DeviceError, match="engine 'tensorflow' is not known; allowed: torch, onnxruntime, executorch"):
        open_engine("tensorflow")


def test_a_library_that_does_not_start_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "device_runtime.engines.torch_engine", None)
    with pytest.raises(DeviceError, match=r"engine 'torch' does not start .* pip install 'mas-edge\[torch\]'"):
        open_engine("torch")


def test_looking_for_engines_imports_none() -> None:
    code = "import sys, device_runtime.engines as e; e.available(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
