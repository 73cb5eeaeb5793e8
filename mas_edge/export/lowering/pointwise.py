"""Gradients of activations, and norms of vectors, by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ATEN = torch.ops.aten


def shrink_backward(grad: Tensor, x: Tensor, limit: float) -> Tensor:
    """The gradient of ``hardshrink`` and ``softshrink``: that of the result where ``|x|`` is over the limit."""
    return grad * (x.abs() > limit).to(grad.dtype)


def vector_norm(
    x: Tensor, order: float = 2, axes: Sequence[int] | None = None, keepdim: bool = False, *, dtype: object = None
) -> Tensor:
    """``aten.linalg_vector_norm``."""
    over = list(range(x.dim())) if axes is None else list(axes)
    if order == 2:
        return (x * x).sum(over, keepdim).sqrt()
    size = x.abs()
    if order == 1:
        return size.sum(over, keepdim)
    if math.isinf(order):
        return size.amax(over, keepdim) if order > 0 else size.amin(over, keepdim)
    if order == 0:
        return (x != 0).to(x.dtype).sum(over, keepdim)
    return (size**order).sum(over, keepdim) ** (1 / order)


def whole_remainder(x: Tensor, divisor: Any) -> Any:
    """``aten.remainder`` of whole numbers: ExecuTorch's kernel gives them the sign of the dividend."""
    if x.is_floating_point():
        return NotImplemented  # the kernel is right: no definition is taken
    return x - torch.div(x, divisor, rounding_mode="floor") * divisor


DEFINITIONS: dict[Any, Callable[..., Any]] = {
    ATEN.hardshrink_backward.default: shrink_backward, ATEN.softshrink_backward.default: shrink_backward,
    ATEN.linalg_vector_norm.default: vector_norm, ATEN.remainder.Scalar: whole_remainder,
    ATEN.remainder.Tensor: whole_remainder,
}  # fmt: skip
