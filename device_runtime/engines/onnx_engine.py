"""The onnxruntime engine: a program's ONNX models on the plain ONNX Runtime, no training extension, no PyTorch.

A model comes from the network. Before ONNX Runtime sees it, ``onnx_model`` makes sure that it names no file and only
standard operators; ONNX Runtime then checks it as a whole. One session a method, made when the method first runs, so
that a device is ready before it has prepared what it does last.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

from device_runtime.engines.base import Arrays, checked_feed, checked_method, require_engine
from device_runtime.engines.onnx_model import check_model
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Method, Program, Value, graph_output

FATAL = 4  # the only messages of its own that ONNX Runtime may print; errors reach us as exceptions
TYPES = {"tensor(float)": "float32", "tensor(int64)": "int64"}


def engine() -> OnnxEngine:
    """The engine on this machine's processor."""
    return OnnxEngine()


class OnnxEngine:
    """Runs programs with ONNX Runtime on the processor."""

    name = "onnxruntime"

    def __init__(self) -> None:
        onnxruntime.disable_telemetry_events()
        _share_memory()

    def load(self, program: Program) -> OnnxRunner:
        """Check every model of ``program`` and prepare the training step. Raises ProgramError."""
        require_engine(program, self.name)
        for name, method in program.methods.items():
            check_model(method.graph, _where(program, name))
        runner = OnnxRunner(program)
        if "train_step" in program.methods:
            runner.session("train_step")
        return runner


class OnnxRunner:
    """A program that is ready to run."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def session(self, method: str) -> onnxruntime.InferenceSession:
        """The session of ``method``, made on first use. Raises ProgramError if its model is not sound."""
        if method not in self._sessions:
            self._sessions[method] = _session(self._program.methods[method], _where(self._program, method))
        return self._sessions[method]

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run ``method``; see ``base.Runner``."""
        declared = checked_method(self._program, method)
        arrays = {value.name: checked_feed(value, feeds, method) for value in declared.inputs}
        session = self.session(method)
        try:
            results = session.run([graph_output(value.name) for value in declared.outputs], arrays)
        except Exception as error:  # whatever ONNX Runtime raises; its classes have no public base
            text = _first_line(error)
            message = f"method {method!r} of program {self._program.group!r} failed in ONNX Runtime: {text}"
            raise DeviceError(message) from None
        return {value.name: np.asarray(array) for value, array in zip(declared.outputs, results, strict=True)}


@functools.cache
def _share_memory() -> None:
    """Make one pool of memory for every session of this process: what a method has given back, the next one takes.

    A pool for each session is never given back: 600 MB instead of 444 for a network of 0.9 million weights and three
    methods on 16 images, in the same CPU time.
    """
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, None)


def _session(method: Method, where: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Plans a block for everything beside what the first run took piece by piece: 210 MB instead of 140 for a network of
    # 0.9 million weights on 8 images, and not faster.
    options.enable_mem_pattern = False
    try:
        session = onnxruntime.InferenceSession(method.graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as above
        message = f"{where} is no model that ONNX Runtime {onnxruntime.__version__} can run: {_first_line(error)}"
        raise ProgramError(message) from None
    _check_values(method.inputs, session.get_inputs(), f"{where}: inputs")
    outputs = [Value(graph_output(value.name), value.shape, value.dtype) for value in method.outputs]
    _check_values(outputs, session.get_outputs(), f"{where}: outputs")
    return session


def _check_values(declared: Sequence[Value], found: Sequence[Any], where: str) -> None:
    got = [Value(value.name, value.shape, TYPES.get(value.type, value.type)) for value in found]
    for expected, value in zip_longest(declared, got):
        if expected != value:
            message = f"{where} of the program and of its model differ: {expected} is declared, the model has {value}"
            raise ProgramError(message)


def _threads() -> int:
    """One, as a device has other work to do, unless OMP_NUM_THREADS asks for more."""
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    return max(1, int(asked)) if asked.isdigit() else 1


def _where(program: Program, method: str) -> str:
    return f"method {method[:100]!r} of program {program.group!r}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
