"""The litert engine: a program's .tflite on LiteRT, no PyTorch and no TensorFlow.

Training is experimental. ``tflite-runtime`` 2.14, the last of the name that LiteRT had before, runs the same files and
gives the same numbers. It needs 2 MB and NumPy 1, and is published for 32-bit ARM as well.

A file comes from the network. Before native code sees it, ``tflite_model`` makes sure that it holds together.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.engines.base import Arrays, checked_feed, checked_method, require_engine
from device_runtime.engines.tflite_model import read_model
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Program, Value, graph_output

CURRENT, OLD = "ai_edge_litert", "tflite_runtime"
INPUT, SIGNATURE = "x", "infer"
FLOAT, INT8 = np.dtype(np.float32), np.dtype(np.int8)
INSTALL = "pip install 'mas-edge[litert]'"


def engine() -> LiteRTEngine:
    """The engine on this machine's processor.

    Raises:
        ImportError: LiteRT is not installed.
        DeviceError: NumPy is too new for the library that is.
    """
    _library()
    return LiteRTEngine()


def _library() -> Any:
    """The interpreter's module: the current library, else the old one. Raises ImportError, DeviceError."""
    try:
        return importlib.import_module(f"{CURRENT}.interpreter")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != CURRENT:
            raise
    if int(np.__version__.partition(".")[0]) >= 2:
        message = f"tflite-runtime cannot use NumPy {np.__version__}: pip install 'numpy<2', or {INSTALL}"
        raise DeviceError(message)
    return importlib.import_module(f"{OLD}.interpreter")


class LiteRTEngine:
    """Runs programs with LiteRT on the processor."""

    name = "litert"

    def load(self, program: Program) -> LiteRTRunner:
        """Check the file of ``program`` and what its signatures take and give. Raises ProgramError."""
        require_engine(program, self.name)
        where = f"program {program.group!r}"
        signatures = read_model(program.file, where).signatures
        missing = [name for name in program.methods if name not in signatures]
        if missing:
            message = f"{where} has no signature for {', '.join(missing)}; its file has {', '.join(signatures)}"
            raise ProgramError(message)
        interpreter = _interpreter(program.file, where)
        runners = {name: _signature_runner(interpreter, name, where) for name in program.methods}
        for name, method in program.methods.items():
            outputs = [Value(graph_output(value.name), value.shape, value.dtype) for value in method.outputs]
            _check_values(method.inputs, runners[name].get_input_details(), f"{where}: inputs of {name!r}")
            _check_values(outputs, runners[name].get_output_details(), f"{where}: outputs of {name!r}")
        return LiteRTRunner(program, runners)


