"""A small data folder with every kind of task, for tests to break."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.program import Program, TargetSpec
from mas_edge.protocol.weights import Layout

Arrays = Mapping[str, NDArray[Any] | None]

N, TEST = 10, 3  # samples, of which the last three are for testing
HEADER = """\
format = 1
input_shape = [2, 4]

[tasks.gait]
kind = "class"
classes = 3

[tasks.speed]
kind = "value"
shape = [2]
element_mask = true

[tasks.heading]
kind = "direction"
shape = [3]

[tasks.place]
kind = "dense_class"
shape = [4]
classes = 3
ignore_index = 255
"""


def arrays() -> dict[str, NDArray[Any]]:
    """The arrays of a folder that is fine. Samples 0 and 1 have no heading; places and speeds have gaps."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(N, 2, 4)).astype(np.float32)
    x[:, 0, 0] = np.arange(N)  # so that a batch tells which samples it holds
    place = rng.integers(0, 3, (N, 4)).astype(np.uint8)
    place[:, 0] = 255
    speed = rng.normal(size=(N, 2)).astype(np.float32)
    speed[2, 1] = np.nan  # masked out below: a number that was never measured
    speed_mask = np.ones((N, 2), np.uint8)
    speed_mask[2, 1] = 0
    return {
        "x": x,
        "split": np.array([0] * (N - TEST) + [1] * TEST, np.uint8),
        "gait": np.array([0, 1, 2, -100, 0, 1, 2, 0, 1, 2], np.int64),
        "speed": speed,
        "speed.mask": speed_mask,
        "heading": rng.normal(size=(N, 3)).astype(np.float32),
        "heading.mask": np.array([0, 0] + [1] * (N - 2), np.float32),
        "place": place,
    }


def write(directory: Path, changed: Arrays | None = None, header: str = HEADER) -> Path:
    """Write the folder with some arrays changed, or left out (None)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "data.toml").write_text(header, encoding="utf-8")
    for name, array in {**arrays(), **(changed or {})}.items():
        if array is not None:
            np.save(directory / f"{name}.npy", array)
    return directory


def program(batch_size: int = 4, changed: Mapping[str, TargetSpec] | None = None) -> Program:
    """A program without methods that fits the folder; ``other`` is a task the folder does not hold."""
    targets = {
        "gait": TargetSpec([], "int64", [], classes=3),
        "speed": TargetSpec([2], "float32", [2]),
        "heading": TargetSpec([3], "float32", []),
        "place": TargetSpec([4], "int64", [], classes=3, ignore_index=-1),
        "other": TargetSpec([5], "float32", []),
        **(changed or {}),
    }
    return Program(1, "merged", list(targets), batch_size, [2, 4], targets, Layout([]), {})
