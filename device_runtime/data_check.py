"""What is wrong with a data folder, in plain words: files, shapes, dtypes, split, labels out of range, NaN.

``read_arrays`` and ``shape_problems`` look at the headers of the arrays and at the split, whatever the arrays' size;
``value_problems`` reads every number once, a block at a time, so that a folder larger than memory can be checked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.data_header import Header, TaskData, read_header

BLOCK_BYTES = 8 * 1024 * 1024  # small beside the memory of the smallest board, large beside a disk's block
MAX_NPY_HEADER = 64 * 1024  # an array of plain numbers needs a hundred; numpy parses up to ten thousand
TRAIN, TEST = 0, 1  # the values of split.npy

Arrays = Mapping[str, NDArray[Any]]


def problems(directory: Path) -> list[str]:
    """Everything that is wrong with a data folder, one sentence each; an empty list means that it can be trained on."""
    header, found = read_header(directory)
    if header is None:
        return found
    arrays, found = read_arrays(directory, header)
    found = found or shape_problems(header, arrays)
    return found or value_problems(header, arrays)


def read_arrays(directory: Path, header: Header) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Map the folder's .npy files into memory, or call its reader: the arrays, and what is missing or unreadable."""
    given, found = _call_reader(directory, header.reader) if header.reader else ({}, [])
    arrays: dict[str, NDArray[Any]] = {}
    if found:
        return arrays, found
    for name, optional in _expected(header):
        if not header.reader:
            found += _map_file(directory, name, arrays, optional=optional)
        elif isinstance(given.get(name), np.ndarray):
            arrays[name] = given[name]
        elif name in given:
            found.append(f"{header.source(name)} is a {type(given[name]).__name__}, expected a numpy array")
        elif not optional:
            found.append(f"missing array: the reader {header.reader} returned no {name!r}{_hint(name)}")
    return arrays, found


def _expected(header: Header) -> Iterator[tuple[str, bool]]:
    """The arrays a folder with this header holds, and whether it may do without."""
    yield "x", False
    yield "split", False
    for name, task in header.tasks.items():
        yield name, False
        yield f"{name}.mask", not task.element_mask


def _hint(name: str) -> str:
    if name in ("x", "split"):
        return ""
    task = name.removesuffix(".mask")
    what = "element_mask = true" if name.endswith(".mask") else f"[tasks.{task}]"
    return f"; without it, take {what} out of data.toml"


def _map_file(directory: Path, name: str, arrays: dict[str, NDArray[Any]], *, optional: bool) -> list[str]:
    path = directory / f"{name}.npy"
    try:
        if path.exists() and not path.is_file():
            return [f"{path.name} is not a file"]  # to open a pipe would take for ever
        _require_short_header(path)
        # Never np.load: that would read archives and, if asked, pickles.
        arrays[name] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return [] if optional else [f"missing file {path.name}{_hint(name)}"]
    except OSError as error:
        return [f"{path.name} cannot be read: {error.strerror or error}"]
    except Exception as error:  # on damaged headers numpy raises ValueError, SyntaxError, MemoryError and others
        return [f"{path.name} is not a whole .npy file of numbers: {' '.join(str(error).split())[:200]}"]
    return []


def _require_short_header(path: Path) -> None:
    """Raise ValueError if a .npy file says that its header is longer than any: numpy would make room for it first."""
    with path.open("rb") as file:
        start = file.read(12)  # magic, version, the length of the header in 2 bytes or, from version 2 on, in 4
    length = int.from_bytes(start[8:10] if start[6:7] == b"\x01" else start[8:12], "little")
    if length > MAX_NPY_HEADER:
        message = f"it says that its header has {length} bytes"
        raise ValueError(message)


def _call_reader(directory: Path, reader: str) -> tuple[Mapping[str, Any], list[str]]:
    """Call a user's ``package:function`` with the folder; it returns the arrays by name."""
    package, _, function = reader.partition(":")
    try:
        arrays = getattr(importlib.import_module(package), function)(directory)
    except Exception as error:  # whatever the user's code raises
        reason = f"{type(error).__name__}: {error}"
        return {}, [f"the reader {reader} failed: {reason}; is {package} installed, and does it run by itself?"]
    if not isinstance(arrays, Mapping):
        return {}, [f"the reader {reader} returned a {type(arrays).__name__}, expected a mapping of names to arrays"]
    return arrays, []


