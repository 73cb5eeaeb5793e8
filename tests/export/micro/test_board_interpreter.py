"""A board's own interpreter against LiteRT's reference kernels: bit by bit, on what the kit's converter makes."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.micro import int8 as _int8
from tests.export.litert.environment import needs_board, reference_answers
from tests.export.micro.board_models import DATA, MODELS, SAMPLES

pytestmark = needs_board
int8: Any = _int8  # written for MicroPython, which has no types
SAMPLES_OF = {"series": 12, "image": 4, "large": 4, "layers": 60, "small": 300}  # a second each at most


def require_same(path: Path, x: list[np.ndarray[Any, np.dtype[np.int8]]]) -> None:
    """Ask both."""
    expected = reference_answers(path.read_bytes(), x).outputs
    tasks = [f"output {number}" for number in range(len(expected))]
    model = int8.load(str(path), tasks)
    for number, sample in enumerate(x):
        answers = model.answer(array("b", sample.tobytes()))
        for task, each in zip(tasks, expected, strict=True):
            np.testing.assert_array_equal(np.array(answers[task], np.int8), each[number], f"{path.name}: {task}")


@pytest.mark.parametrize("name", MODELS)
def test_the_stored_answers_are_litert_s(name: str) -> None:
    model, told = (DATA / f"{name}.model").read_bytes(), (DATA / f"{name}.answers").read_bytes()
    size = reference_answers(model, []).size
    x = np.frombuffer(told, np.int8)[: SAMPLES * size].reshape(SAMPLES, size)
    assert x.tobytes() + b"".join(each.tobytes() for each in reference_answers(model, x).outputs) == told


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_what_litert_does(name: str) -> None:
    path = DATA / f"{name}.model"
    size = reference_answers(path.read_bytes(), []).size
    drawn = [np.random.default_rng(seed).integers(-128, 128, size).astype(np.int8) for seed in range(SAMPLES_OF[name])]
    require_same(path, drawn)
