"""The executorch engine: a program's .pte on ExecuTorch, by the runtime without PyTorch where it is installed.

Two packages can run a .pte: ``executorch_numpy_runtime`` (Python 3.12 and later, NumPy only, a quarter of the memory)
and the official ``executorch``, whose runtime needs PyTorch. Both are asked for the method's own description, and a
file that says other shapes than its program is refused before it runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from device_runtime.engines.base import Arrays, checked_feed, checked_method, require_engine
from device_runtime.engines.pte_model import check_pte
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Program, Value

DTYPES = {4: "int64", 6: "float32"}  # ExecuTorch's numbers of the two types that go in and out
FORWARD = "forward"  # the only method of an inference model
Described = list[tuple[list[int], str]]  # shape and dtype of each tensor


class Loaded(Protocol):
    """A .pte in one of the runtimes."""

    def methods(self) -> list[str]:
        """Their names."""
        ...

    def describe(self, method: str) -> tuple[Described, Described]:
        """What goes in and what comes out."""
        ...

    def run(self, method: str, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run one method."""
        ...


def engine() -> ExecutorchEngine:
    """The engine on this machine's processor."""
    return ExecutorchEngine()


def open_pte(data: bytes, where: str) -> Loaded:
    """Check a .pte and load it into the runtime that is installed; ``where`` begins the message.

    Raises:
        ProgramError: it is no .pte, or damaged, or of another version.
        ImportError: neither runtime is installed.
    """
    check_pte(data, where)
    make = _NumpyFile if find_spec("executorch_numpy_runtime") is not None else _TorchFile
    try:
        with _quiet():
            return make(data)
    except ImportError:
        raise
    except Exception as error:  # both runtimes have their own; neither tells more than that it did not load
        message = f"{where} holds a file of {len(data)} bytes that ExecuTorch cannot load: {_first_line(error)}"
        raise ProgramError(message) from None


class ExecutorchEngine:
    """Runs programs with ExecuTorch on the processor."""

    name = "executorch"

    def __init__(self) -> None:
        _runtime()

    def load(self, program: Program) -> ExecutorchRunner:
        """Load the file and hold its methods against the program's. Raises ProgramError."""
        require_engine(program, self.name)
        where = f"program {program.group!r}"
        loaded = open_pte(program.file, where)
        there = set(loaded.methods())
        for name, method in program.methods.items():
            if name not in there:
                message = f"{where}: its .pte has no method {name!r}; it has {', '.join(sorted(there))}"
                raise ProgramError(message)
            for kind, values, found in zip(
                ("inputs", "outputs"), (method.inputs, method.outputs), _described(loaded, name, where), strict=True
            ):
                wanted = [(value.shape, value.dtype) for value in values]
                if found != wanted:
                    message = f"{where}: the {kind} of {name!r} are {found} in its .pte, not {wanted}"
                    raise ProgramError(message)
        return ExecutorchRunner(program, loaded)


