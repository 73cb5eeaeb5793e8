"""The best constant predictor: the loss that a network must beat to have learned anything from its input.

It gives every sample the same output, fitted on the very test samples that it is measured on: no constant does better.
Each place of an output has a constant of its own. The means are those of ``mas_edge.learning.losses``, over all valid
numbers of all folders together; a mean over devices or batches differs where these hold unequal shares of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.data import open_data
from mas_edge.job import Job, Task

Targets = NDArray[Any]  # [N, *shape]
Valid = NDArray[np.bool_]  # of the same shape


def constant_losses(job: Job, folders: Sequence[Path]) -> dict[str, float]:
    """The loss of the best constant predictor on the pooled test samples of ``folders``, by task.

    Tasks without a labelled test sample, and those with a loss of the user's own, are left out.

    Raises:
        DataError: a folder cannot be opened.
    """
    data = [open_data(folder) for folder in folders]
    losses = {}
    for task in job.tasks:
        best = _BEST.get(task.loss_name)
        parts = [folder.targets(task.name, "test") for folder in data if task.name in folder.header.tasks]
        if best is not None and any(len(y) for y, _ in parts):
            y, valid = np.concatenate([y for y, _ in parts]), np.concatenate([valid for _, valid in parts])
            scale = task.unit if task.target_dtype == "int64" else 1.0  # as in training: see Task.unit
            losses[task.name] = best(y, valid, task) / scale
    return losses


def _cross_entropy(y: Targets, valid: Valid, task: Task) -> float:
    """The entropy of the labels at each place, weighted by how often the place is valid."""
    counts = np.stack([np.sum(valid & (y == label), axis=0) for label in range(task.classes)])  # [classes, *shape]
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    bits = counts * np.log(np.where(counts, shares, 1.0))
    return float(-bits.sum() / valid.sum())


def _median(y: Targets, valid: Valid) -> NDArray[np.float64]:
    """The median of the valid numbers at each place; 0 where there is none."""
    ordered = np.sort(np.where(valid, y, np.inf).astype(np.float64), axis=0)  # invalid ones last
    count = np.asarray(valid.sum(axis=0))
    at = np.maximum(np.stack([(count - 1) // 2, count // 2]), 0)  # the middle one, or the two middle ones
    middle: NDArray[np.float64] = np.take_along_axis(ordered, at, axis=0).mean(axis=0)
    return np.where(count > 0, middle, 0.0)


def _l1(y: Targets, valid: Valid, _task: Task) -> float:
    return float(np.abs(y - _median(y, valid))[valid].mean(dtype=np.float64))


def _l1_all(y: Targets, valid: Valid, _task: Task) -> float:
    """As l1, but divided by all numbers of the samples that have a valid one."""
    present = valid.reshape(len(valid), -1).any(axis=1)
    return float(np.abs(y - _median(y, valid))[valid].sum(dtype=np.float64) / y[present].size)


def _l2(y: Targets, valid: Valid, _task: Task) -> float:
    mean = np.where(valid, y, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(valid.sum(axis=0), 1)
    return float(np.square(y - mean)[valid].mean(dtype=np.float64))


def _huber(y: Targets, valid: Valid, _task: Task) -> float:
    """Delta 1. The slope in the constant c, sum of clip(c - y, -1, 1), never falls: bisect for its zero."""
    low, high = np.where(valid, y, np.inf).min(axis=0), np.where(valid, y, -np.inf).max(axis=0)
    low, high = (np.where(np.isfinite(end), end, 0.0).astype(np.float64) for end in (low, high))
    for _ in range(64):  # halvings: below the spacing of float64
        middle = (low + high) / 2
        rising = np.where(valid, np.clip(middle - y, -1, 1), 0.0).sum(axis=0) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    distance = np.abs(y - low)[valid]
    return float(np.where(distance <= 1, distance**2 / 2, distance - 0.5).mean())


def _cosine(y: Targets, valid: Valid, _task: Task) -> float:
    """1 - the length of the mean unit vector, vectors along axis 1: mean(u.y) is largest for u along mean(y)."""
    whole = np.asarray(valid.all(axis=1))  # [N, *places]
    length = np.sqrt(np.square(np.where(valid, y, 0.0), dtype=np.float64).sum(axis=1))
    units = np.where(whole[:, None], y / np.maximum(length, 1e-8)[:, None], 0.0)
    together = np.linalg.norm(units.sum(axis=0), axis=0)  # [*places]
    return float(1 - together.sum() / np.maximum(whole.sum(), 1))


_BEST: dict[str, Callable[[Targets, Valid, Task], float]] = {
    "cosine": _cosine, "cross_entropy": _cross_entropy, "huber": _huber, "l1": _l1, "l1_all": _l1_all, "l2": _l2,
}  # fmt: skip
