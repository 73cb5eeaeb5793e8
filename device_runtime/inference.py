"""Deployed models: one way to open a file and run it, whichever engine it was made for.

What the file is, is told by its content. The library that runs it is imported only then: a device that trains with one
engine may answer with another, and needs no third.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.engines import ENGINES
from device_runtime.engines.onnx_model import check_model
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.models import ENGINE_OF, format_of

INPUT = "x"
THREADS = 2  # leaves the other cores of a four-core board to whatever else the device is for
FATAL = 4  # the only messages of its own that ONNX Runtime may print; what goes wrong is in the reason

Answers = dict[str, NDArray[np.float32]]


class Model(Protocol):
    """A model that is ready to answer."""

    @property
    def engine(self) -> str:
        """The engine that runs it."""
        ...

    def run(self, x: NDArray[np.float32]) -> Answers:
        """The answers to ``x`` float32 [n, *input_shape] by task, each [n, ...]; any n from 1 on.

        Raises:
            DeviceError: the samples have another shape than the model's, or the engine gave up.
        """
        ...


def open_model(source: Path | bytes, tasks: Sequence[str]) -> Model:
    """Load a model file; ``tasks`` in the group's order, for a format that does not name its outputs.

    Raises:
        ProgramError: the file is of no known format, damaged, or does not take ``x`` and answer for each task.
        DeviceError: it is not there, or the engine that runs it is not installed.
    """
    data = _read(source) if isinstance(source, Path) else source
    engine = ENGINE_OF[format_of(data)]
    try:
        return _OPENERS[engine](data, tasks)
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        install = ENGINES[engine].install
        message = f"the model needs {engine}, which is not installed on this device ({error}): {install}"
        raise DeviceError(message) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        message = f"there is no model file {path.name}"
        raise DeviceError(message) from None
    except OSError as error:
        message = f"the model file {path.name} cannot be read: {error.strerror}"
        raise DeviceError(message) from None


class OnnxModel:
    """An ONNX model with a free batch size on ONNX Runtime, its outputs named by task."""

    engine = "onnxruntime"

    def __init__(self, data: bytes, tasks: Sequence[str]) -> None:
        check_model(data, "the model file")
        self._session = _onnx_session(data)
        inputs = [value.name for value in self._session.get_inputs()]
        outputs = [value.name for value in self._session.get_outputs()]
        if inputs != [INPUT] or sorted(outputs) != sorted(tasks):
            message = f"the model takes {inputs} and gives {outputs}; expected {[INPUT]} and {list(tasks)}"
            raise ProgramError(message)
        self._shape = list(self._session.get_inputs()[0].shape[1:])
        self._tasks = list(tasks)

    def run(self, x: NDArray[np.float32]) -> Answers:
        """See ``Model``."""
        require_samples(x, self._shape)
        try:
            outputs = self._session.run(self._tasks, {INPUT: x})
        except Exception as error:  # onnxruntime's errors share no base class
            message = f"the model does not run on an input of shape {list(x.shape)}: {_first_line(error)}"
            raise DeviceError(message) from None
        return dict(zip(self._tasks, outputs, strict=True))


def require_samples(x: NDArray[np.float32], shape: Sequence[int]) -> None:
    """Raise DeviceError if ``x`` is not float32 [n, *shape]."""
    if list(x.shape[1:]) != list(shape) or x.ndim == 0 or x.dtype != np.float32:
        message = f"the model takes float32 samples of shape {list(shape)}, got {x.dtype} of shape {list(x.shape[1:])}"
        raise DeviceError(message)


def _onnx_session(data: bytes) -> Any:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        message = f"onnxruntime cannot load the model file of {len(data)} bytes: {_first_line(error)}"
        raise ProgramError(message) from None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _executorch(data: bytes, tasks: Sequence[str]) -> Model:
    model: Model = importlib.import_module("device_runtime.engines.executorch_engine").inference_model(data, tasks)
    return model


def _litert(data: bytes, _tasks: Sequence[str]) -> Model:
    model: Model = importlib.import_module("device_runtime.engines.litert_engine").inference_model(data)
    return model


_OPENERS = {"onnxruntime": OnnxModel, "executorch": _executorch, "litert": _litert}
