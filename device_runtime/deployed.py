"""The health check of a deployed model: does this file, on this device, do what it did on the server?

A model that is not healthy is an answer, not an error: whatever is wrong with the file, its outputs or its speed comes
back as ``healthy=False`` with a reason for people, and the slot that held the last good model stays active.
"""

from __future__ import annotations

import importlib
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.data import DataFolder
from device_runtime.data_check import TEST
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.weights import unpack

INPUT = "x"
OUTPUT_PREFIX = "out."  # a golden file holds ``x`` and ``out.<task>``
THREADS = 2  # leaves the other cores of a four-core board to whatever else the device is for
OWN_SAMPLES, OWN_BATCH = 256, 16  # enough to meet an odd sample; bounded, as a check must not become a benchmark
LATENCY_RUNS = 5  # the median of five ignores one or two runs that the system interrupted

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Health:
    """What the check found. ``max_difference`` is relative to max(1, |golden|), comparable with the tolerance."""

    healthy: bool
    reason: str  # for people; "" if healthy
    latency_s: float = 0.0  # median of single-sample runs; 0 if it never ran
    max_difference: float = 0.0
    samples: int = 0  # of the device's own test split that went through it


class _Unhealthy(Exception):  # noqa: N818 - carries a reason out of the checks below, never leaves this module
    """The model fails the check that is being made."""


def check_health(
    model_path: Path, golden: bytes, tolerance: float, max_latency_s: float, data: DataFolder | None = None
) -> Health:
    """Load the ONNX model, run the golden inputs, measure the latency, and run the device's own test samples.

    Healthy means: |output - golden| <= ``tolerance`` * max(1, |golden|) everywhere, the median latency of a single
    sample is at most ``max_latency_s``, and every output on the device's own samples is finite.
    """
    found: dict[str, Any] = {}
    try:
        expected = _golden(golden)
        session = _session(model_path)
        _check_signature(session, expected)
        found["max_difference"] = difference = _difference(_run(session, expected[INPUT]), expected)
        found["latency_s"] = latency = _latency(session, expected[INPUT][:1])
        _require(
            difference <= tolerance, f"outputs differ from the golden ones by {difference:.2g}, allowed {tolerance:g}"
        )
        _require(latency <= max_latency_s, f"one sample takes {latency:.3g} s, allowed {max_latency_s:g} s")
        if data is not None:
            found["samples"] = _own_samples(session, data, expected)
    except _Unhealthy as problem:
        return Health(healthy=False, reason=str(problem), **found)
    return Health(healthy=True, reason="", **found)


def _require(fine: bool, otherwise: str) -> None:
    if not fine:
        raise _Unhealthy(otherwise)


def _golden(data: bytes) -> Tensors:
    try:
        tensors = unpack(data)
    except EdgeError as error:
        message = f"the golden samples cannot be read: {error}"
        raise _Unhealthy(message) from None
    if INPUT not in tensors or tensors[INPUT].ndim < 2 or len(tensors[INPUT]) == 0 or len(tensors) < 2:
        message = f"the golden samples hold {', '.join(tensors) or 'nothing'}; expected x and out.<task>"
        raise _Unhealthy(message)
    return tensors


def _session(path: Path) -> Any:
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")  # only now: a device that trains need not have it
    except ImportError:
        message = "onnxruntime is not installed on this device: pip install 'mas-edge[onnx]'"
        raise _Unhealthy(message) from None
    if not path.is_file():
        message = f"there is no model file {path.name}"
        raise _Unhealthy(message)
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: what goes wrong is in the reason
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        message = f"onnxruntime cannot load the model file of {path.stat().st_size} bytes: {_first_line(error)}"
        raise _Unhealthy(message) from None


def _check_signature(session: Any, expected: Tensors) -> None:
    inputs = {value.name: list(value.shape[1:]) for value in session.get_inputs()}
    wanted = {INPUT: list(expected[INPUT].shape[1:])}
    if inputs != wanted:
        message = f"the model takes {inputs} (name: shape of one sample), the golden samples are {wanted}"
        raise _Unhealthy(message)
    outputs = {OUTPUT_PREFIX + value.name for value in session.get_outputs()}
    if outputs != expected.keys() - {INPUT}:
        message = f"the model gives {sorted(outputs)}, the golden samples have {sorted(expected.keys() - {INPUT})}"
        raise _Unhealthy(message)


def _run(session: Any, x: NDArray[np.float32]) -> Tensors:
    names = [value.name for value in session.get_outputs()]
    try:
        outputs = session.run(names, {INPUT: x})
    except Exception as error:  # onnxruntime's errors share no base class
        message = f"the model does not run on an input of shape {x.shape}: {_first_line(error)}"
        raise _Unhealthy(message) from None
    for name, output in zip(names, outputs, strict=True):
        if not np.isfinite(output).all():
            message = f"the model's output {name!r} is not finite (NaN or infinity) on an input of shape {x.shape}"
            raise _Unhealthy(message)
    return {OUTPUT_PREFIX + name: output for name, output in zip(names, outputs, strict=True)}


def _own_samples(session: Any, data: DataFolder, expected: Tensors) -> int:
    """Run the first test samples of this device, whose outputs must be finite; return how many ran."""
    _require(
        data.input_shape == list(expected[INPUT].shape[1:]),
        f"the model takes samples of shape {list(expected[INPUT].shape[1:])}, this device's are {data.input_shape}",
    )
    rows = np.flatnonzero(data.arrays["split"] == TEST)[:OWN_SAMPLES]
    for start in range(0, len(rows), OWN_BATCH):
        _run(session, np.asarray(data.arrays["x"][rows[start : start + OWN_BATCH]], np.float32))
    return len(rows)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _difference(outputs: Tensors, expected: Tensors) -> float:
    worst = 0.0
    for name, got in outputs.items():
        golden = expected[name]
        if got.shape != golden.shape:
            message = f"the model's output {name!r} has shape {got.shape}, the golden samples have {golden.shape}"
            raise _Unhealthy(message)
        worst = max(worst, float(np.max(np.abs(got - golden) / np.maximum(1.0, np.abs(golden)), initial=0.0)))
    return worst


def _latency(session: Any, x: NDArray[np.float32]) -> float:
    """The median wall seconds of running one sample; the golden run before was the warm-up."""
    seconds = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        _run(session, x)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
