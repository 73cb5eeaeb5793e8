"""What a data folder holds, as far as the agent must know before it trains: the samples' shape and their numbers.

``look`` has it counted in a process of its own. To count takes NumPy, a third of all that an agent without an engine
holds; so this process opens the folder, with the same checks again, when the first plan needs its batches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from device_runtime import child
from mas_edge.protocol.errors import DataError
from mas_edge.protocol.messages import SampleCount

if TYPE_CHECKING:
    from device_runtime.data import DataFolder


class Holdings(Protocol):
    """What a device has to train on; a ``DataFolder`` is one, too."""

    @property
    def input_shape(self) -> list[int]:
        """The shape of one input sample, channels first."""
        ...

    def counts(self) -> dict[str, SampleCount]:
        """The labelled train and test samples of each task."""
        ...

    def opened(self) -> DataFolder:
        """The data themselves. Raises DataError if the folder cannot be used any more."""
        ...


class _Counted(msgspec.Struct, frozen=True):
    """What the other process says: ``problem`` or the rest."""

    problem: str = ""
    input_shape: list[int] = []
    counts: dict[str, SampleCount] = {}


class CountedFolder:
    """A data folder that was looked at, and is not open yet."""

    def __init__(self, directory: Path, input_shape: list[int], counts: dict[str, SampleCount]) -> None:
        self.input_shape = input_shape
        self._directory = directory
        self._counts = counts
        self._opened: DataFolder | None = None

    def counts(self) -> dict[str, SampleCount]:
        """As they were when it was looked at."""
        return self._counts

    def opened(self) -> DataFolder:
        """Open it, once."""
        if self._opened is None:
            self._opened = _open(self._directory)
        return self._opened


def look(directory: Path) -> Holdings:
    """Look at a data folder.

    Raises:
        DataError: as ``open_data``.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            child.command(__name__, str(directory)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # counting needs no pool of threads
        )  # fmt: skip
    except OSError:  # no process can be started here
        return _open(directory)
    found = child.answer(done.stdout, _Counted)
    if found is None:  # it was killed, or crashed: let it happen where it is seen
        return _open(directory)
    if found.problem:
        raise DataError(found.problem)
    return CountedFolder(directory, found.input_shape, found.counts)


def _open(directory: Path) -> DataFolder:
    from device_runtime.data import open_data

    return open_data(directory)


def main(arguments: Sequence[str]) -> int:
    """Count the folder that is named and say so."""
    (directory,) = arguments
    try:
        data = _open(Path(directory))
        found = _Counted(input_shape=list(data.input_shape), counts=data.counts())
    except DataError as error:
        found = _Counted(problem=str(error))
    sys.stdout.write("\n" + msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
