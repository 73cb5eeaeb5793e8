"""Adding at chosen places, by comparison: LiteRT's scatter refuses the additions that its converter writes.

Each is a product with, or a sum over, ones where a place was chosen. That costs as many multiplications as there are
places times choices, which is little for the channels, rows and classes that networks choose among.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def chosen(places: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Ones where a place was chosen: [size, number of choices]."""
    return (places.reshape(1, -1) == torch.arange(size).unsqueeze(1)).to(dtype)


def embedding_backward(grad: Tensor, places: Tensor, rows: int, padding: int, scaled: bool) -> Tensor:
    """``aten.embedding_dense_backward``: each row's gradients summed; the row ``padding`` gets none."""
    taken = chosen(places, rows, grad.dtype)
    if padding >= 0:
        taken = taken * (torch.arange(rows) != padding).unsqueeze(1).to(grad.dtype)
    if scaled:
        taken = taken / taken.sum(1, keepdim=True).clamp(min=1)
    return taken @ grad.reshape(-1, grad.shape[-1])


def index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """``aten.index_put`` that adds, along neighbouring axes; anything else stays.

    x[..., i, j, ...] += values: the axes are taken as one of size I * J, whose places are i * J + j.
    """
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    found = [index for index in indices if index is not None]
    if not accumulate or not together or any(index.dtype == torch.bool for index in found):
        return NotImplemented
    found = list(torch.broadcast_tensors(*found))
    places = torch.zeros_like(found[0])
    for axis, index in zip(axes, found, strict=True):
        places = places * x.shape[axis] + torch.where(index < 0, index + x.shape[axis], index)
    before, behind = x.shape[: axes[0]], x.shape[axes[-1] + 1 :]
    size = math.prod(x.shape[axis] for axis in axes)
    given = values.expand(*before, *places.shape, *behind)
    given = given.reshape(math.prod(before), places.numel(), math.prod(behind))
    columns = given.permute(1, 0, 2).reshape(places.numel(), -1)
    added = chosen(places, size, x.dtype) @ columns
    added = added.reshape(size, math.prod(before), math.prod(behind)).permute(1, 0, 2)
    return x + added.reshape(x.shape)


def scatter_add(x: Tensor, axis: int, places: Tensor, source: Tensor) -> Any:
    """``aten.scatter_add`` where the other axes are those of ``x``: what the gradient of a gather is."""
    axis %= x.dim()
    if places.shape != source.shape or any(places.shape[i] != x.shape[i] for i in range(x.dim()) if i != axis):
        return NotImplemented
    return x + torch.where(_hit(x, axis, places), source.unsqueeze(axis), 0.0).sum(axis + 1)


def scatter_value(x: Tensor, axis: int, places: Tensor, value: float) -> Any:
    """``aten.scatter.value`` where the other axes are those of ``x``: what the gradient of a class's loss begins with.

    The converter writes an operator for it that TensorFlow Lite before 2.16 does not know.
    """
    axis %= x.dim()
    if any(places.shape[i] != x.shape[i] for i in range(x.dim()) if i != axis):
        return NotImplemented
    return torch.where(_hit(x, axis, places).to(x.dtype).sum(axis + 1) > 0, value, x)


def _hit(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """Where the places along ``axis`` of ``x`` are each of its numbers: one more axis, behind ``axis``."""
    numbers = torch.arange(x.shape[axis]).reshape(-1, *[1] * (x.dim() - axis))
    return places.unsqueeze(axis) == numbers
