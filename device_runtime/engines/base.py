"""What every engine offers: load a program, run one of its methods on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Method, Program, Value

Arrays = dict[str, NDArray[Any]]


class Runner(Protocol):
    """A loaded program. It keeps nothing between two runs: weights go in, weights come out."""

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run ``method`` on its inputs by name; what ``feeds`` holds beside them is not looked at.

        Raises:
            DeviceError: no such method, an input is missing or of another shape or dtype, or the machine gave up.
        """
        ...


class Engine(Protocol):
    """A library that can run programs on this machine."""

    @property
    def name(self) -> str:
        """What the engine is called in messages and on the command line."""
        ...

    def load(self, program: Program) -> Runner:
        """Check the whole program and make it ready to run.

        Raises:
            ProgramError: it holds anything but defined calls of allowed operators.
        """
        ...


def require_engine(program: Program, name: str) -> None:
    """Raise ProgramError if ``program`` was made for another engine than ``name``."""
    if program.engine != name:
        message = (
            f"program {program.group!r} was made for the engine {program.engine[:100]!r}, this is {name!r}: start the "
            "device runtime with the other engine, or ask the server for a program of this one"
        )
        raise ProgramError(message)


def checked_method(program: Program, method: str) -> Method:
    """The method called ``method``. Raises DeviceError if there is none."""
    if method not in program.methods:
        message = f"program {program.group!r} has no method {method!r}; it has {', '.join(program.methods)}"
        raise DeviceError(message)
    return program.methods[method]


def checked_feed(value: Value, feeds: Mapping[str, NDArray[Any]], method: str) -> NDArray[Any]:
    """The array that is fed to an input, as contiguous and writable memory in this machine's byte order.

    Libraries share the memory and cannot take a read-only map, a reversed view or foreign byte order.
    Raises DeviceError if it is missing or of another shape or dtype.
    """
    array = feeds.get(value.name)
    if array is None:
        message = f"method {method!r} needs the input {value.name!r}; the feeds hold {', '.join(feeds) or 'nothing'}"
        raise DeviceError(message)
    if list(array.shape) != value.shape or array.dtype.name != value.dtype:
        message = (
            f"input {value.name!r} of method {method!r} is {array.dtype.name} of shape {list(array.shape)}, "
            f"expected {value.dtype} of shape {value.shape}"
        )
        raise DeviceError(message)
    return np.require(array, np.dtype(value.dtype), ["C", "W", "A"])
