"""Upsampling and its gradients: repeated places by views, interpolation as small matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mas_edge.export.lowering.planes import apply_along
from mas_edge.export.separable import linear_matrices, nearest_matrices, transposed, whole_factors

ATEN = torch.ops.aten
Scales = Sequence[float | None]


def nearest(x: Tensor, size: Sequence[int], *given: float | None) -> Tensor:
    """``aten.upsample_nearest1d`` and ``2d``; whole factors repeat places, others pick them."""
    scales = _scales(x, given)
    result = [*x.shape[:2], *size]
    if not whole_factors(result, x.shape, scales):
        return apply_along(x, lambda: nearest_matrices(x.shape, result, scales))
    for axis in range(2, x.dim()):
        factor = result[axis] // x.shape[axis]
        before, behind = x.shape[:axis], x.shape[axis + 1 :]
        repeated = x.view(*before, x.shape[axis], 1, math.prod(behind))
        repeated = repeated.expand(*before, x.shape[axis], factor, math.prod(behind))
        x = repeated.reshape(*before, result[axis], *behind)
    return x


def nearest_backward(grad: Tensor, _size: object, shape: Sequence[int], *given: float | None) -> Tensor:
    """The sum over the places that took the value."""
    scales = _scales(grad, given)
    if not whole_factors(grad.shape, shape, scales):
        return apply_along(grad, lambda: transposed(nearest_matrices(shape, grad.shape, scales)))
    for axis in range(2, grad.dim()):
        factor = grad.shape[axis] // shape[axis]
        parts = grad.reshape(*grad.shape[:axis], shape[axis], factor, math.prod(grad.shape[axis + 1 :]))
        grad = parts.sum(axis + 1).view(*grad.shape[:axis], shape[axis], *grad.shape[axis + 1 :])
    return grad


def linear(x: Tensor, size: Sequence[int], align: bool, *given: float | None) -> Tensor:
    """``aten.upsample_linear1d`` and ``bilinear2d``."""
    result = [*x.shape[:2], *size]
    return apply_along(x, lambda: linear_matrices(x.shape, result, align, _scales(x, given)))


def linear_backward(grad: Tensor, _size: object, shape: Sequence[int], align: bool, *given: float | None) -> Tensor:
    """Every place's share of what was interpolated from it."""
    return apply_along(grad, lambda: transposed(linear_matrices(shape, grad.shape, align, _scales(grad, given))))


def _scales(x: Tensor, given: Scales) -> Scales:
    """One for each axis of the planes; a call leaves out those at its end that nobody gave."""
    return [*given, *[None] * (x.dim() - 2 - len(given))]


DEFINITIONS: dict[Any, Callable[..., Any]] = {
    ATEN.upsample_nearest1d.default: nearest, ATEN.upsample_nearest2d.default: nearest,
    ATEN.upsample_nearest1d_backward.default: nearest_backward,
    ATEN.upsample_nearest2d_backward.default: nearest_backward,
    ATEN.upsample_linear1d.default: linear, ATEN.upsample_bilinear2d.default: linear,
    ATEN.upsample_linear1d_backward.default: linear_backward,
    ATEN.upsample_bilinear2d_backward.default: linear_backward,
}  # fmt: skip
