"""Does an engine work on this machine, and how fast? One training step with a known answer, in a process of its own.

python -m device_runtime.engines.selftest onnxruntime

The program is a small real one (three convolutions with group norm, a class and a value; 8 images of 32x32): kernels,
not calls, take the time. It and the answer of eager PyTorch lie beside this module; ``tools/make_selftest.py`` makes
them. Prints one line of JSON, a ``SelfTest``. A library that crashes, hangs or eats memory harms this process only.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_runtime.engines import base_name, open_engine, verdict
from device_runtime.engines.base import Arrays, Runner
from device_runtime.engines.verdict import SelfTest, installed_version
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.program import Program, TargetSpec, Value
from mas_edge.protocol.weights import unpack

DATA = verdict.DATA
ANSWER = "answer.tensors"  # safetensors; shared by all engines, as they compute the same step
METHOD = "train_step"
TOLERANCE = 1e-5  # as in mas_edge.export.verify: of one call in float32
HYPER = (0.1, 0.9, 1e-3, 0.0)  # learning rate, momentum, weight decay, FedProx (off)
WARM_UP = 2  # steps before the clock starts
STEPS, BUDGET_S = 9, 2.0  # the median of nine; of fewer on a machine that needs longer
LIFE_S = 600  # when the system ends this process even if whoever started it is gone


def main(arguments: Sequence[str]) -> int:
    """Test the engine that is named; 0 if it works."""
    signal.alarm(LIFE_S)
    with contextlib.suppress(OSError):  # where memory runs out, this process is to go, not the agent
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    (name,) = arguments
    try:
        result = examine(name)
    except EdgeError as error:
        result = SelfTest(engine=name, error=str(error))
    except MemoryError:
        result = SelfTest(engine=name, error="not enough memory for the self-test")
    except Exception as error:  # a fault of a library
        result = SelfTest(engine=name, error=f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}")
    sys.stdout.write("\n" + msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()
    return 1 if result.error else 0


def examine(name: str) -> SelfTest:
    """Load and run the test program in this process.

    Raises:
        DeviceError: no program ships for this engine, it does not start, or it computes something else.
        ProgramError: the engine refuses the program, or the file is damaged.
    """
    began = time.perf_counter()
    program, answer = read(base_name(name))
    runner = open_engine(name).load(program)
    ready_s, ready_cpu_s = time.perf_counter() - began, time.process_time()
    feeds = feeds_of(program)
    require_equal(runner.run(METHOD, feeds), answer)
    walls, cpus = _times(runner, feeds)
    return SelfTest(
        engine=name, version=installed_version(name), step_ms=1000 * statistics.median(walls),
        step_cpu_ms=1000 * statistics.median(cpus), ready_s=ready_s, ready_cpu_s=ready_cpu_s, memory_mb=_memory_mb(),
        cuda=_sees_cuda(),
    )  # fmt: skip


def read(engine: str) -> tuple[Program, Mapping[str, NDArray[np.float32]]]:
    """The test program of ``engine`` and what it must give. Raises DeviceError if none ships."""
    file = program_file(engine)
    try:
        program, answer = program_format.load(file.read_bytes()), unpack((DATA / ANSWER).read_bytes())
    except FileNotFoundError as error:
        message = f"no self-test for {engine!r} ships with this version ({Path(error.filename).name} is missing)"
        raise DeviceError(message) from None
    return program, answer


def program_file(engine: str) -> Path:
    """Where the test program of ``engine`` lies."""
    return DATA / f"{engine}.program"


def feeds_of(program: Program) -> Arrays:
    """The inputs of the step. From integer arithmetic: the same on every machine and with every NumPy."""
    return {value.name: _feed(seed, value, program) for seed, value in enumerate(program.methods[METHOD].inputs)}


def _feed(seed: int, value: Value, program: Program) -> NDArray[Any]:
    if value.name == "hyper":
        return np.array(HYPER, np.float32)
    kind, _, task = value.name.partition(".")
    if kind in ("mask", "task_weights"):
        return np.ones(value.shape, np.float32)
    spread = _spread(seed, value.shape)
    if value.dtype == "int64":
        return _classes(spread, program.targets[task])
    return (spread * (2.0 if kind == "x" else 0.5)).astype(np.float32)


def _spread(seed: int, shape: list[int]) -> NDArray[np.float64]:
    """Numbers spread over [-0.5, 0.5): the bits of each index, mixed (the last step of MurmurHash3)."""
    bits = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(seed << 20) + np.uint64(1)
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        bits = ((bits ^ (bits >> np.uint64(15))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return ((bits ^ (bits >> np.uint64(16))) / 2**32 - 0.5).reshape(shape)


def _classes(spread: NDArray[np.float64], target: TargetSpec) -> NDArray[np.int64]:
    return ((spread + 0.5) * target.classes).astype(np.int64)


def require_equal(got: Arrays, answer: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise DeviceError unless each output is the answer: max|got - answer| <= TOLERANCE * max|answer|."""
    for name, expected in answer.items():
        array = got.get(name)
        if array is None or array.shape != expected.shape:
            shape = "nothing" if array is None else f"shape {list(array.shape)}"
            message = f"its train step gives {shape} for {name!r}, expected shape {list(expected.shape)}"
            raise DeviceError(message)
        difference = float(np.abs(array - expected).max() / np.abs(expected).max())
        if not difference <= TOLERANCE:  # also if it is not a number
            message = f"it computes wrong numbers: {name!r} is off by {difference:.2g} (allowed: {TOLERANCE:g})"
            raise DeviceError(message)


def _times(runner: Runner, feeds: Arrays) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of single steps."""
    walls: list[float] = []
    cpus: list[float] = []
    for step in range(WARM_UP + STEPS):
        wall, cpu = time.perf_counter(), time.process_time()
        runner.run(METHOD, feeds)
        if step >= WARM_UP:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        if sum(walls) > BUDGET_S:
            break
    return walls, cpus


def _sees_cuda() -> bool:
    torch: Any = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def _memory_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:  # not Linux; bytes on macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