class LiteRTRunner:
    """A program that is ready to run."""

    def __init__(self, program: Program, runners: Mapping[str, Any]) -> None:
        self._program, self._runners = program, runners

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run ``method``; see ``base.Runner``."""
        declared = checked_method(self._program, method)
        arrays = {value.name: checked_feed(value, feeds, method) for value in declared.inputs}
        try:
            results = self._runners[method](**arrays)
        except Exception as error:  # ValueError, RuntimeError: whatever LiteRT raises
            message = f"method {method!r} of program {self._program.group!r} failed in LiteRT: {_first_line(error)}"
            raise DeviceError(message) from None
        return {value.name: np.asarray(results[graph_output(value.name)]) for value in declared.outputs}


class LiteRTModel:
    """An inference model for one sample a call; floats go in and come out, also where the file computes in int8."""

    engine = "litert"

    def __init__(self, data: bytes) -> None:
        where = "the model file"
        signatures = read_model(data, where).signatures
        if SIGNATURE not in signatures or signatures[SIGNATURE].inputs != [INPUT]:
            found = {name: signature.inputs for name, signature in signatures.items()}
            message = f"{where} has the signatures {found} (name: inputs); expected {SIGNATURE} of [{INPUT!r}]"
            raise ProgramError(message)
        self._runner = _signature_runner(_interpreter(data, where), SIGNATURE, where)
        self._input = self._runner.get_input_details()[INPUT]
        self._outputs = self._runner.get_output_details()
        for name, details in ((INPUT, self._input), *self._outputs.items()):
            shape, dtype = [int(size) for size in details["shape"]], np.dtype(details["dtype"])
            if not shape or shape[0] != 1 or dtype not in (FLOAT, INT8):
                message = f"{where}: {name!r} is {dtype} of shape {shape}; expected one sample, float32 or int8"
                raise ProgramError(message)

    def run(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The answers to ``x`` float32 [n, *input_shape] by task, each [n, ...].

        Raises:
            DeviceError: ``x`` has another shape or dtype, or LiteRT gave up.
        """
        shape = [int(size) for size in self._input["shape"][1:]]
        if x.dtype != FLOAT or list(x.shape[1:]) != shape or x.ndim == 0 or len(x) == 0:
            message = f"the model takes float32 samples of shape {shape}, got {x.dtype} of shape {list(x.shape[1:])}"
            raise DeviceError(message)
        samples = _stored(x, self._input)
        try:
            answers = [self._runner(**{INPUT: samples[i : i + 1]}) for i in range(len(samples))]
        except Exception as error:  # as above
            message = f"the model does not run on an input of shape {list(x.shape)}: {_first_line(error)}"
            raise DeviceError(message) from None
        return {
            task: _real(np.concatenate([answer[task] for answer in answers]), details)
            for task, details in self._outputs.items()
        }


def inference_model(data: bytes) -> LiteRTModel:
    """The model in the .tflite ``data``, on whichever LiteRT library is installed.

    Raises:
        ProgramError: the file is damaged, or is no inference model of this kit.
        ImportError: no LiteRT library is installed.
        DeviceError: the library does not go together with the NumPy that is here.
    """
    return LiteRTModel(data)


def _stored(x: NDArray[np.float32], details: Mapping[str, Any]) -> NDArray[Any]:
    """``x`` as the file takes it: int8 q = round(x / scale) + zero, or as it is."""
    if np.dtype(details["dtype"]) == FLOAT:
        return np.ascontiguousarray(x)
    scale, zero = details["quantization"]
    stored: NDArray[Any] = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
    return stored


def _real(values: NDArray[Any], details: Mapping[str, Any]) -> NDArray[np.float32]:
    """What the file gives as float32: x = scale * (q - zero)."""
    if values.dtype == FLOAT:
        return values
    scale, zero = details["quantization"]
    real: NDArray[np.float32] = ((values.astype(np.float32) - zero) * scale).astype(np.float32)
    return real


def _interpreter(data: bytes, where: str) -> Any:
    library = _library()
    try:
        return library.Interpreter(model_content=data, num_threads=_threads())
    except Exception as error:  # as above
        message = f"{where} is no model that {library.__name__.partition('.')[0]} can run: {_first_line(error)}"
        raise ProgramError(message) from None


def _signature_runner(interpreter: Any, name: str, where: str) -> Any:
    try:
        runner = interpreter.get_signature_runner(name)
    except Exception as error:  # as above
        message = f"{where}: LiteRT cannot prepare {name!r}: {_first_line(error)}"
        raise ProgramError(message) from None
    return runner


def _check_values(declared: list[Value], details: Mapping[str, Any], where: str) -> None:
    """Raise ProgramError if the file takes or gives something else than the program says."""
    said = {value.name: (value.dtype, list(value.shape)) for value in declared}
    held = {name: (np.dtype(d["dtype"]).name, [int(size) for size in d["shape"]]) for name, d in details.items()}
    for name in sorted(said.keys() | held.keys()):
        if said.get(name) != held.get(name):
            message = f"{where}: {name!r} is {said.get(name)} in the program, {held.get(name)} in its file"
            raise ProgramError(message)


def _threads() -> int:
    """One, as a device has other work to do, unless OMP_NUM_THREADS asks for more."""
    asked = os.environ.get("OMP_NUM_THREADS", "1")
    return max(1, int(asked)) if asked.isdigit() else 1


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
