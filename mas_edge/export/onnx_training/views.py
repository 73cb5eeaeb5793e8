"""Operators that move, repeat, cut and join, and those that fill a tensor with a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer

Number = float | int | bool


def view(w: Writer, out: Operand, a: Operand, *_shape: object) -> Operand:
    """The same elements in order under another shape (view, squeeze, unsqueeze, _unsafe_view)."""
    return w.reshape(a, out.shape)


def expand(w: Writer, out: Operand, a: Operand, *_shape: object) -> Operand:
    """Repeat along axes of size 1."""
    return w.expand(a, out.shape)


def permute(w: Writer, _out: Operand, a: Operand, order: Sequence[int]) -> Operand:
    """Axes in another order."""
    return w.transpose(a, order)


def transpose(w: Writer, _out: Operand, a: Operand, first: int, second: int) -> Operand:
    """Two axes change places."""
    order = list(range(a.rank))
    order[first], order[second] = order[second], order[first]
    return w.transpose(a, order)


def matrix_transpose(w: Writer, _out: Operand, a: Operand) -> Operand:
    """The transpose of a matrix; a vector as it is."""
    return w.transpose(a, range(a.rank)[::-1])


def slice_(
    w: Writer, _out: Operand, a: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Operand:
    """``a[start:end:step]`` along ``dim``."""
    first, last, stride = slice(start, end, step).indices(a.shape[dim])
    return w.slice(a, dim, first, max(first, last), stride)


def select(w: Writer, out: Operand, a: Operand, dim: int, index: int) -> Operand:
    """One place along ``dim``, which disappears."""
    index %= a.shape[dim]
    return w.reshape(w.slice(a, dim, index, index + 1), out.shape)


def split_with_sizes(w: Writer, _out: Sequence[Operand], a: Operand, sizes: Sequence[int], dim: int) -> list[Operand]:
    """Pieces of the given sizes."""
    return w.split(a, sizes, dim)


def split(w: Writer, out: Sequence[Operand], a: Operand, _size: int, dim: int) -> list[Operand]:
    """Pieces of one size, the last perhaps smaller."""
    return w.split(a, [piece.shape[dim] for piece in out], dim)


def unbind(w: Writer, out: Sequence[Operand], a: Operand, dim: int) -> list[Operand]:
    """Every place along ``dim`` as a tensor of its own."""
    return [w.reshape(piece, spec.shape) for piece, spec in zip(w.split(a, [1] * len(out), dim), out, strict=True)]


def concat(w: Writer, out: Operand, parts: Sequence[Operand], dim: int) -> Operand:
    """The parts one after the other."""
    filled = [part for part in parts if part.size]  # torch lets an empty vector stand for nothing
    return w.concat([w.cast(part, out.dtype) for part in filled], dim) if filled else w.reshape(parts[0], out.shape)


def stack(w: Writer, out: Operand, parts: Sequence[Operand], dim: int) -> Operand:
    """The parts along a new axis."""
    dim %= out.rank
    shape = [*out.shape[:dim], 1, *out.shape[dim + 1 :]]
    return w.concat([w.reshape(part, shape) for part in parts], dim)


def slice_scatter(
    w: Writer, _out: Operand, a: Operand, source: Operand, dim: int, start: int | None, end: int | None, step: int
) -> Operand:
    """``a`` with ``a[start:end:step]`` along ``dim`` replaced."""
    first, last, stride = slice(start, end, step).indices(a.shape[dim])
    if stride == 1:
        after = w.slice(a, dim, max(first, last), a.shape[dim])
        pieces = [w.slice(a, dim, 0, first), w.expand(source, _with(a.shape, dim, last - first)), after]
        return w.concat([piece for piece in pieces if piece.size], dim)
    shape = _with(a.shape, dim, len(range(first, last, stride)))
    places = np.arange(first, last, stride).reshape([-1 if axis == dim % a.rank else 1 for axis in range(a.rank)])
    index = w.expand(w.constant(places.astype(np.int64)), shape)
    return w.one("ScatterElements", a, index, w.expand(source, shape), shape=a.shape, axis=dim % a.rank)


def select_scatter(w: Writer, out: Operand, a: Operand, source: Operand, dim: int, index: int) -> Operand:
    """``a`` with one place along ``dim`` replaced."""
    index %= a.shape[dim]
    return slice_scatter(w, out, a, w.reshape(source, _with(a.shape, dim, 1)), dim, index, index + 1, 1)


def _with(shape: Sequence[int], dim: int, size: int) -> list[int]:
    changed = list(shape)
    changed[dim] = size
    return changed


def pad(w: Writer, _out: Operand, a: Operand, padding: Sequence[int], value: float) -> Operand:
    """Add ``value`` around; torch counts the axes from the last one."""
    before, after = [0] * a.rank, [0] * a.rank
    for i in range(len(padding) // 2):
        before[-1 - i], after[-1 - i] = padding[2 * i], padding[2 * i + 1]
    return w.pad(a, before, after, value)


def flip(w: Writer, _out: Operand, a: Operand, dims: Sequence[int]) -> Operand:
    """The other way round along ``dims``."""
    for dim in dims:
        places = w.ints(range(a.shape[dim])[::-1])
        a = w.one("Gather", a, places, shape=a.shape, axis=dim % a.rank)
    return a


def repeat(w: Writer, out: Operand, a: Operand, times: Sequence[int]) -> Operand:
    """The whole tensor again and again along each axis."""
    wide = w.reshape(a, [1] * (len(times) - a.rank) + list(a.shape))
    return w.one("Tile", wide, w.ints(times), shape=out.shape)


def filled(w: Writer, out: Operand, _like: object, value: Number, *_options: object) -> Operand:
    """One number everywhere (full, full_like, new_full)."""
    return w.full(out.shape, value, out.dtype)


def new_filled(w: Writer, out: Operand, _like: Operand, _size: object, value: Number, *_options: object) -> Operand:
    """One number everywhere, in a size of its own."""
    return w.full(out.shape, value, out.dtype)


def copied(w: Writer, out: Operand, _into: Operand, source: Operand, *_options: object) -> Operand:
    """What is written over a whole tensor."""
    return w.expand(w.cast(source, out.dtype), out.shape)


def zeros(w: Writer, out: Operand, *_options: object) -> Operand:
    """0 everywhere; also for memory that is not set yet."""
    return w.full(out.shape, 0, out.dtype)


def ones(w: Writer, out: Operand, *_options: object) -> Operand:
    """1 everywhere."""
    return w.full(out.shape, 1, out.dtype)


def number(w: Writer, out: Operand, value: Number, *_options: object) -> Operand:
    """A number as a tensor."""
    return w.scalar(value, out.dtype)


def arange(w: Writer, out: Operand, start: Number, _end: Number, step: Number = 1, *_options: object) -> Operand:
    """Evenly spaced numbers."""
    return w.constant((start + np.arange(out.shape[0]) * step).astype(out.dtype))


def pixel_shuffle(w: Writer, out: Operand, a: Operand, factor: int) -> Operand:
    """Channels become pixels: [..., C*r*r, H, W] to [..., C, H*r, W*r] (Shi et al. 2016, arXiv 1609.05158)."""
    *batch, channels, height, width = a.shape
    cells = w.reshape(a, [math.prod(batch), channels // factor**2, factor, factor, height, width])
    return w.reshape(w.swap(w.swap(cells, 3, 4, 6), 2, 3, 4), out.shape)


def pixel_unshuffle(w: Writer, out: Operand, a: Operand, factor: int) -> Operand:
    """Pixels become channels: the inverse of ``pixel_shuffle``."""
    *batch, channels, height, width = a.shape
    cells = w.reshape(a, [math.prod(batch), channels, height // factor, factor, width // factor, factor])
    return w.reshape(w.swap(w.swap(cells, 2, 3, 4), 3, 5, 6), out.shape)


CONVERTERS: dict[str, Converter] = {
    "aten.view.default": view, "aten._unsafe_view.default": view, "aten.reshape.default": view,
    "aten.squeeze.default": view, "aten.squeeze.dim": view, "aten.squeeze.dims": view, "aten.unsqueeze.default": view,
    "aten.view_copy.default": view, "aten.expand.default": expand, "aten.permute.default": permute,
    "aten.transpose.int": transpose, "aten.t.default": matrix_transpose, "aten.slice.Tensor": slice_,
    "aten.select.int": select, "aten.split_with_sizes.default": split_with_sizes, "aten.split.Tensor": split,
    "aten.unbind.int": unbind, "aten.cat.default": concat, "aten.stack.default": stack,
    "aten.slice_scatter.default": slice_scatter, "aten.select_scatter.default": select_scatter,
    "aten.constant_pad_nd.default": pad, "aten.flip.default": flip, "aten.repeat.default": repeat,
    "aten.copy.default": copied, "aten.full.default": filled, "aten.full_like.default": filled,
    "aten.new_full.default": new_filled, "aten.new_empty_strided.default": zeros,
    "aten.zeros.default": zeros, "aten.zeros_like.default": zeros,
    "aten.new_zeros.default": zeros, "aten.empty.memory_format": zeros, "aten.new_empty.default": zeros,
    "aten.empty_like.default": zeros, "aten.ones.default": ones, "aten.ones_like.default": ones,
    "aten.new_ones.default": ones, "aten.scalar_tensor.default": number, "aten.arange.start_step": arange,
    "aten.pixel_shuffle.default": pixel_shuffle, "aten.pixel_unshuffle.default": pixel_unshuffle,
}  # fmt: skip
