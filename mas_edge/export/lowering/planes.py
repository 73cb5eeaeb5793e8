"""Applying one matrix along each of the last axes: what means and interpolation are (``mas_edge.export.separable``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from mas_edge.export.separable import Matrix, is_unit

_T = TypeVar("_T")


def computed(make: Callable[[], _T]) -> _T:
    """What ``make`` gives outside of any tracing: modes of PyTorch belong to a thread, so another one has none."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(make).result()


def apply_along(x: Tensor, make: Callable[[], Sequence[Matrix]]) -> Tensor:
    """Apply one matrix [result, size] along each of the last axes; unit matrices are left out."""
    matrices = computed(make)
    for back, matrix in enumerate(reversed(matrices), start=1):
        if not is_unit(matrix):
            x = _along(x, x.dim() - back, computed(lambda matrix=matrix: torch.tensor(matrix)))  # type: ignore[misc]
    return x


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """The last axis is one product; for another, every plane behind it is a column."""
    result, size = matrix.shape
    shape = [*x.shape[:axis], result, *x.shape[axis + 1 :]]
    if axis == x.dim() - 1:
        return torch.mm(x.reshape(-1, size), matrix.t()).view(shape)
    columns = math.prod(x.shape[axis + 1 :])
    turned = x.reshape(-1, size, columns).transpose(1, 2).reshape(-1, size)
    product = torch.mm(turned, matrix.t())
    return product.view(-1, columns, result).transpose(1, 2).contiguous().view(shape)
