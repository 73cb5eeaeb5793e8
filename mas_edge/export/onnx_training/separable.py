"""Linear maps along single axes: means of windows and interpolation, each one matrix an axis.

The matrix is what PyTorch's own one-dimensional operator does to the unit vectors, so that edges, rounding of sizes and
corner conventions are PyTorch's. Its transpose is the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mas_edge.export.onnx_training.operand import Operand
from mas_edge.export.onnx_training.writer import Writer

Matrix = NDArray[Any]


def matrix_of(operator: Callable[[Tensor], Tensor], size: int) -> Matrix:
    """The matrix [result, size] of a linear operator on [N, C, size]."""
    columns = operator(torch.eye(size).reshape(size, 1, size))
    matrix: Matrix = columns.reshape(size, -1).T.numpy()
    return matrix


def apply_along(w: Writer, x: Operand, matrices: Sequence[Matrix]) -> Operand:
    """Apply one matrix [result, size] along each of the last axes; unit matrices are left out."""
    count = len(matrices)
    if count > 2:
        return _one_by_one(w, x, matrices)
    if not _is_unit(matrices[-1]):
        x = w.matmul(x, w.constant(matrices[-1].T))
    if count == 2 and not _is_unit(matrices[0]):
        x = w.matmul(w.constant(matrices[0]), x)
    return x


def _one_by_one(w: Writer, x: Operand, matrices: Sequence[Matrix]) -> Operand:
    for i, matrix in enumerate(matrices):
        axis = x.rank - len(matrices) + i
        order = [*(other for other in range(x.rank) if other != axis), axis]
        x = w.transpose(w.matmul(w.transpose(x, order), w.constant(matrix.T)), list(np.argsort(order)))
    return x


def _is_unit(matrix: Matrix) -> bool:
    return matrix.shape[0] == matrix.shape[1] and bool((matrix == np.eye(len(matrix))).all())
