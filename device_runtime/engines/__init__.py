"""Engines: what runs a program on a device. One small interface, one module each.

Nothing heavy is imported before an engine is opened. Which of the installed engines a device takes is measured: see
``choice``.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from device_runtime.host import on_termux
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.models import ENGINE_OF

if TYPE_CHECKING:
    from device_runtime.engines.base import Engine


@dataclass(frozen=True)
class Kind:
    """One engine: what it needs, and what it can do."""

    module: str  # ours; its ``engine()`` returns the Engine
    libraries: tuple[tuple[str, ...], ...]  # any one of these sets must be importable to train
    pip: str  # the command that installs it
    form: str  # what its programs are
    precisions: tuple[str, ...]  # of the model files it runs
    pip_32bit: str = ""  # ... where the system is a 32-bit one, for which others are published
    termux: str = "in a distribution inside Termux alone: pkg install proot-distro (docs/devices/termux-proot.md)"

    @property
    def install(self) -> str:
        """The command that installs it on this system."""
        if on_termux():
            return self.termux
        return self.pip_32bit if self.pip_32bit and sys.maxsize < 2**32 else self.pip

    @property
    def reinstall(self) -> str:
        """The command that replaces what is there."""
        return self.termux.replace("install", "reinstall") if on_termux() else f"{self.install} --force-reinstall"


# In the order in which they are listed and tested.
ENGINES = {
    "torch": Kind(
        "device_runtime.engines.torch_engine", (("torch",),), "pip install 'mas-edge[torch]'", "operator calls", (),
        termux="pkg install python-torch",
    ),
    "onnxruntime": Kind(
        "device_runtime.engines.onnx_engine", (("onnxruntime",),), "pip install 'mas-edge[onnx]'", ".onnx",
        ("fp32", "int8"), termux="pkg install python-onnxruntime",
    ),
    "executorch": Kind(
        "device_runtime.engines.executorch_engine", (("executorch_numpy_runtime",), ("executorch", "torch")),
        "pip install 'mas-edge[executorch]'", ".pte", ("fp32", "int8"),
    ),
    "litert": Kind(
        "device_runtime.engines.litert_engine", (("ai_edge_litert",), ("tflite_runtime",)),
        "pip install 'mas-edge[litert]'", ".tflite", ("fp32", "int8"), "pip install 'mas-edge[tflite]'",
    ),
}  # fmt: skip
CUDA = "torch:cuda"  # torch on an NVIDIA graphics processor
NAMES = (*ENGINES, "torch:cpu", CUDA)  # what ``open_engine`` takes


def libraries(name: str) -> tuple[str, ...]:
    """The libraries, by import name, with which the engine ``name`` trains here; () if none is installed whole."""
    for needed in ENGINES[base_name(name)].libraries:
        if all(find_spec(library) is not None for library in needed):
            return needed
    return ()


def available() -> list[str]:
    """The engines whose library is installed and that can train. Imports none of them."""
    return [name for name in ENGINES if libraries(name)]


def runnable() -> list[str]:
    """The engines that can run a model file here. Imports none of them."""
    return [name for name in ENGINE_OF.values() if libraries(name)]


def base_name(name: str) -> str:
    """The engine that programs are made for: ``torch`` for ``torch:cuda``. Raises DeviceError if there is none."""
    if name not in NAMES:
        message = f"engine {name!r} is not known; allowed: {', '.join(NAMES)}"
        raise DeviceError(message)
    return name.partition(":")[0]


def open_engine(name: str) -> Engine:
    """Import and return the engine called ``name``, one of ``NAMES``. Plain ``torch`` runs on the processor.

    Raises:
        DeviceError: there is no such engine, or its library is not installed or does not import.
    """
    base, _, device = name.partition(":")
    kind = ENGINES[base_name(name)]
    try:
        module = importlib.import_module(kind.module)
        engine: Engine = module.engine(device) if device else module.engine()
    except DeviceError:
        raise
    except Exception as error:  # a missing library, a missing part of it, one built for another NumPy, ...
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        message = f"engine {base!r} does not start ({reason}); install it with: {kind.install}"
        raise DeviceError(message) from None
    return engine
