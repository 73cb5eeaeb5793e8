"""Real samples for an export: those that set the ranges of int8, and what int8 costs on those it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.data import DataFolder, open_data
from device_runtime.data_check import TRAIN
from mas_edge.export.report import Loss
from mas_edge.job import Job
from mas_edge.learning.metrics import metric_of
from mas_edge.learning.step import usable
from mas_edge.protocol.errors import DataError
from mas_edge.protocol.program import Program

# Ranges are settled by then (a few hundred is what quantisers' guides give), and a run takes well under a second.
CALIBRATION_SAMPLES = 256

Answers = dict[str, NDArray[np.float32]]
Run = Callable[[NDArray[np.float32]], Answers]


@dataclass(frozen=True)
class Samples:
    """Device folders to calibrate and measure with."""

    folders: tuple[DataFolder, ...]

    def calibration(self) -> NDArray[np.float32]:
        """Training samples spread evenly over the folders, [n, *input_shape]."""
        found = []
        for folder in self.folders:
            rows = np.flatnonzero(folder.arrays["split"] == TRAIN)
            wanted = max(1, CALIBRATION_SAMPLES // len(self.folders))
            rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(wanted, len(rows))).astype(int))]
            found.append(np.asarray(folder.arrays["x"][rows], np.float32))
        return np.concatenate(found)

    def tests(self, program: Program) -> dict[str, NDArray[Any]]:
        """All test samples that carry a label: ``x``, ``y.<task>`` and ``mask.<task>``. Raises DataError if none do."""
        batches = [batch for folder in self.folders for batch in folder.feeds(program, "test", None)]
        if not batches:
            message = f"{', '.join(str(folder.directory) for folder in self.folders)}: no test sample carries a label"
            raise DataError(message)
        tests = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
        masks = [mask.reshape(len(mask), -1).any(axis=1) for name, mask in tests.items() if name.startswith("mask.")]
        real = np.logical_or.reduce(masks)  # the last batch of a folder is filled up with masked samples
        return {name: array[real] for name, array in tests.items()}


def open_samples(directories: Sequence[Path], input_shape: Sequence[int]) -> Samples | None:
    """Open device folders; None if there is none.

    Raises:
        DataError: one cannot be read, or holds samples of another shape.
    """
    folders = tuple(map(open_data, directories))
    for folder in folders:
        if list(folder.input_shape) != list(input_shape):
            message = (
                f"data folder {folder.directory}: its samples have the shape {folder.input_shape}, the job's "
                f"{list(input_shape)}: give a folder of a device of this job"
            )
            raise DataError(message)
    return Samples(folders) if folders else None


def answers_of(run: Run, x: NDArray[np.float32], batch: int) -> Answers:
    """The answers of ``run`` to all of ``x``, ``batch`` samples at a time."""
    parts = [run(x[start : start + batch]) for start in range(0, len(x), batch)]
    return {task: np.concatenate([part[task] for part in parts]) for task in parts[0]}


def losses_of(job: Job, tests: Mapping[str, NDArray[Any]], exact: Answers, rounded: Answers) -> list[Loss]:
    """What the answers ``rounded`` lose against ``exact``, both to the samples of ``tests``, task by task."""
    return [_loss(job, task, answer, rounded[task], tests) for task, answer in exact.items()]


def _loss(
    job: Job, name: str, exact: NDArray[np.float32], got: NDArray[np.float32], tests: Mapping[str, NDArray[Any]]
) -> Loss:
    task = job.task(name)
    size = float(np.linalg.norm(exact))
    off = float(np.linalg.norm(exact - got))
    relative = off / size if size > 0 else float(off > 0)
    target, mask = usable(task, torch.from_numpy(tests[f"y.{name}"]), torch.from_numpy(tests[f"mask.{name}"]))
    labelled = int(mask.reshape(len(mask), -1).any(dim=1).sum())
    if not labelled:
        return Loss(task=name, relative_l2=relative, samples=len(exact))
    measure = metric_of(task)
    before, after = (float(measure(torch.from_numpy(answer), target, mask)) for answer in (exact, got))
    return Loss(
        task=name, relative_l2=relative, samples=len(exact), metric=task.metric_name, fp32=before, int8=after,
        labelled=labelled,
    )  # fmt: skip
