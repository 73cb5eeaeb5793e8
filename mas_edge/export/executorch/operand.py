"""A tensor of a method while it is emitted: a view of memory that is made real only when a kernel needs it.

ExecuTorch's kernels take contiguous tensors. Permuting, slicing and expanding are kept as strides and an offset, as in
PyTorch, and one ``as_strided_copy`` makes the last of such a chain: it was 3 to 13 times as fast as ``permute_copy``,
``transpose_copy`` of blocks, and ``expand_copy``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

Shape = tuple[int, ...]
ITEM_BYTES = {"float32": 4, "float64": 8, "int64": 8, "int32": 4, "bool": 1}


@dataclass(frozen=True)
class Operand:
    """``shape`` numbers at ``offset``, ``strides`` apart, all counted in numbers, of a storage or a constant."""

    shape: Shape
    dtype: str
    strides: Shape
    storage: int = -1  # of the method
    constant: int = 0  # of the file, from 1
    offset: int = 0

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def contiguous(self) -> bool:
        """Whether its numbers lie one after the other in order; of a constant, from the first one on."""
        if self.constant and self.offset:
            return False
        pairs = zip(self.shape, self.strides, contiguous_strides(self.shape), strict=True)
        return self.size == 0 or all(size == 1 or stride == wanted for size, stride, wanted in pairs)


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """The strides of a tensor whose numbers lie in order."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def fresh(shape: Shape, dtype: str, storage: int = -1, constant: int = 0) -> Operand:
    """A contiguous operand at the beginning of its memory."""
    return Operand(shape, dtype, contiguous_strides(shape), storage, constant)


def reshaped(operand: Operand, shape: Shape) -> Operand | None:
    """The same numbers in order under another shape; None if they do not lie in order."""
    if not operand.contiguous:
        long = [(size, stride) for size, stride in zip(operand.shape, operand.strides, strict=True) if size != 1]
        if [size for size, _ in long] != [size for size in shape if size != 1]:
            return None
        rest = iter(long)
        return replace(operand, shape=shape, strides=tuple(next(rest)[1] if size != 1 else 0 for size in shape))
    return replace(operand, shape=shape, strides=contiguous_strides(shape))


def permuted(operand: Operand, axes: Sequence[int]) -> Operand:
    """The axes in another order."""
    axes = [axis % len(operand.shape) for axis in axes]
    shape, strides = (tuple(values[axis] for axis in axes) for values in (operand.shape, operand.strides))
    return replace(operand, shape=shape, strides=strides)


def expanded(operand: Operand, shape: Shape) -> Operand:
    """Repeated along the axes of length one and new ones in front."""
    front = len(shape) - len(operand.shape)
    strides = tuple(
        operand.strides[axis - front] if axis >= front and operand.shape[axis - front] == size else 0
        for axis, size in enumerate(shape)
    )
    return replace(operand, shape=shape, strides=strides)


def cut(operand: Operand, axis: int, start: int, length: int, step: int = 1) -> Operand:
    """Every ``step``-th place along one axis, ``length`` of them."""
    axis %= len(operand.shape)
    shape = (*operand.shape[:axis], length, *operand.shape[axis + 1 :])
    strides = (*operand.strides[:axis], operand.strides[axis] * step, *operand.strides[axis + 1 :])
    return replace(operand, shape=shape, strides=strides, offset=operand.offset + start * operand.strides[axis])


def without(operand: Operand, axis: int) -> Operand:
    """Without an axis of length one."""
    axis %= len(operand.shape)
    shape, strides = ((*values[:axis], *values[axis + 1 :]) for values in (operand.shape, operand.strides))
    return replace(operand, shape=shape, strides=strides)


def merged(operand: Operand) -> Operand:
    """The same view with as few axes as can say it."""
    shape: list[int] = []
    strides: list[int] = []
    for size, stride in zip(operand.shape, operand.strides, strict=True):
        if size == 1:
            continue
        if shape and strides[-1] == stride * size:
            shape[-1], strides[-1] = shape[-1] * size, stride
        else:
            shape.append(size)
            strides.append(stride)
    return replace(operand, shape=tuple(shape), strides=tuple(strides))
