"""Whether these tests run in the LiteRT build environment, found out without importing its packages (7 s of CPU)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

OLD_PYTHON = "MAS_EDGE_TFLITE_RUNTIME_PYTHON"  # an interpreter that has tflite-runtime 2.14 and numpy<2

needs_converter = pytest.mark.skipif(find_spec("litert_torch") is None, reason="litert_torch is not installed")
needs_board = pytest.mark.skipif(
    find_spec("litert_torch") is None or find_spec("tflite_micro") is None, reason="tflite_micro is not installed"
)
needs_old_runtime = pytest.mark.skipif(
    OLD_PYTHON not in os.environ, reason=f"{OLD_PYTHON} names no interpreter with tflite-runtime"
)


def run_in_old_runtime(code: str, *arguments: str) -> str:
    """What a program prints where only tflite-runtime is; it must end well."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": os.environ["PATH"]}
    command = [os.environ[OLD_PYTHON], "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def require_converter() -> None:
    """Skip what asks for it outside of that environment."""
    if find_spec("litert_torch") is None:
        pytest.skip("litert_torch is not installed")


class Reference(NamedTuple):
    """What LiteRT's reference kernels say: the size of an input, and [samples, size] for each output."""

    size: int
    outputs: list[NDArray[np.int8]]


def reference_answers(model: bytes, x: Sequence[NDArray[np.int8]] | NDArray[np.int8]) -> Reference:
    """The answers of a model that takes and gives integers to each of ``x``, flat; in the order of its outputs."""
    runtime: Any = import_module("ai_edge_litert.interpreter")
    reference = runtime.OpResolverType.BUILTIN_REF
    interpreter = runtime.Interpreter(model_content=model, experimental_op_resolver_type=reference)
    interpreter.allocate_tensors()
    taken = interpreter.get_input_details()[0]
    given = [detail["index"] for detail in interpreter.get_output_details()]
    answers: list[list[NDArray[np.int8]]] = [[] for _ in given]
    for sample in x:
        interpreter.set_tensor(taken["index"], np.reshape(sample, taken["shape"]))
        interpreter.invoke()
        for kept, index in zip(answers, given, strict=True):
            kept.append(interpreter.get_tensor(index).ravel())
    return Reference(int(np.prod(taken["shape"])), [np.array(kept) for kept in answers])
