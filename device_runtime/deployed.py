"""The health check of a deployed model: does this file, on this device, do what it did on the server?

A model that is not healthy is an answer, not an error: whatever is wrong with the file, its outputs or its speed comes
back as ``healthy=False`` with a reason for people, and the slot that held the last good model stays active. What may be
this device's own fault for a while (a missing engine, no memory left) is told apart: ``final`` is then False.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runtime.data import DataFolder
from device_runtime.data_check import TEST
from device_runtime.inference import INPUT, Model, open_model
from device_runtime.memory import in_units, resident_bytes
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.models import ENGINE_OF
from mas_edge.protocol.weights import unpack

OUTPUT_PREFIX = "out."  # a golden file holds ``x`` and ``out.<task>``, the tasks in the group's order
OWN_SAMPLES, OWN_BATCH = 256, 16  # enough to meet an odd sample; bounded, as a check must not become a benchmark
OWN_S = 60.0  # nor take long where a sample takes seconds
LATENCY_RUNS = 5  # the median of five ignores one or two runs that the system interrupted

Tensors = dict[str, NDArray[np.float32]]


class Bounds(msgspec.Struct, frozen=True):
    """What a model must keep to."""

    tolerance: float  # of the golden outputs, relative to max(1, their magnitude)
    max_latency_s: float  # median, for one sample
    max_memory_bytes: int = 0  # that loading and running it may add to the process; 0 = no limit


class Health(msgspec.Struct, frozen=True):
    """What the check found. ``max_difference`` is relative to max(1, |golden|), comparable with the tolerance."""

    healthy: bool
    reason: str  # for people; "" if healthy
    latency_s: float = 0.0  # median of single-sample runs; 0 if it never ran
    max_difference: float = 0.0
    samples: int = 0  # of the device's own test split that went through it
    engine: str = ""  # what ran it; empty if it was never loaded
    memory_bytes: int = 0  # that loading and running it has added to the process
    final: bool = True  # another try would end the same way, unless the model is another one


class _Unhealthy(Exception):  # noqa: N818 - carries a reason out of the checks below, never leaves this module
    """The model fails the check that is being made."""

    def __init__(self, reason: str, *, final: bool = True) -> None:
        super().__init__(reason)
        self.final = final


def check_health(
    model_path: Path, golden: bytes, bounds: Bounds, data: DataFolder | None = None, held: int = 0
) -> Health:
    """Load the model, run the golden inputs, measure latency and memory, and run the device's own test samples.

    Healthy means: |output - golden| <= tolerance * max(1, |golden|) everywhere, the median latency of a single sample
    and the memory are within ``bounds``, and every output on the device's own samples is finite. ``held``: the bytes of
    memory that count as the process's own; 0 = what it holds now.
    """
    found: dict[str, Any] = {}
    held = held or resident_bytes()
    try:
        expected = _golden(golden)
        model = _opened(model_path, _tasks(expected))
        found["engine"] = model.engine
        suffix = model_path.suffix[1:]
        _require(ENGINE_OF.get(suffix) == model.engine, f"the model is for {model.engine} and was sent as {suffix}")
        found["max_difference"] = difference = _difference(_run(model, expected[INPUT]), expected)
        found["latency_s"] = latency = _latency(model, expected[INPUT][:1])
        found["memory_bytes"] = memory = max(0, resident_bytes() - held)
        _require(
            difference <= bounds.tolerance,
            f"outputs differ from the golden ones by {difference:.2g}, allowed {bounds.tolerance:g}",
        )
        _require(
            latency <= bounds.max_latency_s, f"one sample takes {latency:.3g} s, allowed {bounds.max_latency_s:g} s"
        )
        _require(
            memory <= bounds.max_memory_bytes or not bounds.max_memory_bytes,
            f"it adds {in_units(memory)} to the process, allowed {in_units(bounds.max_memory_bytes)}",
        )
        if data is not None:
            found["samples"] = _own_samples(model, data, expected)
    except _Unhealthy as problem:
        return Health(healthy=False, reason=str(problem), final=problem.final, **found)
    except EdgeError as problem:
        return Health(healthy=False, reason=str(problem), **found)
    except MemoryError:
        reason = "there is not enough memory on this device to run the model"
        return Health(healthy=False, reason=reason, final=False, **found)
    except Exception as error:  # the file is foreign and its runtime native: whatever it raises is about the file
        text = str(error).strip().partition("\n")[0][:300]
        return Health(healthy=False, reason=f"the model cannot be run: {text or type(error).__name__}", **found)
    return Health(healthy=True, reason="", **found)


def measured_latency(model_path: Path, golden: bytes) -> float:
    """The median wall seconds of one sample of a model that is in use; 0 if it does not run."""
    try:
        expected = _golden(golden)
        model = _opened(model_path, _tasks(expected))
        _run(model, expected[INPUT])  # warms up, as the check of the other one does
        return _latency(model, expected[INPUT][:1])
    except Exception:  # as in check_health: a model that is in use was healthy once, and is not on trial now
        return 0.0


def _opened(path: Path, tasks: list[str]) -> Model:
    try:
        return open_model(path, tasks)
    except DeviceError as error:  # its engine is not installed, or the file cannot be read: not what the model is
        raise _Unhealthy(str(error), final=False) from None


def _require(fine: bool, otherwise: str, *, final: bool = True) -> None:
    if not fine:
        raise _Unhealthy(otherwise, final=final)


def _golden(data: bytes) -> Tensors:
    try:
        tensors = unpack(data)
    except EdgeError as error:
        message = f"the golden samples cannot be read: {error}"
        raise _Unhealthy(message, final=False) from None
    if INPUT not in tensors or tensors[INPUT].ndim < 2 or len(tensors[INPUT]) == 0 or len(tensors) < 2:
        message = f"the golden samples hold {', '.join(tensors) or 'nothing'}; expected x and out.<task>"
        raise _Unhealthy(message, final=False)
    return tensors


def _tasks(golden: Tensors) -> list[str]:
    return [name.removeprefix(OUTPUT_PREFIX) for name in golden if name != INPUT]


def _run(model: Model, x: NDArray[np.float32]) -> Tensors:
    outputs = model.run(x)
    for task, output in outputs.items():
        if not np.isfinite(output).all():
            message = f"the model's output {task!r} is not finite (NaN or infinity) on an input of shape {x.shape}"
            raise _Unhealthy(message)
    return {OUTPUT_PREFIX + task: output for task, output in outputs.items()}


def _own_samples(model: Model, data: DataFolder, expected: Tensors) -> int:
    """Run the first test samples of this device, whose outputs must be finite; return how many ran."""
    _require(
        data.input_shape == list(expected[INPUT].shape[1:]),
        f"the model takes samples of shape {list(expected[INPUT].shape[1:])}, this device's are {data.input_shape}",
        final=False,
    )
    rows = np.flatnonzero(data.arrays["split"] == TEST)[:OWN_SAMPLES]
    until = time.monotonic() + OWN_S
    for start in range(0, len(rows), OWN_BATCH):
        if time.monotonic() > until:
            return start
        _run(model, np.asarray(data.arrays["x"][rows[start : start + OWN_BATCH]], np.float32))
    return len(rows)


def _difference(outputs: Tensors, expected: Tensors) -> float:
    if outputs.keys() != expected.keys() - {INPUT}:
        message = f"the model gives {sorted(outputs)}, the golden samples have {sorted(expected.keys() - {INPUT})}"
        raise _Unhealthy(message)
    worst = 0.0
    for name, got in outputs.items():
        golden = expected[name]
        if got.shape != golden.shape:
            message = f"the model's output {name!r} has shape {got.shape}, the golden samples have {golden.shape}"
            raise _Unhealthy(message)
        worst = max(worst, float(np.max(np.abs(got - golden) / np.maximum(1.0, np.abs(golden)), initial=0.0)))
    return worst


def _latency(model: Model, x: NDArray[np.float32]) -> float:
    """The median wall seconds of running one sample; the golden run before was the warm-up."""
    seconds = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        _run(model, x)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
