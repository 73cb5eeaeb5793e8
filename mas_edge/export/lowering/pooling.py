"""Pooling: the mean of windows and its gradient as small matrices; the gradient of a maximum by adding at its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mas_edge.export.lowering.planes import apply_along, computed
from mas_edge.export.separable import adaptive_mean_matrices, mean_matrices, transposed

ATEN = torch.ops.aten


def mean_pool(x: Tensor, kernel: Sequence[int], *options: Any) -> Tensor:
    """``aten.avg_pool2d``."""
    return apply_along(x, lambda: mean_matrices(x.shape, kernel, *options))


def mean_pool_backward(grad: Tensor, x: Tensor, kernel: Sequence[int], *options: Any) -> Tensor:
    """``aten.avg_pool2d_backward``: every place's share of the means."""
    return apply_along(grad, lambda: transposed(mean_matrices(x.shape, kernel, *options)))


def adaptive_mean_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """``aten._adaptive_avg_pool2d``."""
    return apply_along(x, lambda: adaptive_mean_matrices(x.shape, size))


def adaptive_mean_pool_backward(grad: Tensor, x: Tensor) -> Tensor:
    """``aten._adaptive_avg_pool2d_backward``."""
    return apply_along(grad, lambda: transposed(adaptive_mean_matrices(x.shape, grad.shape)))


def max_pool_backward(grad: Tensor, x: Tensor, *options: Any) -> Tensor:
    """The gradient of ``aten.max_pool2d_with_indices`` at the places that were largest, summed: windows overlap.

    Not ExecuTorch's own kernel, which adds to memory that it does not clear.
    """
    places: Tensor = options[-1]
    size = math.prod(x.shape[-2:])
    zero = x.new_zeros(*x.shape[:-2], size)
    summed = zero.scatter_add(-1, places.flatten(-2), grad.flatten(-2))
    return summed.view(x.shape)


def adaptive_max_pool(x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """``aten.adaptive_max_pool2d``: the largest value of each of the windows that share out a plane, and its place."""
    width = x.shape[-1]
    rows, columns = (windows(x.shape[axis], count) for axis, count in zip((-2, -1), size, strict=True))
    picked = computed(lambda: [torch.tensor(places).flatten() for places in (rows, columns)])
    cells = x.index_select(-2, picked[0]).index_select(-1, picked[1])
    front, across, down = x.shape[:-2], len(columns[0]), len(rows[0])
    cells = cells.view(*front, size[0], down, size[1], across).transpose(-3, -2)
    cells = cells.reshape(*front, size[0], size[1], down * across)
    best = cells.argmax(-1, keepdim=True)
    places = computed(
        lambda: torch.tensor([[[r * width + c for r in rs for c in cs] for cs in columns] for rs in rows])
    )
    found = places.expand(cells.shape).gather(-1, best)
    return cells.gather(-1, best).squeeze(-1), found.squeeze(-1)


def windows(size: int, count: int) -> list[list[int]]:
    """The places of each of ``count`` windows that share out ``size``, the last repeated where windows are shorter."""
    edges = [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    longest = max(end - start for start, end in edges)
    return [[min(start + i, end - 1) for i in range(longest)] for start, end in edges]


DEFINITIONS: dict[Any, Callable[..., Any]] = {
    ATEN.avg_pool2d.default: mean_pool, ATEN.avg_pool2d_backward.default: mean_pool_backward,
    ATEN._adaptive_avg_pool2d.default: adaptive_mean_pool,
    ATEN._adaptive_avg_pool2d_backward.default: adaptive_mean_pool_backward,
    ATEN.max_pool2d_with_indices_backward.default: max_pool_backward,
    ATEN.adaptive_max_pool2d.default: adaptive_max_pool, ATEN.adaptive_max_pool2d_backward.default: max_pool_backward,
}  # fmt: skip
