"""The operators that LiteRT's converter has no form of, or a wrong one, by others: the engine's own definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

from mas_edge.export.litert.convolution import convolution, convolution_backward
from mas_edge.export.litert.indexing import embedding_backward, index_put, scatter_add, scatter_value
from mas_edge.export.litert.normalizing import group_norm
from mas_edge.export.litert.pooling import max_pool, max_pool_backward
from mas_edge.export.lowering import pooling, resampling

ATEN = torch.ops.aten
_SHARED = pooling.DEFINITIONS | resampling.DEFINITIONS
DEFINITIONS: dict[OpOverload, Callable[..., Any]] = {
    # Forward passes of what is shared with the other engines have kernels of LiteRT's own.
    **{operator: define for operator, define in _SHARED.items() if "backward" in operator.name()},
    ATEN.convolution.default: convolution,
    ATEN.convolution_backward.default: convolution_backward,
    ATEN.max_pool2d_with_indices.default: max_pool,
    ATEN.max_pool2d_with_indices_backward.default: max_pool_backward,
    ATEN.embedding_dense_backward.default: embedding_backward,
    ATEN.index_put.default: index_put,
    ATEN._unsafe_index_put.default: index_put,
    ATEN.native_group_norm.default: group_norm,
    ATEN.scatter_add.default: scatter_add,
    ATEN.scatter.value: scatter_value,
}
