"""The operators that LiteRT's converter has no form of, or a wrong one, by others: the engine's own definitions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from mas_edge.export.litert.convolution import convolution, convolution_backward
from mas_edge.export.litert.pooling import max_pool, max_pool_backward
from mas_edge.export.lowering import pooling, resampling
from mas_edge.export.separable import whole_factors

ATEN = torch.ops.aten


def embedding_backward(grad: Tensor, places: Tensor, rows: int, padding: int, scaled: bool) -> Tensor:
    """``aten.embedding_dense_backward`` as a product with ones where a row was taken."""
    taken = (places.reshape(1, -1) == torch.arange(rows).unsqueeze(1)).to(grad.dtype)
    if padding >= 0:
        taken = taken * (torch.arange(rows) != padding).unsqueeze(1).to(grad.dtype)
    if scaled:
        taken = taken / taken.sum(1, keepdim=True).clamp(min=1)
    return taken @ grad.reshape(-1, grad.shape[-1])


def nearest_backward(grad: Tensor, size: object, shape: Sequence[int], *scales: float | None) -> Tensor:
    """``aten.upsample_nearest2d_backward`` and ``1d``: the sum of every place's copies, which lie ``factor`` apart.

    Slices and no reshape before the sum: behind the gradient of a mean that one ends the converter's process.
    """
    if not whole_factors(grad.shape, shape, scales):
        return resampling.nearest_backward(grad, size, shape, *scales)
    for axis in range(2, grad.dim()):
        factor = grad.shape[axis] // shape[axis]
        copies = [ATEN.slice(grad, axis, i, grad.shape[axis], factor) for i in range(factor)]
        grad = functools.reduce(torch.add, copies)
    return grad


_SHARED = pooling.DEFINITIONS | resampling.DEFINITIONS
DEFINITIONS: dict[OpOverload, Callable[..., Any]] = {
    # Forward passes of what is shared with the other engines have kernels of LiteRT's own.
    **{operator: define for operator, define in _SHARED.items() if "backward" in operator.name()},
    ATEN.convolution.default: convolution,
    ATEN.convolution_backward.default: convolution_backward,
    ATEN.max_pool2d_with_indices.default: max_pool,
    ATEN.max_pool2d_with_indices_backward.default: max_pool_backward,
    ATEN.upsample_nearest1d_backward.default: nearest_backward,
    ATEN.upsample_nearest2d_backward.default: nearest_backward,
    ATEN.embedding_dense_backward.default: embedding_backward,
}
