"""Pooling: the largest value or the mean of windows, and of the windows of a given output size.

Means are linear and separable, so they are one small matrix for each spatial axis (``separable``), as are their
gradients. The gradient of a maximum goes to the place it came from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.separable import apply_along
from mas_edge.export.onnx_training.writer import Writer
from mas_edge.export.separable import adaptive_mean_matrices, mean_matrices, pair, transposed


def max_pool(
    w: Writer, out: Sequence[Operand], x: Operand, kernel: Sequence[int], stride: Sequence[int] = (),
    padding: Sequence[int] = (0,), dilation: Sequence[int] = (1,), _ceil: bool = False,
) -> list[Operand]:  # fmt: skip
    """The largest value of every window, and where in its plane it lies."""
    sizes = [pair(option) for option in (kernel, stride or kernel, padding, dilation)]
    planes = w.reshape(x, [math.prod(x.shape[:-2]), 1, *x.shape[-2:]])
    shape = [*planes.shape[:2], *out[0].shape[-2:]]
    pads = [*sizes[2], *_padding_behind(x.shape[-2:], shape[2:], sizes)]
    outputs = [(shape, x.dtype), (shape, "int64")]
    options = {"kernel_shape": sizes[0], "strides": sizes[1], "pads": pads, "dilations": sizes[3]}
    values, places = w.call("MaxPool", [planes], outputs, **options)
    size = w.scalar(math.prod(x.shape[-2:]), "int64")  # ONNX counts through all planes, torch in one
    return [w.reshape(values, out[0].shape), w.reshape(w.pointwise("Mod", places, size), out[0].shape)]


def _padding_behind(sizes: Sequence[int], results: Sequence[int], options: Sequence[Sequence[int]]) -> list[int]:
    """The padding behind, so that the last window of ``ceil_mode`` fits."""
    behind = []
    for size, result, kernel, stride, padding, dilation in zip(sizes, results, *options, strict=True):
        behind.append(max(padding, (result - 1) * stride + dilation * (kernel - 1) + 1 - size - padding))
    return behind


def max_pool_backward(
    w: Writer, out: Operand, g: Operand, x: Operand, _kernel: object, _stride: object, _padding: object,
    _dilation: object, _ceil: object, places: Operand,
) -> Operand:  # fmt: skip
    """The gradient at the places that were largest; windows may overlap, so it adds up."""
    return to_places(w, g, places, out.shape)


def to_places(w: Writer, g: Operand, places: Operand, shape: Sequence[int]) -> Operand:
    """0 of ``shape`` with ``g`` added at ``places`` in the planes of the last two axes."""
    planes, size = math.prod(shape[:-2]), math.prod(shape[-2:])
    flat = [planes, g.size // planes]
    zero = w.full([planes, size], 0, g.dtype)
    inputs = [zero, w.reshape(places, flat), w.reshape(g, flat)]
    return w.reshape(w.one("ScatterElements", *inputs, shape=zero.shape, axis=1, reduction="add"), shape)


def adaptive_max_pool(w: Writer, out: Sequence[Operand], x: Operand, _size: object) -> list[Operand]:
    """The largest value of each of the windows that share out a plane, and where in it it lies."""
    width = x.shape[-1]
    rows, columns = (_windows(x.shape[axis], out[0].shape[axis]) for axis in (-2, -1))
    cells = w.one("Gather", x, w.constant(rows), shape=[*x.shape[:-2], *rows.shape, width], axis=x.rank - 2)
    shape = [*x.shape[:-2], *rows.shape, *columns.shape]
    cells = w.one("Gather", cells, w.constant(columns), shape=shape, axis=x.rank)
    first = x.rank - 2
    order = [*range(first), first, first + 2, first + 1, first + 3]
    count = rows.shape[1] * columns.shape[1]
    cells = w.reshape(w.transpose(cells, order), [*out[0].shape, count])
    best = w.one("ArgMax", cells, shape=[*out[0].shape, 1], dtype="int64", axis=x.rank, keepdims=1)
    plane = rows[:, None, :, None] * width + columns[None, :, None, :]
    table = w.expand(w.constant(plane.reshape(*out[0].shape[-2:], count)), cells.shape)
    found = [w.one("GatherElements", a, best, shape=best.shape, axis=x.rank) for a in (cells, table)]
    return [w.reshape(part, out[0].shape) for part in found]


def _windows(size: int, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """The places of each window, the last repeated where windows are shorter."""
    starts = [i * size // count for i in range(count)]
    ends = [-(-(i + 1) * size // count) for i in range(count)]
    longest = max(end - start for start, end in zip(starts, ends, strict=True))
    rows = [[min(start + i, end - 1) for i in range(longest)] for start, end in zip(starts, ends, strict=True)]
    return np.array(rows, np.int64)


def adaptive_max_pool_backward(w: Writer, out: Operand, g: Operand, _x: Operand, places: Operand) -> Operand:
    """The gradient at the places that were largest."""
    return to_places(w, g, places, out.shape)


def adaptive_mean_pool(w: Writer, out: Operand, x: Operand, _size: object) -> Operand:
    """The mean of each of the windows that share out a plane."""
    return apply_along(w, x, adaptive_mean_matrices(x.shape, out.shape))


def adaptive_mean_pool_backward(w: Writer, _out: Operand, g: Operand, x: Operand) -> Operand:
    """Every place's share of the means."""
    return apply_along(w, g, transposed(adaptive_mean_matrices(x.shape, g.shape)))


def mean_pool(w: Writer, _out: Operand, x: Operand, kernel: Sequence[int], *options: Any) -> Operand:
    """The mean of every window."""
    return apply_along(w, x, mean_matrices(x.shape, kernel, *options))


def mean_pool_backward(
    w: Writer, _out: Operand, g: Operand, x: Operand, kernel: Sequence[int], *options: Any
) -> Operand:
    """Every place's share of the means."""
    return apply_along(w, g, transposed(mean_matrices(x.shape, kernel, *options)))


CONVERTERS: dict[str, Converter] = {
    "aten.max_pool2d_with_indices.default": max_pool,
    "aten.max_pool2d_with_indices_backward.default": max_pool_backward,
    "aten.adaptive_max_pool2d.default": adaptive_max_pool,
    "aten.adaptive_max_pool2d_backward.default": adaptive_max_pool_backward,
    "aten._adaptive_avg_pool2d.default": adaptive_mean_pool,
    "aten._adaptive_avg_pool2d_backward.default": adaptive_mean_pool_backward,
    "aten.avg_pool2d.default": mean_pool, "aten.avg_pool2d_backward.default": mean_pool_backward,
}  # fmt: skip
