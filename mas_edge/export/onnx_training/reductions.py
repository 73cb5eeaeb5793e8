"""Operators that sum up: sums, means, extremes, norms; and matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer

Number = float | int | bool
Axes = int | Sequence[int] | None


def axes_of(a: Operand, dim: Axes) -> list[int]:
    """The axes that torch means: none given means all."""
    if dim is None or (not isinstance(dim, int) and not dim):
        return list(range(a.rank))
    return [dim] if isinstance(dim, int) else list(dim)


def total(w: Writer, out: Operand, a: Operand, dim: Axes = None, keep: bool = False, *_dtype: object) -> Operand:
    """The sum over ``dim``."""
    return w.reduce("ReduceSum", w.cast(a, out.dtype), axes_of(a, dim), keep)


def total_of_all(w: Writer, out: Operand, a: Operand, *_dtype: object) -> Operand:
    """The sum over everything."""
    return total(w, out, a)


def mean(w: Writer, out: Operand, a: Operand, dim: Axes = None, keep: bool = False, *_dtype: object) -> Operand:
    """The mean over ``dim``."""
    return w.reduce("ReduceMean", w.cast(a, out.dtype), axes_of(a, dim), keep)


def mean_of_all(w: Writer, out: Operand, a: Operand, *_dtype: object) -> Operand:
    """The mean over everything."""
    return mean(w, out, a)


def largest(w: Writer, _out: Operand, a: Operand, dim: Axes = None, keep: bool = False) -> Operand:
    """The largest value over ``dim``."""
    return w.reduce("ReduceMax", a, axes_of(a, dim), keep)


def smallest(w: Writer, _out: Operand, a: Operand, dim: Axes = None, keep: bool = False) -> Operand:
    """The smallest value over ``dim``."""
    return w.reduce("ReduceMin", a, axes_of(a, dim), keep)


def _place(op: str) -> Converter:
    def convert(w: Writer, out: Operand, a: Operand, dim: int | None = None, keep: bool = False) -> Operand:
        if dim is None:
            a, dim, keep = w.reshape(a, [a.size]), 0, False
        return w.one(op, a, shape=out.shape, dtype="int64", axis=dim % max(a.rank, 1), keepdims=int(keep))

    return convert


def _extreme(reduction: str, place: str) -> Converter:
    def convert(w: Writer, out: Sequence[Operand], a: Operand, dim: int, keep: bool = False) -> list[Operand]:
        found = w.one(place, a, shape=out[1].shape, dtype="int64", axis=dim % max(a.rank, 1), keepdims=int(keep))
        return [w.reduce(reduction, a, [dim], keep), found]

    return convert


def _truth(reduction: str) -> Converter:
    def convert(w: Writer, _out: Operand, a: Operand, dim: Axes = None, keep: bool = False) -> Operand:
        flags = w.cast(w.cast(a, "bool"), "float32")
        return w.cast(w.reduce(reduction, flags, axes_of(a, dim), keep), "bool")

    return convert


def product(w: Writer, out: Operand, a: Operand, dim: Axes = None, keep: bool = False, *_dtype: object) -> Operand:
    """The product over ``dim``."""
    return w.reduce("ReduceProd", w.cast(a, out.dtype), axes_of(a, dim), keep)


def product_of_all(w: Writer, out: Operand, a: Operand, *_dtype: object) -> Operand:
    """The product over everything."""
    return product(w, out, a)


def variance(
    w: Writer, out: Operand, a: Operand, dim: Axes = None, correction: Number | None = None, keep: bool = False
) -> Operand:
    """The mean squared distance from the mean, divided by n - correction (1 if not given)."""
    axes = axes_of(a, dim)
    count = math.prod(a.shape[axis] for axis in axes)
    squared = _squared_distance(w, a, axes)
    scaled = w.times(
        w.reduce("ReduceSum", squared, axes, keep), 1 / (count - (1 if correction is None else correction))
    )
    return w.reshape(scaled, out.shape)


def _squared_distance(w: Writer, a: Operand, axes: Sequence[int]) -> Operand:
    distance = w.sub(a, w.reduce("ReduceMean", a, axes, keep=True))
    return w.mul(distance, distance)


def vector_norm(
    w: Writer, out: Operand, a: Operand, order: Number = 2, dim: Axes = None, keep: bool = False, *_dtype: object
) -> Operand:
    """The length of vectors: the 1-, 2-, infinity- or any other p-norm."""
    a, axes = w.cast(a, out.dtype), axes_of(a, dim)
    if order == 2:
        return w.pointwise("Sqrt", w.reduce("ReduceSum", w.mul(a, a), axes, keep))
    size = w.pointwise("Abs", a)
    if math.isinf(order):
        return w.reduce("ReduceMax" if order > 0 else "ReduceMin", size, axes, keep)
    if order == 1:
        return w.reduce("ReduceSum", size, axes, keep)
    powers = w.reduce("ReduceSum", w.pointwise("Pow", size, w.scalar(order, a.dtype)), axes, keep)
    return w.pointwise("Pow", powers, w.scalar(1 / order, a.dtype))


def cumulative_sum(w: Writer, out: Operand, a: Operand, dim: int, *_dtype: object) -> Operand:
    """The running sum along ``dim``."""
    axis = w.scalar(dim % a.rank, "int64")
    return w.one("CumSum", w.cast(a, out.dtype), axis, shape=out.shape)


def matrix_product(w: Writer, _out: Operand, a: Operand, b: Operand) -> Operand:
    """a @ b for matrices, batches of matrices, or two vectors."""
    return _gemm(w, a, b, None, 1, 1) if a.rank == b.rank == 2 else w.matmul(a, b)


def matrix_vector(w: Writer, out: Operand, a: Operand, b: Operand) -> Operand:
    """A matrix times a vector."""
    return w.reshape(w.matmul(a, w.reshape(b, [b.size, 1])), out.shape)


def add_product(w: Writer, _out: Operand, c: Operand, a: Operand, b: Operand, beta: Number, alpha: Number) -> Operand:
    """beta*c + alpha*(a @ b)."""
    return _gemm(w, a, b, c, beta, alpha)


def _gemm(w: Writer, a: Operand, b: Operand, c: Operand | None, beta: Number, alpha: Number) -> Operand:
    """A matrix product that reads a transposed factor where it lies."""
    before_a, before_b = w.before_transpose(a), w.before_transpose(b)
    options: dict[str, Any] = {"transA": int(before_a is not None), "transB": int(before_b is not None)}
    shape = (a.shape[0], b.shape[1])
    factors = [before_a or a, before_b or b, *([c] if c else [])]
    return w.one("Gemm", *factors, shape=shape, alpha=float(alpha), beta=float(beta), **options)


CONVERTERS: dict[str, Converter] = {
    "aten.sum.default": total_of_all, "aten.sum.dim_IntList": total, "aten.mean.default": mean_of_all,
    "aten.mean.dim": mean, "aten.amax.default": largest, "aten.amin.default": smallest, "aten.max.default": largest,
    "aten.min.default": smallest, "aten.argmax.default": _place("ArgMax"), "aten.argmin.default": _place("ArgMin"),
    "aten.max.dim": _extreme("ReduceMax", "ArgMax"), "aten.min.dim": _extreme("ReduceMin", "ArgMin"),
    "aten.any.default": _truth("ReduceMax"), "aten.any.dim": _truth("ReduceMax"), "aten.any.dims": _truth("ReduceMax"),
    "aten.all.default": _truth("ReduceMin"), "aten.all.dim": _truth("ReduceMin"), "aten.var.correction": variance,
    "aten.prod.default": product_of_all, "aten.prod.dim_int": product,
    "aten.linalg_vector_norm.default": vector_norm, "aten.cumsum.default": cumulative_sum,
    "aten.mm.default": matrix_product, "aten.bmm.default": matrix_product, "aten.dot.default": matrix_product,
    "aten.mv.default": matrix_vector, "aten.addmm.default": add_product,
}  # fmt: skip
