"""Running a model on tflite-micro, in a process of its own: the interpreter may end it, and writes what is wrong.

The arena is found by bisection: the interpreter's own account leaves out what it needs only while it plans (measured:
18 448 bytes reported where 26 000 were needed). It is that of a machine with 64-bit pointers, so that a board with
32-bit pointers needs less.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mas_edge.export.litert.conversion import INSTALL
from mas_edge.export.micro.tables import TensorSpec
from mas_edge.protocol.errors import JobError, ServerError

CHILD = Path(__file__).with_name("child.py")  # by its path: as a module it would bring PyTorch along
GRANULARITY = 16  # bytes: the alignment of an arena
LARGEST = 64 << 20  # of an arena that is tried: no microboard has as much
TIMEOUT_S = 600  # of one process: the largest model for a board takes seconds
# What tflite-micro writes when it cannot run a model however much memory there is.
_REASON = re.compile(r"(Didn't find op for[^\n]*|Failed to get registration[^\n]*|Node (\w+) \(number[^\n]*)")


def require_tflite_micro() -> None:
    """Raise ServerError if the interpreter is not installed. Imports nothing."""
    if find_spec("tflite_micro") is None:
        message = f"exporting to microboards needs tflite_micro: {INSTALL} (Linux on x86-64)"
        raise ServerError(message)


def arena_bytes(model: bytes, taken: TensorSpec, outputs: int) -> int:
    """The smallest arena, a multiple of GRANULARITY, in which ``model`` is prepared and answers.

    Raises:
        JobError: it does not run in an arena of LARGEST bytes either; the message has tflite-micro's reason.
        ServerError: the process did not end in TIMEOUT_S.
    """
    with tempfile.TemporaryDirectory(prefix="mas-edge-micro-") as made:
        room = Path(made)
        (room / "model.tflite").write_bytes(model)
        np.save(room / "x.npy", np.zeros((1, *taken.shape), np.int8))
        fits = LARGEST // GRANULARITY
        if not _run(room, outputs, [fits])[fits]:
            found = _REASON.search((room / "output").read_text(errors="replace"))
            reason = found.group(0) if found else "it gives no reason"
            message = f"tflite-micro does not run this model ({reason}): write that part with other operators"
            raise JobError(message)
        fails = 0
        while fits - fails > 1:
            # All the halvings of one process, until it ends; what it was at then does not fit.
            for units, fine in _run(room, outputs, [fails, fits]).items():
                fails, fits = (fails, min(fits, units)) if fine else (max(fails, units), fits)
        return fits * GRANULARITY


def answers_of(
    model: bytes, taken: TensorSpec, given: Sequence[TensorSpec], arena: int, x: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """What tflite-micro says to ``x`` float32 [n, *input_shape] in an arena of ``arena`` bytes, by task, as floats.

    Raises:
        ServerError: it ran with zeros, and does not with these.
    """
    stored = np.clip(np.round(x / taken.scale) + taken.zero_point, -128, 127).astype(np.int8)
    with tempfile.TemporaryDirectory(prefix="mas-edge-micro-") as made:
        room = Path(made)
        (room / "model.tflite").write_bytes(model)
        np.save(room / "x.npy", stored[:, np.newaxis])
        units = arena // GRANULARITY
        if not _run(room, len(given), [units])[units]:
            message = "tflite-micro prepared the exported model and does not run it; it was not released"
            raise ServerError(message)
        return {
            spec.name: _real(np.load(room / f"output-{i}.npy"), spec).reshape(len(x), *spec.shape[1:])
            for i, spec in enumerate(given)
        }


def _real(values: NDArray[np.int8], spec: TensorSpec) -> NDArray[np.float32]:
    real: NDArray[np.float32] = ((values.astype(np.float32) - spec.zero_point) * spec.scale).astype(np.float32)
    return real


def _run(room: Path, outputs: int, units: Sequence[int]) -> dict[int, bool]:
    """Which arenas were tried and whether the model ran in them: one, or the halvings between a failing and a fitting.

    A process that ends while it tries one counts as one that does not fit.
    """
    arguments = [str(room), str(outputs), *(str(unit) for unit in units)]
    with (room / "output").open("wb") as output:
        try:
            subprocess.run(  # noqa: S603 - this interpreter, a module of ours
                [sys.executable, str(CHILD), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"tflite-micro did not run the exported model within {TIMEOUT_S} s"
            raise ServerError(message) from None
    tried: dict[int, bool] = {}
    for line in (room / "tried").read_text().splitlines() if (room / "tried").exists() else ():
        number, result = line.split()
        tried[int(number)] = result == "runs"
    (room / "tried").unlink(missing_ok=True)
    if not tried:
        message = f"tflite-micro does not start: {(room / 'output').read_text(errors='replace').strip()[-300:]}"
        raise ServerError(message)
    return tried
