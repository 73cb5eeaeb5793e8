"""Batch norm by means and products; the statistics of a network are inputs and results, as nothing is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, training: bool,
    momentum: float, eps: float,
) -> Five:  # fmt: skip
    """``aten._native_batch_norm_legit_functional``: result, mean and 1/deviation used, then the new statistics."""
    if not training:
        y, used_mean, scale = _normalised(x, mean, variance, weight, bias, eps)
        return y, used_mean.new_zeros(0), scale.new_zeros(0), mean, variance
    y, used_mean, scale, spread = _of_batch(x, weight, bias, eps)
    count = x.numel() // x.shape[1]
    unbiased = spread * (count / max(count - 1, 1))
    new_mean = mean * (1 - momentum) + used_mean * momentum
    return y, used_mean, scale, new_mean, variance * (1 - momentum) + unbiased * momentum


def batch_norm_of_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, _training: bool, _momentum: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten._native_batch_norm_legit.no_stats``."""
    return _of_batch(x, weight, bias, eps)[:3]


def _of_batch(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    axes = [0, *range(2, x.dim())]
    mean = x.mean(axes)
    away = x - _along_channels(mean, x)
    spread = (away * away).mean(axes)
    return *_normalised(x, mean, spread, weight, bias, eps), spread


def _normalised(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    scale = (variance + eps).rsqrt()
    y = (x - _along_channels(mean, x)) * _along_channels(scale if weight is None else scale * weight, x)
    return (y if bias is None else y + _along_channels(bias, x)), mean, scale


def batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor | None, variance: Tensor | None,
    used_mean: Tensor | None, used_scale: Tensor | None, training: bool, eps: float, output_mask: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """``aten.native_batch_norm_backward``: g_x = w/d * (g - mean(g) - xhat * mean(g*xhat)) over each channel."""
    axes, count = [0, *range(2, x.dim())], x.numel() // x.shape[1]
    centre = used_mean if training else mean
    scale = used_scale if training or variance is None else (variance + eps).rsqrt()
    if centre is None or scale is None:
        message = "batch norm without the statistics that its gradient is made of"
        raise JobError(message)
    xhat = (x - _along_channels(centre, x)) * _along_channels(scale, x)
    of_bias, of_weight = grad.sum(axes), (grad * xhat).sum(axes)
    factor = _along_channels(scale if weight is None else scale * weight, x)
    if training:
        grad = grad - _along_channels(of_bias / count, x) - xhat * _along_channels(of_weight / count, x)
    results = (grad * factor, of_weight, of_bias)
    gx, gw, gb = (result if wanted else None for result, wanted in zip(results, output_mask, strict=True))
    return gx, gw, gb


def _along_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.dim() - 2))


DEFINITIONS: dict[Any, Callable[..., Any]] = {
    ATEN._native_batch_norm_legit_functional.default: batch_norm,
    ATEN._native_batch_norm_legit.no_stats: batch_norm_of_batch,
    ATEN.native_batch_norm_backward.default: batch_norm_backward,
}  # fmt: skip
