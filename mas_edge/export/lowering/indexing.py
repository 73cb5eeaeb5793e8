"""Looking up rows, and adding up their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ATEN = torch.ops.aten


def embedding_backward(grad: Tensor, places: Tensor, rows: int, padding: int, scaled: bool) -> Tensor:
    """``aten.embedding_dense_backward``: each row's gradients summed; the row ``padding`` gets none."""
    if scaled:
        counts = grad.new_zeros(rows).scatter_add(0, places.flatten(), grad.new_ones(places.numel()))
        grad = grad / counts.index_select(0, places.flatten()).view(*places.shape, 1)
    if padding >= 0:
        grad = grad * (places != padding).unsqueeze(-1).to(grad.dtype)
    width = grad.shape[-1]
    index = places.reshape(-1, 1).expand(-1, width)
    return grad.new_zeros(rows, width).scatter_add(0, index, grad.reshape(-1, width))


DEFINITIONS: dict[Any, Callable[..., Any]] = {ATEN.embedding_dense_backward.default: embedding_backward}
