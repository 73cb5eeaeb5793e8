"""What a group can be exported to: one row a target, one emitter an engine, imported when they are first used.

A target's exporters may need packages that do not go together with another's, so that nothing of them is imported
before it is asked for, and what is missing is said in one line before anything begins.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.program import Program

FP32, INT8 = "fp32", "int8"
Emit = Callable[[Program], Program]


@dataclass(frozen=True)
class Target:
    """One form that a trained group can leave the server in."""

    name: str
    suffix: str  # of the inference model
    engine: str  # what runs the model, and the training program where there is one
    exporter: str  # the module with ``export_inference``, or ``export_micro``
    emitter: str  # the module with ``emit``: a training program with all methods; "" = the target cannot train
    packages: tuple[str, ...]  # what must be importable to export
    install: str
    precisions: tuple[str, ...] = (FP32, INT8)
    experimental: bool = False  # of training
    batch: str = "one sample a call"
    dtype: str = "float32"  # of inputs and outputs


_LITERT = "pip install 'mas-edge[litert-export]' in an environment of its own"
TARGETS = {
    target.name: target
    for target in (
        Target(
            "onnx", "onnx", "onnxruntime", "mas_edge.export.inference", "mas_edge.export.onnx_training",
            ("onnx", "onnxscript", "onnxruntime"), "pip install 'mas-edge[server]'", batch="any batch size",
        ),
        Target(
            "executorch", "pte", "executorch", "mas_edge.export.executorch.inference", "mas_edge.export.executorch",
            ("executorch", "torchao"), "pip install 'mas-edge[executorch-export]'",
        ),
        Target(
            "litert", "tflite", "litert", "mas_edge.export.litert.inference", "mas_edge.export.litert.training",
            ("litert_torch", "ai_edge_litert"), _LITERT, experimental=True,
        ),
        Target(
            "micro", "tflite", "tflite-micro", "mas_edge.export.micro", "",
            ("litert_torch", "ai_edge_litert", "tflite_micro"), _LITERT, (INT8,), dtype="int8",
        ),
    )
}  # fmt: skip
_EMITTERS = {target.engine: target for target in TARGETS.values() if target.emitter}


def find_targets(names: Sequence[str]) -> list[Target]:
    """The targets called ``names``, each once, in that order.

    Raises:
        ServerError: there is no such target, or a package that it needs is not installed.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in TARGETS:
            message = f"there is no target {name!r}; allowed: {', '.join(TARGETS)}"
            raise ServerError(message)
        require_installed(TARGETS[name])
        found.append(TARGETS[name])
    return found


def require_installed(target: Target) -> None:
    """Raise ServerError that names what is missing to export to ``target`` and how to get it. Imports nothing."""
    missing = [package for package in target.packages if find_spec(package) is None]
    if missing:
        message = f"exporting to {target.name} needs {', '.join(missing)}: {target.install}"
        raise ServerError(message)


def emitter_of(engine: str) -> Emit:
    """What turns a traced program into one for ``engine``; that of torch is the traced program itself.

    Raises:
        ServerError: a package that it needs is not installed.
    """
    if engine == "torch":
        return lambda program: program
    target = _EMITTERS[engine]
    emit: Emit = _import(target, target.emitter).emit
    return emit


def exporter_of(target: Target) -> Any:
    """The module that exports the inference model. Raises ServerError if a package that it needs is not installed."""
    return _import(target, target.exporter)


def _import(target: Target, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        message = f"exporting to {target.name} does not start ({error}): {target.install}"
        raise ServerError(message) from None
