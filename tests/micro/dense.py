"""A network of dense layers, which a board's own interpreter can run in int8."""

from __future__ import annotations

import math

from torch import nn

from mas_edge.job import Task


def encoder(input_shape: tuple[int, ...], width: int) -> nn.Module:
    """[B, *input_shape] to [B, width]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU())


def head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    """[B, width] to logits [B, classes], or to a vector [B, *shape]."""
    return nn.Linear(feature_shape[0], task.classes or task.shape[0])
