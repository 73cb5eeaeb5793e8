"""Operators that read or write at places given by other tensors: gather, scatter, embedding, advanced indexing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.pointwise import operand
from mas_edge.export.onnx_training.writer import Writer
from mas_edge.protocol.errors import JobError

Number = float | int | bool


def gather(w: Writer, out: Operand, a: Operand, dim: int, index: Operand, *_sparse: object) -> Operand:
    """One element of ``a`` for each of ``index``, along ``dim``."""
    return w.one("GatherElements", a, index, shape=out.shape, axis=dim % max(a.rank, 1))


def index_select(w: Writer, out: Operand, a: Operand, dim: int, index: Operand) -> Operand:
    """Whole slices of ``a`` along ``dim``."""
    return w.one("Gather", a, index, shape=out.shape, axis=dim % max(a.rank, 1))


def scatter(
    w: Writer, out: Operand, a: Operand, dim: int, index: Operand, source: Operand | Number, reduction: str = "none"
) -> Operand:
    """``a`` with one element a place of ``index`` replaced, or added to."""
    update = w.expand(operand(w, source, a.dtype), index.shape) if not isinstance(source, Operand) else source
    if update.shape != index.shape:  # torch reads only the corner that the index covers
        for axis, size in enumerate(index.shape):
            update = w.slice(update, axis, 0, size)
    axis = dim % max(a.rank, 1)
    return w.one("ScatterElements", a, index, update, shape=out.shape, axis=axis, reduction=reduction)


def scatter_add(w: Writer, out: Operand, a: Operand, dim: int, index: Operand, source: Operand) -> Operand:
    """``a`` with ``source`` added at the places of ``index``."""
    return scatter(w, out, a, dim, index, source, "add")


def embedding(w: Writer, out: Operand, table: Operand, index: Operand, *_options: object) -> Operand:
    """Rows of a table."""
    return w.one("Gather", table, index, shape=out.shape, axis=0)


def embedding_backward(
    w: Writer, out: Operand, g: Operand, index: Operand, _rows: int, padding: int, by_frequency: bool
) -> Operand:
    """Every row's gradient is the sum over the places that read it; the padding row learns nothing."""
    if by_frequency:
        message = "an embedding with scale_grad_by_freq cannot train on ONNX Runtime: leave scale_grad_by_freq out"
        raise JobError(message)
    if padding >= 0:
        unused = w.pointwise("Equal", w.reshape(index, [*index.shape, 1]), w.scalar(padding, "int64"))
        g = w.where(unused, w.scalar(0, g.dtype), g)
    zero = w.full(out.shape, 0, g.dtype)
    return w.one("ScatterND", zero, w.reshape(index, [*index.shape, 1]), g, shape=out.shape, reduction="add")


def index(w: Writer, out: Operand, a: Operand, indices: Sequence[Operand | None]) -> Operand:
    """``a[i, j, ...]`` with tensors of whole numbers; None stands for a whole axis."""
    first, given = _indexed(indices)
    if len(given) == 1:
        return w.one("Gather", a, given[0], shape=out.shape, axis=first)
    order = [*range(first, first + len(given)), *range(first), *range(first + len(given), a.rank)]
    moved, places = w.transpose(a, order), _places(w, given)
    read = w.one("GatherND", moved, places, shape=(*places.shape[:-1], *moved.shape[len(given) :]))
    rank = places.rank - 1
    back = [*range(rank, rank + first), *range(rank), *range(rank + first, read.rank)]
    return w.transpose(read, back)


def index_put(
    w: Writer, out: Operand, a: Operand, indices: Sequence[Operand | None], values: Operand, accumulate: bool = False
) -> Operand:
    """``a`` with ``a[i, j, ...]`` replaced by ``values``, or with them added (several for one place add up)."""
    first, given = _indexed(indices)
    count = len(given)
    order = [*range(first, first + count), *range(first), *range(first + count, a.rank)]
    moved, places = w.transpose(a, order), _places(w, given)
    rank = places.rank - 1
    shape = [*a.shape[:first], *places.shape[:-1], *a.shape[first + count :]]
    update = w.transpose(
        w.expand(values, shape), [*range(first, first + rank), *range(first), *range(first + rank, len(shape))]
    )
    reduction = "add" if accumulate else "none"
    written = w.one("ScatterND", moved, places, update, shape=moved.shape, reduction=reduction)
    return w.reshape(w.transpose(written, list(np.argsort(order))), out.shape)


def _indexed(indices: Sequence[Operand | None]) -> tuple[int, list[Operand]]:
    """The first axis that is indexed, and the indices; they must be whole numbers on neighbouring axes."""
    axes = [axis for axis, given in enumerate(indices) if given is not None]
    given = [given for given in indices if given is not None]
    if any(index.dtype == "bool" for index in given) or axes != list(range(axes[0], axes[0] + len(axes))):
        message = (
            "indexing with a mask, or with tensors on axes that are not neighbours, has no fixed shape to export: use "
            "torch.where, or index one axis after the other"
        )
        raise JobError(message)
    return axes[0], given


def _places(w: Writer, given: Sequence[Operand]) -> Operand:
    shape = np.broadcast_shapes(*(index.shape for index in given))
    return w.concat([w.reshape(w.expand(w.cast(index, "int64"), shape), [*shape, 1]) for index in given], -1)


CONVERTERS: dict[str, Converter] = {
    "aten.gather.default": gather, "aten.index_select.default": index_select, "aten.scatter.src": scatter,
    "aten.scatter.value": scatter, "aten.scatter_add.default": scatter_add, "aten.embedding.default": embedding,
    "aten.embedding_dense_backward.default": embedding_backward, "aten.index.Tensor": index,
    "aten.index_put.default": index_put, "aten._unsafe_index.Tensor": index,
}  # fmt: skip
