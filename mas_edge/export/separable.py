"""Linear maps along single axes: means of windows and interpolation, each one matrix an axis.

The matrix is what PyTorch's own one-dimensional operator does to the unit vectors, so that edges, rounding of sizes and
corner conventions are PyTorch's. Its transpose is the gradient. A map of planes is a list of one matrix [result, size]
for each of the last axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten
Matrix = NDArray[Any]
Sizes = Sequence[int]


def matrix_of(operator: Callable[[Tensor], Tensor], size: int) -> Matrix:
    """The matrix [result, size] of a linear operator on [N, C, size]."""
    columns = operator(torch.eye(size).reshape(size, 1, size))
    matrix: Matrix = columns.reshape(size, -1).T.numpy()
    return matrix


def is_unit(matrix: Matrix) -> bool:
    """Whether the matrix changes nothing."""
    return matrix.shape[0] == matrix.shape[1] and bool((matrix == np.eye(len(matrix))).all())


def transposed(matrices: Sequence[Matrix]) -> list[Matrix]:
    """The gradient of a map: every place's share of what was made of it."""
    return [matrix.T for matrix in matrices]


def whole_factors(large: Sizes, small: Sizes, scales: Sequence[float | None]) -> bool:
    """Whether nearest upsampling from ``small`` to ``large`` repeats every place the same whole number of times."""
    factors = [big / little for big, little in zip(large[2:], small[2:], strict=True)]
    given = [factor if scale is None else scale for factor, scale in zip(factors, scales, strict=True)]
    return factors == given and all(factor == math.floor(factor) for factor in factors)


def nearest_matrices(shape: Sizes, result: Sizes, scales: Sequence[float | None]) -> list[Matrix]:
    """Nearest interpolation of [N, C, ...] from ``shape`` to ``result``."""
    places = zip(shape[2:], result[2:], scales, strict=True)
    return [matrix_of(partial(ATEN.upsample_nearest1d, output_size=[to], scales=by), size) for size, to, by in places]


def linear_matrices(shape: Sizes, result: Sizes, align: bool, scales: Sequence[float | None]) -> list[Matrix]:
    """Linear interpolation of [N, C, ...] from ``shape`` to ``result``; ``align``: the corners are places."""
    places = zip(shape[2:], result[2:], scales, strict=True)
    operator = partial(ATEN.upsample_linear1d, align_corners=align)
    return [matrix_of(partial(operator, output_size=[to], scales=by), size) for size, to, by in places]


def adaptive_mean_matrices(shape: Sizes, result: Sizes) -> list[Matrix]:
    """The means of the windows that share out the last two axes."""
    pairs = zip(shape[-2:], result[-2:], strict=True)
    return [matrix_of(partial(F.adaptive_avg_pool1d, output_size=to), size) for size, to in pairs]


def mean_matrices(
    shape: Sizes, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), ceil: bool = False,
    count_padding: bool = True, divisor: int | None = None,
) -> list[Matrix]:  # fmt: skip
    """The means of windows along the last two axes. Raises JobError for a divisor of its own."""
    if divisor is not None:
        message = "avg_pool2d with divisor_override cannot train on this engine: leave it out and scale the result"
        raise JobError(message)
    sizes = [pair(option) for option in (kernel, stride or kernel, padding)]
    operator = partial(F.avg_pool1d, ceil_mode=ceil, count_include_pad=count_padding)
    return [
        matrix_of(partial(operator, kernel_size=window, stride=step, padding=around), size)
        for size, window, step, around in zip(shape[-2:], *sizes, strict=True)
    ]


def pair(option: Sizes) -> list[int]:
    """An option for both axes of a plane, given once or twice."""
    return list(option) * 2 if len(option) == 1 else list(option)