def shape_problems(header: Header, arrays: Arrays) -> list[str]:
    """What does not fit together among shapes and dtypes, and a split that leaves nothing to train or test on."""
    n = len(arrays["x"]) if arrays["x"].ndim else 0
    found = _array_problems(header, "x", arrays["x"], [n, *header.input_shape], "float32")
    if n == 0:
        found.append(f"{header.source('x')} holds no samples")
    wrong_split = _array_problems(header, "split", arrays["split"], [n], "uint8")
    found += wrong_split or _split_problems(header, arrays["split"])
    for name, task in header.tasks.items():
        dtype = "an integer type" if task.indices else "float32"
        found += _array_problems(header, name, arrays[name], [n, *task.shape], dtype)
        if f"{name}.mask" in arrays:
            shape = [n, *task.shape] if task.element_mask else [n]
            found += _array_problems(header, f"{name}.mask", arrays[f"{name}.mask"], shape, "uint8, bool or float32")
    return found


_KINDS = {"uint8": "iub", "an integer type": "iu", "uint8, bool or float32": "iubf", "float32": "f"}


def _array_problems(header: Header, name: str, array: NDArray[Any], shape: list[int], dtype: str) -> list[str]:
    found = []
    if list(array.shape) != shape:
        found.append(f"{header.source(name)} has shape {list(array.shape)}, expected {shape}")
    # Integers of any width will do, their values are checked; float64 would double the memory of every batch.
    if array.dtype.kind not in _KINDS[dtype] or (array.dtype.kind == "f" and array.dtype != np.float32):
        found.append(f"{header.source(name)} has dtype {array.dtype}, expected {dtype}")
    return found


def _split_problems(header: Header, split: NDArray[Any]) -> list[str]:
    source = header.source("split")
    other = np.flatnonzero((split != TRAIN) & (split != TEST))
    if len(other):
        return [f"{source} holds {split[other[0]]} for sample {other[0]}; allowed: 0 (train) and 1 (test)"]
    names = {TRAIN: "train", TEST: "test"}
    return [f"{source} has no {names[value]} samples (no {value})" for value in names if not (split == value).any()]


def value_problems(header: Header, arrays: Arrays) -> list[str]:
    """NaN and infinities, labels out of range, masks other than 0 and 1; reads every number once."""
    x = arrays["x"]
    bad = _bad_samples(x, lambda place: ~np.isfinite(x[place]))
    found = [f"{header.source('x')} holds NaN or infinity in {_samples(bad)}"] if len(bad) else []
    for name, task in header.tasks.items():
        found += _target_problems(header, name, task, arrays[name], arrays.get(f"{name}.mask"))
    return found


def _target_problems(
    header: Header, name: str, task: TaskData, y: NDArray[Any], mask: NDArray[Any] | None
) -> list[str]:
    found = []
    if mask is not None:
        bad = _bad_samples(mask, lambda place: (mask[place] != 0) & (mask[place] != 1))
        if len(bad):
            found.append(f"{header.source(f'{name}.mask')} holds values other than 0 and 1 in {_samples(bad)}")

    def bad_labels(place: slice) -> NDArray[np.bool_]:
        return wrong(task, y[place], None if mask is None else mask[place])

    bad = _bad_samples(y, bad_labels)
    if len(bad):
        first = slice(bad[0], bad[0] + 1)
        what = "NaN or infinity"
        if task.indices:
            allowed = f"0 to {task.classes - 1}, or {task.ignore_index} for no label"
            what = f"the label {y[first][bad_labels(first)][0]}, out of range ({allowed}),"
        found.append(f"{header.source(name)} holds {what} in {_samples(bad)}")
    return found


def valid(task: TaskData, y: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Which numbers of targets ``y`` [n, *shape] count, same shape: masked in, and not the label for "no label"."""
    fine = np.ones(y.shape, np.bool_) if mask is None else np.broadcast_to(_spread(mask != 0, y.ndim), y.shape)
    return fine & (y != task.ignore_index) if task.indices else fine


def wrong(task: TaskData, y: NDArray[Any], mask: NDArray[Any] | None) -> NDArray[np.bool_]:
    """Which numbers of targets ``y`` [n, *shape] count although they must not: out of range, NaN, infinite."""
    bad = (y < 0) | (y >= task.classes) if task.indices else ~np.isfinite(y)
    return bad & valid(task, y, mask)


def blocks(array: NDArray[Any]) -> Iterator[slice]:
    """Slices of samples that hold about BLOCK_BYTES each."""
    step = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    yield from (slice(start, start + step) for start in range(0, len(array), step))


def _bad_samples(array: NDArray[Any], is_bad: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.intp]:
    """The indices of the samples of ``array`` in which ``is_bad`` of a block is true anywhere."""
    found = [np.empty(0, np.intp)]
    for place in blocks(array):
        bad = is_bad(place)
        found.append(np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1)) + place.start)
    return np.concatenate(found)


def _spread(mask: NDArray[np.bool_], ndim: int) -> NDArray[np.bool_]:
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def _samples(bad: NDArray[np.intp]) -> str:
    return f"sample {bad[0]}" if len(bad) == 1 else f"{len(bad)} samples, the first is sample {bad[0]}"
