"""The data of this device: a folder of memory-mapped arrays, served as static mini-batches.

    DIR/data.toml           see device_runtime.data_header
        x.npy               float32 [N, *input_shape]
        split.npy           uint8 [N]: 0 = train, 1 = test
        <task>.npy          integers [N, *shape] for classes, float32 [N, *shape] for values and directions
        <task>.mask.npy     optional, 1 = labelled: [N], or [N, *shape] with element_mask

Opening looks at headers, split and labels only; every batch is checked as it passes, so that a NaN or a label out of
range ends in an error that names the sample, not in a ruined model. ``mas-edge-device check`` reads everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from device_runtime.data_check import TEST, TRAIN, Arrays, blocks, problems, read_arrays, shape_problems, valid, wrong
from device_runtime.data_header import Header, TaskData, read_header
from mas_edge.protocol.errors import DataError
from mas_edge.protocol.messages import SampleCount
from mas_edge.protocol.program import Program, TargetSpec

__all__ = ["DataFolder", "open_data", "problems"]

Split = Literal["train", "test"]
Batch = dict[str, NDArray[Any]]
_SPLITS: dict[Split, int] = {"train": TRAIN, "test": TEST}


def open_data(directory: Path) -> DataFolder:
    """Open a data folder.

    Raises:
        DataError: a file is missing, cannot be read, or does not fit the others; the message says which and why.
    """
    header, found = read_header(directory)
    arrays: Arrays = {}
    if header is not None:
        arrays, found = read_arrays(directory, header)
        found = found or shape_problems(header, arrays)
    if header is None or found:
        more = f" (and {len(found) - 1} more: mas-edge-device check --data {directory})" if len(found) > 1 else ""
        message = f"data folder {directory}: {found[0]}{more}"
        raise DataError(message)
    labelled = {name: _labelled(header, arrays, name) for name in header.tasks}
    return DataFolder(directory, header, arrays, labelled)


def _labelled(header: Header, arrays: Arrays, name: str) -> NDArray[np.bool_]:
    """Which samples carry a label of a task, shape [N]: at least one number of the target counts."""
    y, mask, task = arrays[name], arrays.get(f"{name}.mask"), header.tasks[name]
    parts = []
    for place in blocks(y):
        rows = valid(task, y[place], None if mask is None else mask[place])
        parts.append(rows.reshape(len(rows), -1).any(axis=1))
    return np.concatenate(parts)


@dataclass(frozen=True)
class DataFolder:
    """An open data folder; made by ``open_data``."""

    directory: Path
    header: Header
    arrays: Arrays
    labelled: dict[str, NDArray[np.bool_]]  # of each task, which samples carry a label; shape [N]

    @property
    def input_shape(self) -> list[int]:
        """The shape of one input sample, channels first."""
        return self.header.input_shape

    def opened(self) -> DataFolder:
        """The folder itself: see ``holdings.Holdings``."""
        return self

    def counts(self) -> dict[str, SampleCount]:
        """The labelled train and test samples of each task."""
        split = self.arrays["split"]
        return {
            name: SampleCount(
                train=int(np.count_nonzero(rows[split == TRAIN])), test=int(np.count_nonzero(rows[split == TEST]))
            )
            for name, rows in self.labelled.items()
        }

    def targets(self, task: str, split: Split) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """All labelled targets of a task in one split, [n, *shape], and which of their numbers count, same shape."""
        rows = np.flatnonzero((self.arrays["split"] == _SPLITS[split]) & self.labelled[task])
        y = np.asarray(self.arrays[task][rows])
        return y, valid(self.header.tasks[task], y, self._mask(task, rows))

    def _require_fit(self, program: Program) -> None:
        """Raise DataError with the reason if batches for ``program`` cannot be made of this folder."""
        pairs: list[tuple[str, object, object]] = [("input_shape", self.input_shape, program.input_shape)]
        for name, spec in program.targets.items():
            if name in self.header.tasks:
                pairs += _bindings(name, self.header.tasks[name], spec)
        for key, held, wanted in pairs:
            if held != wanted:
                message = f"data folder {self.directory}: {key} is {held}, the job needs {wanted}"
                raise DataError(message)

    def feeds(self, program: Program, split: Split, seed: int | None) -> Iterator[Batch]:
        """Iterate over one epoch of ``split`` in batches of exactly B = program.batch_size samples.

        A batch holds ``x`` float32 [B, *input_shape] and for each task of the program ``y.<task>`` int64 or float32
        [B, *shape] and ``mask.<task>`` float32 [B], or [B, *shape] for element masks; 1 = counts. Samples without a
        label for any of the tasks are left out. The last batch is filled up with samples it has already had, masked
        out: zeros would pull the statistics of a batch normalization. Targets that do not count are 0, in dense classes
        the program's ignore_index.

        Args:
            program: what the batches are for.
            split: which samples.
            seed: the order of the samples; None = as in the folder.

        Raises:
            DataError: the folder does not fit the program, or a batch holds NaN, infinity or a label out of range.
        """
        self._require_fit(program)
        held = [self.labelled[task] for task in program.tasks if task in self.labelled]
        chosen = self.arrays["split"] == _SPLITS[split]
        rows = np.flatnonzero(chosen & np.logical_or.reduce(held)) if held else np.empty(0, np.intp)
        if seed is not None:
            rows = np.random.default_rng(seed).permutation(rows)
        return self._batches(program, rows)

    def _batches(self, program: Program, order: NDArray[np.intp]) -> Iterator[Batch]:
        size = program.batch_size
        for start in range(0, len(order), size):
            real = min(size, len(order) - start)
            # The last batch is filled up from the front of the order.
            rows = np.concatenate([order[start : start + real], np.resize(order, size - real)])
            x = np.asarray(self.arrays["x"][rows])
            self._refuse("x", rows, ~np.isfinite(x), "holds NaN or infinity")
            batch: Batch = {"x": x}
            for task in program.tasks:
                y, mask = self._target(task, program.targets[task], rows)
                mask[real:] = 0
                batch[f"y.{task}"], batch[f"mask.{task}"] = y, mask
            yield batch

    def _target(self, name: str, spec: TargetSpec, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """One batch of targets and masks; zeros where this folder holds nothing for the task."""
        size, task = len(rows), self.header.tasks.get(name)
        if task is None:
            return np.zeros([size, *spec.shape], spec.dtype), np.zeros([size, *spec.mask_shape], np.float32)
        y, given = np.asarray(self.arrays[name][rows]), self._mask(name, rows)
        self._refuse(name, rows, wrong(task, y, given), "holds NaN, infinity or a label out of range")
        counts = valid(task, y, given)
        y = np.where(counts, y.astype(spec.dtype), _filler(task, spec))  # cast first: uint8 cannot hold -100
        mask = counts if spec.mask_shape else counts.reshape(size, -1).any(axis=1)
        return y, np.asarray(mask, np.float32)

    def _mask(self, task: str, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        mask = self.arrays.get(f"{task}.mask")
        return None if mask is None else np.asarray(mask[rows])

    def _refuse(self, name: str, rows: NDArray[np.intp], bad: NDArray[np.bool_], what: str) -> None:
        if bad.any():
            sample = rows[np.flatnonzero(bad.reshape(len(rows), -1).any(axis=1))[0]]
            message = (
                f"data folder {self.directory}: {self.header.source(name)} {what} in sample {sample}; "
                f"see mas-edge-device check --data {self.directory}"
            )
            raise DataError(message)


def _bindings(name: str, task: TaskData, spec: TargetSpec) -> list[tuple[str, object, object]]:
    """(key, what the folder holds, what the program needs) of everything that must be equal."""
    words = {True: "for class indices", False: "for numbers"}
    pairs: list[tuple[str, object, object]] = [
        (f"tasks.{name}.kind", words[task.indices], words[spec.dtype == "int64"]),
        (f"tasks.{name}.shape", task.shape, spec.shape),
        (f"tasks.{name}.classes", task.classes, spec.classes),
    ]
    if task.element_mask and not task.indices:  # places without a class get the ignore_index, whatever the mask
        pairs.append((f"tasks.{name}.element_mask", True, spec.mask_shape == spec.shape))
    return pairs


def _filler(task: TaskData, spec: TargetSpec) -> int:
    """What stands where a target does not count. One index a sample is masked out by the mask, so any class will do."""
    return spec.ignore_index if task.kind == "dense_class" else 0
