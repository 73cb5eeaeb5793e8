"""Sizes as people write them, the memory of this process, and how libraries say that they ran out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.memory import in_units, parse_size, ran_out, resident_bytes
from mas_edge.protocol.errors import DeviceError

SIZES = {
    "1": 1, "1000": 1000, "512K": 512 * 1024, "96M": 96 * 1024**2, "2G": 2 * 1024**3, "1.5g": 3 * 1024**3 // 2,
    " 64 MB ": 64 * 1024**2, "64MiB": 64 * 1024**2, "0.5k": 512, "12B": 12,
}  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_a_size_is_read_in_powers_of_1024(text: str) -> None:
    assert parse_size(text) == SIZES[text]


@pytest.mark.parametrize(
    "text", ["", "M", "0", "0M", "-5M", "96 potatoes", "1e9", "5T", "0.1", "1,5G", "nan", "96M96M", "9" * 400]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(DeviceError, match=r"is no size of memory; expected a number with K, M or G, such as 512K"):
        parse_size(text)


@given(st.integers(1, 1023), st.sampled_from(["K", "M", "G"]))
def test_a_size_is_shown_as_it_is_written(number: int, unit: str) -> None:
    assert parse_size(in_units(parse_size(f"{number}{unit}"))) == pytest.approx(
        parse_size(f"{number}{unit}"), rel=0.005
    )


def test_the_resident_memory_grows_by_what_is_taken() -> None:
    before = resident_bytes()
    held = np.ones(64 * 1024**2, np.uint8)
    assert 60 * 1024**2 < resident_bytes() - before < 80 * 1024**2
    assert held[-1] == 1


# What the libraries really say, in a process that may have little more address space than it has.
LIMITED = """
import resource, numpy, {library}
from device_runtime.memory import ran_out
taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 64 * 2**20, resource.RLIM_INFINITY))
try:
    {call}
except BaseException as error:
    print(ran_out(error), type(error).__name__, str(error)[:200])
"""
CALLS = {
    "numpy": "numpy.ones(2**30)",
    "torch": "torch.ones(2**30)",
    "onnxruntime": "onnxruntime.InferenceSession(MODEL).run(None, {'x': numpy.ones(1, numpy.int64) * 2**30})",
}


def _script(library: str) -> str:
    script = LIMITED.format(library=library, call=CALLS[library])
    if library != "onnxruntime":
        return script
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return f"MODEL = {model.SerializeToString()!r}\n{script}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited as Linux does it")
@pytest.mark.parametrize("library", CALLS)
def test_a_library_that_runs_out_of_memory_is_understood(library: str) -> None:
    done = subprocess.run([sys.executable, "-c", _script(library)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("True"), done.stdout + done.stderr[-500:]


@pytest.mark.parametrize("error", [ValueError("bad shape"), DeviceError("method 'x' failed: invalid argument")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not ran_out(error)
