"""PyTorch's views as views here: what a call makes of its operand without touching a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from mas_edge.export.executorch.operand import Operand, Shape, cut, expanded, permuted, without

ATEN = torch.ops.aten


def permute(x: Operand, _shapes: Sequence[Shape], axes: Sequence[int]) -> Operand:
    """``aten.permute``."""
    return permuted(x, axes)


def transpose(x: Operand, _shapes: Sequence[Shape], first: int, second: int) -> Operand:
    """``aten.transpose``."""
    axes = list(range(len(x.shape)))
    axes[first], axes[second] = axes[second], axes[first]
    return permuted(x, axes)


def matrix_transpose(x: Operand, _shapes: Sequence[Shape]) -> Operand:
    """``aten.t``."""
    return permuted(x, list(range(len(x.shape)))[::-1])


def expand(x: Operand, shapes: Sequence[Shape], *_: object) -> Operand:
    """``aten.expand``."""
    return expanded(x, shapes[0])


def slice_(
    x: Operand, shapes: Sequence[Shape], axis: int = 0, start: int | None = None, _end: object = None, step: int = 1
) -> Operand:
    """``aten.slice``."""
    size = x.shape[axis]
    begin = start or 0
    begin = min(max(begin + size, 0) if begin < 0 else begin, size)
    return cut(x, axis, begin, shapes[0][axis], step)


def select(x: Operand, _shapes: Sequence[Shape], axis: int, place: int) -> Operand:
    """``aten.select``."""
    return without(cut(x, axis, place % x.shape[axis], 1), axis)


def split(x: Operand, shapes: Sequence[Shape], _sizes: object, axis: int = 0) -> list[Operand]:
    """``aten.split`` and ``split_with_sizes``."""
    sizes = [shape[axis] for shape in shapes]
    return [cut(x, axis, sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def unbind(x: Operand, _shapes: Sequence[Shape], axis: int = 0) -> list[Operand]:
    """``aten.unbind``."""
    return [without(cut(x, axis, place, 1), axis) for place in range(x.shape[axis])]


VIEWS: dict[OpOverload, Callable[..., Any]] = {
    ATEN.permute.default: permute, ATEN.transpose.int: transpose, ATEN.t.default: matrix_transpose,
    ATEN.expand.default: expand, ATEN.slice.Tensor: slice_, ATEN.select.int: select, ATEN.split.Tensor: split,
    ATEN.split_with_sizes.default: split, ATEN.unbind.int: unbind,
}  # fmt: skip
# The same numbers in the same order under another shape.
RESHAPES = {
    ATEN.view.default, ATEN._unsafe_view.default, ATEN.reshape.default, ATEN.view_copy.default,
    ATEN.squeeze.default, ATEN.squeeze.dim, ATEN.squeeze.dims, ATEN.unsqueeze.default, ATEN.clone.default,
    ATEN.alias.default, ATEN.detach.default, ATEN.lift_fresh_copy.default, ATEN.contiguous.default,
}  # fmt: skip