class ExecutorchRunner:
    """A program that is ready to run."""

    def __init__(self, program: Program, loaded: Loaded) -> None:
        self._program, self._loaded = program, loaded
        self._warm = False

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run ``method``; see ``base.Runner``."""
        declared = checked_method(self._program, method)
        arrays = [checked_feed(value, feeds, method) for value in declared.inputs]
        try:
            results = self._run(method, arrays)
        except Exception as error:  # whatever either runtime raises
            text = _first_line(error)
            message = f"method {method!r} of program {self._program.group!r} failed in ExecuTorch: {text}"
            raise DeviceError(message) from None
        return {value.name: _checked(value, array) for value, array in zip(declared.outputs, results, strict=True)}

    def _run(self, method: str, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if self._warm:
            return self._loaded.run(method, arrays)
        with _quiet():  # the first kernel asks for the processor's features and tells what it did not find
            results = self._loaded.run(method, arrays)
        self._warm = True
        return results


class InferenceModel:
    """A .pte that infers: ``forward``, from a batch of fixed size to one output for each of ``tasks``, in order."""

    engine = "executorch"

    def __init__(self, data: bytes, tasks: Sequence[str]) -> None:
        self._loaded, self._tasks = open_pte(data, "the model"), list(tasks)
        if FORWARD not in self._loaded.methods():
            message = f"the .pte has no method {FORWARD!r}; it has {', '.join(self._loaded.methods())}"
            raise ProgramError(message)
        inputs, outputs = _described(self._loaded, FORWARD, "the model")
        if len(inputs) != 1 or len(outputs) != len(self._tasks):
            message = f"the .pte takes {len(inputs)} tensors and gives {len(outputs)}, not 1 and {len(self._tasks)}"
            raise ProgramError(message)
        batches = {shape[0] if shape and dtype == "float32" else 0 for shape, dtype in (*inputs, *outputs)}
        if len(batches) != 1 or 0 in batches:
            message = f"the .pte takes {inputs} and gives {outputs}; expected batches of one size, float32"
            raise ProgramError(message)
        self._warm = False
        self._sample, self._batch = inputs[0][0][1:], inputs[0][0][0]

    def run(self, x: NDArray[np.float32]) -> Arrays:
        """Every task's output for ``x`` float32 [n, *input_shape]; the last part is filled up with its last sample.

        Raises:
            DeviceError: the samples have another shape than the model's, or ExecuTorch gave up.
        """
        if list(x.shape[1:]) != self._sample or not len(x):
            message = f"the model takes samples of shape {self._sample}, got {list(x.shape)} in all"
            raise DeviceError(message)
        parts = []
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            full = np.concatenate([part, np.repeat(part[-1:], self._batch - len(part), axis=0)])
            try:
                outputs = self._run([np.ascontiguousarray(full, np.float32)])
            except Exception as error:  # whatever either runtime raises
                message = f"the model failed in ExecuTorch: {_first_line(error)}"
                raise DeviceError(message) from None
            parts.append([output[: len(part)] for output in outputs])
        return {task: np.concatenate(rows) for task, rows in zip(self._tasks, zip(*parts, strict=True), strict=True)}

    def _run(self, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        if self._warm:
            return self._loaded.run(FORWARD, arrays)
        with _quiet():
            outputs = self._loaded.run(FORWARD, arrays)
        self._warm = True
        return outputs


def _described(loaded: Loaded, method: str, where: str) -> tuple[Described, Described]:
    """What a method takes and gives; the runtime makes it ready for that. Raises ProgramError."""
    try:
        with _quiet():
            return loaded.describe(method)
    except Exception as error:  # whatever either runtime raises
        message = f"{where}: ExecuTorch cannot prepare its method {method!r}: {_first_line(error)}"
        raise ProgramError(message) from None


def inference_model(data: bytes, tasks: Sequence[str]) -> InferenceModel:
    """Load an inference model, exported for ``tasks`` in this order. Raises ProgramError, ImportError."""
    return InferenceModel(data, tasks)


class _NumpyFile:
    """A .pte in the runtime that needs no PyTorch."""

    def __init__(self, data: bytes) -> None:
        self._data = data  # the runtime reads it in place
        self._program = _runtime().Runtime.get().load_program(data)
        self._ready: dict[str, Any] = {}

    def methods(self) -> list[str]:
        return list(self._program.method_names)

    def describe(self, method: str) -> tuple[Described, Described]:
        about = self._method(method).metadata
        found = [
            [(list(t["shape"]), DTYPES.get(t["scalar_type"], "?")) for t in about[k]] for k in ("inputs", "outputs")
        ]
        return found[0], found[1]

    def run(self, method: str, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        return list(self._method(method)(list(arrays)))

    def _method(self, name: str) -> Any:
        if name not in self._ready:
            self._ready[name] = self._program.load_method(name)
        return self._ready[name]


class _TorchFile:
    """A .pte in the official runtime."""

    def __init__(self, data: bytes) -> None:
        self._data = data  # the runtime reads it in place
        self._torch = importlib.import_module("torch")
        self._module = _runtime()._load_for_executorch_from_buffer(data)

    def methods(self) -> list[str]:
        return list(self._module.method_names())

    def describe(self, method: str) -> tuple[Described, Described]:
        meta = self._module.method_meta(method)
        inputs = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
        outputs = [meta.output_tensor_meta(i) for i in range(meta.num_outputs())]
        found = [[(list(t.sizes()), DTYPES.get(int(t.dtype()), "?")) for t in side] for side in (inputs, outputs)]
        return found[0], found[1]

    def run(self, method: str, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        tensors = tuple(self._torch.from_numpy(array) for array in arrays)
        return [tensor.numpy() for tensor in self._module.run_method(method, tensors)]


def _runtime() -> Any:
    """The installed runtime's module. Raises ImportError."""
    if find_spec("executorch_numpy_runtime") is not None:
        return importlib.import_module("executorch_numpy_runtime")
    importlib.import_module("torch")  # its libraries have to be loaded first
    try:
        # The extension itself: the module around it imports the exporter, which takes seconds and 100 MB.
        return importlib.import_module("executorch.extension.pybindings._C")
    except ImportError:
        return importlib.import_module("executorch.extension.pybindings.portable_lib")


def _checked(value: Value, array: NDArray[Any]) -> NDArray[Any]:
    if list(array.shape) != value.shape or array.dtype.name != value.dtype:
        message = f"output {value.name!r} is {array.dtype.name} of shape {list(array.shape)}, expected {value}"
        raise DeviceError(message)
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the runtime writes to standard error, on its own level, out of our log while it loads and warms up."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nothing)
        os.close(kept)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
