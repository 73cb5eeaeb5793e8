"""What every engine offers: load a program, run one of its methods on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from mas_edge.protocol.program import Program

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
