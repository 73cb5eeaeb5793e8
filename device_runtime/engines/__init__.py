"""Engines: what runs a program on a device. One small interface, one module each.

Nothing heavy is imported before an engine is opened. ``auto`` takes torch where it is installed, else onnxruntime: a
torch program needs no export of its own, and the onnxruntime engine is for devices that torch is too large for.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec

from device_runtime.engines.base import Engine, Runner
from mas_edge.protocol.errors import DeviceError


@dataclass(frozen=True)
class _Choice:
    library: str  # what must be installed
    module: str  # ours; its ``engine()`` returns the Engine
    install: str


# In the order in which "auto" tries them.
_CHOICES = {
    "torch": _Choice("torch", "device_runtime.engines.torch_engine", "pip install 'mas-edge[torch]'"),
    "onnxruntime": _Choice("onnxruntime", "device_runtime.engines.onnx_engine", "pip install 'mas-edge[onnx]'"),
}


def available() -> list[str]:
    """The engines whose library is installed, best first. Imports none of them."""
    return [name for name, choice in _CHOICES.items() if find_spec(choice.library) is not None]


def open_engine(name: str = "auto") -> Engine:
    """Import and return the engine called ``name``, or the best one that is installed.

    Raises:
        DeviceError: there is no such engine, or its library is not installed or does not import.
    """
    if name != "auto" and name not in _CHOICES:
        message = f"engine {name!r} is not known; allowed: auto, {', '.join(_CHOICES)}"
        raise DeviceError(message)
    candidates = available() if name == "auto" else [name]
    if not candidates:
        ways = "; ".join(f"{name}: {choice.install}" for name, choice in _CHOICES.items())
        message = f"no engine is installed that could train here; install one of: {ways}"
        raise DeviceError(message)
    choice = _CHOICES[candidates[0]]
    try:
        engine: Engine = importlib.import_module(choice.module).engine()
    except (ImportError, OSError) as error:  # OSError: a shared library of it is missing
        message = f"engine {candidates[0]!r} does not start ({error}); install it with: {choice.install}"
        raise DeviceError(message) from None
    return engine


__all__ = ["Engine", "Runner", "available", "open_engine"]
