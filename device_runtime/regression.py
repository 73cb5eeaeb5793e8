"""Is a group's model worse for this device than the model of all tasks? Both answer for its own test samples.

The error of a task is one that every model can be asked for, whatever it was trained with: the cross entropy of a
class, the mean distance of a value, one minus the cosine of a direction.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.data import DataFolder
from device_runtime.data_check import TEST, valid
from device_runtime.inference import open_model

# Enough that the mean of a task's error is steady; bounded, also in time, as on a board a sample may take a second.
MOST_SAMPLES, BATCH = 512, 16
MOST_S = 60.0  # of the group's model, as of a device's own samples in the health check; the other answers for the same
LEAST_ERROR = 1e-6  # float32 knows no smaller difference of numbers around 1: below, two models are equally good

Numbers = NDArray[np.float32]
_Each = tuple[NDArray[np.float64], NDArray[np.bool_]]  # every error, and which of them count


def regression(group: Path, tasks: Sequence[str], whole: Path, whole_tasks: Sequence[str], data: DataFolder) -> float:
    """By how much the errors of the model at ``group`` exceed those of the one at ``whole``: 0.1 is ten percent.

    The mean over the tasks of the group that this device has labelled test samples of; 0 if there is none.

    Raises:
        EdgeError: a model cannot be run.
    """
    rows = np.flatnonzero(data.arrays["split"] == TEST)[:MOST_SAMPLES]
    outputs = answers(group, tasks, data, rows, MOST_S)
    rows = rows[: len(next(iter(outputs.values()), []))]
    mine = errors(outputs, data, rows)
    others = errors(answers(whole, whole_tasks, data, rows), data, rows)
    shares = [max(mine[t], LEAST_ERROR) / max(others[t], LEAST_ERROR) - 1 for t in mine if t in others]
    return float(np.mean(shares)) if shares else 0.0


def answers(
    path: Path, tasks: Sequence[str], data: DataFolder, rows: NDArray[np.intp], most_s: float = math.inf
) -> dict[str, Numbers]:
    """The outputs of a model for some samples, [n, ...] by task; for the first of them where ``most_s`` go by."""
    model, parts, until = open_model(path, tasks), list[dict[str, Numbers]](), time.monotonic() + most_s
    for start in range(0, len(rows), BATCH):
        parts.append(model.run(np.asarray(data.arrays["x"][rows[start : start + BATCH]], np.float32)))
        if time.monotonic() > until:
            break
    return {task: np.concatenate([part[task] for part in parts]) for task in tasks} if parts else {}


def errors(outputs: dict[str, Numbers], data: DataFolder, rows: NDArray[np.intp]) -> dict[str, float]:
    """The mean error of each task that has labels among the samples ``rows``; not finite where an output is not."""
    found = {}
    for name, output in outputs.items():
        task = data.header.tasks.get(name)
        if task is None:
            continue
        y, mask = np.asarray(data.arrays[name][rows]), data.arrays.get(f"{name}.mask")
        counts = valid(task, y, None if mask is None else np.asarray(mask[rows]))
        each, counted = _ERRORS[task.kind](output.astype(np.float64), y, counts)
        if counted.any():
            found[name] = float(each[counted].mean())
    return found


def _class(output: NDArray[np.float64], y: NDArray[np.int64], counts: NDArray[np.bool_]) -> _Each:
    """``output`` [n, classes, ...], ``y`` [n, ...]: minus the logarithm of the softmax at the label."""
    shifted = output - output.max(axis=1, keepdims=True)
    label = np.where(counts, y, 0).astype(np.int64)
    chosen = np.take_along_axis(shifted, label[:, None], axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - chosen, counts


def _value(output: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.bool_]) -> _Each:
    return np.abs(output.reshape(y.shape) - np.where(counts, y, 0)), counts


def _direction(output: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.bool_]) -> _Each:
    """Both [n, size, ...]."""
    whole = np.asarray(counts.all(axis=1))
    target = np.where(counts, y, 1)
    lengths = np.linalg.norm(output, axis=1) * np.linalg.norm(target, axis=1)
    return 1 - (output * target).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny), whole


_ERRORS: dict[str, Callable[[NDArray[np.float64], NDArray[Any], NDArray[np.bool_]], _Each]] = {
    "class": _class, "dense_class": _class, "value": _value, "direction": _direction,
}  # fmt: skip
