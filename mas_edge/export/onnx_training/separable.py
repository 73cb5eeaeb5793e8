"""Linear maps along single axes: one matrix product for each axis that changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mas_edge.export.onnx_training.operand import Operand
from mas_edge.export.onnx_training.writer import Writer
from mas_edge.export.separable import Matrix, is_unit


def apply_along(w: Writer, x: Operand, matrices: Sequence[Matrix]) -> Operand:
    """Apply one matrix [result, size] along each of the last axes; unit matrices are left out."""
    count = len(matrices)
    if count > 2:
        return _one_by_one(w, x, matrices)
    if not is_unit(matrices[-1]):
        x = w.matmul(x, w.constant(matrices[-1].T))
    if count == 2 and not is_unit(matrices[0]):
        x = w.matmul(w.constant(matrices[0]), x)
    return x


def _one_by_one(w: Writer, x: Operand, matrices: Sequence[Matrix]) -> Operand:
    for i, matrix in enumerate(matrices):
        axis = x.rank - len(matrices) + i
        order = [*(other for other in range(x.rank) if other != axis), axis]
        x = w.transpose(w.matmul(w.transpose(x, order), w.constant(matrix.T)), list(np.argsort(order)))
    return x
