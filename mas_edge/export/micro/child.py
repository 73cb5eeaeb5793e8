"""``python child.py FOLDER OUTPUTS UNITS [UNITS]``: run a model on tflite-micro. Imports nothing of this kit.

With one number of units in an arena of that size, the answers of its OUTPUTS written to ``output-<i>.npy``; with two,
one that fails and one that fits, in the arenas half-way between until they meet. Every try is written to ``tried``
before it is made, as the interpreter may end the process. Started by ``mas_edge.export.micro.board``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNIT = 16  # bytes, the granularity of ``board``

Answers = list[list[NDArray[np.int8]]]


def main(room: Path, outputs: int, units: list[int]) -> int:
    """Make the tries; the exit status."""
    model, samples = (room / "model.tflite").read_bytes(), np.load(room / "x.npy")
    if len(units) == 1:
        answers = _tried(room, model, outputs, units[0], samples)
        for i in range(outputs if answers else 0):
            np.save(room / f"output-{i}.npy", np.stack([answer[i] for answer in answers]))
        return 0
    fails, fits = units
    while fits - fails > 1:
        middle = (fails + fits) // 2
        fails, fits = (fails, middle) if _tried(room, model, outputs, middle, samples) else (middle, fits)
    return 0


def _tried(room: Path, model: bytes, outputs: int, units: int, samples: NDArray[np.int8]) -> Answers:
    """The answers of all outputs to each sample; none if the arena is too small."""
    with (room / "tried").open("a") as tried:
        tried.write(f"{units} ends\n")
    try:
        answers = _run(model, outputs, units * UNIT, samples)
    except RuntimeError:  # what the interpreter raises when it is told that something failed
        return []
    with (room / "tried").open("a") as tried:
        tried.write(f"{units} runs\n")
    return answers


def _run(model: bytes, outputs: int, arena: int, samples: NDArray[np.int8]) -> Answers:
    runtime: Any = importlib.import_module("tflite_micro.python.tflite_micro.runtime")
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena)
    answers = []
    for sample in samples:
        interpreter.set_input(sample, 0)
        interpreter.invoke()
        answers.append([np.array(interpreter.get_output(i)) for i in range(outputs)])
    return answers


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), [int(unit) for unit in sys.argv[3:]]))
