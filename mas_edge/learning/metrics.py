"""Metrics by name: functions ``(output, target, mask)`` -> 0-dim tensor, the mean over what is valid.

The same signature and rules as ``losses``, but for people to read: they are evaluated, never differentiated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from mas_edge.job import Task
from mas_edge.learning.losses import Measure, l1, l2, masked_mean, resolve, vector_mask


def accuracy(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Share of the valid places where the largest logit of [B, classes, ...] is the target's."""
    return masked_mean((output.argmax(1) == target).to(output.dtype), mask)


def root_mean_square_error(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Root of the mean squared difference over the valid places of this batch."""
    return l2(output, target, mask).sqrt()


def angle_degrees(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean angle between vectors along dim 1, in degrees."""
    cos = F.cosine_similarity(output, target, dim=1).clamp(-1, 1)
    return masked_mean(torch.rad2deg(torch.acos(cos)), vector_mask(mask))


METRICS: dict[str, Measure] = {
    "accuracy": accuracy, "angle_degrees": angle_degrees, "mean_absolute_error": l1,
    "root_mean_square_error": root_mean_square_error,
}  # fmt: skip


def metric_of(task: Task) -> Measure:
    """The metric of ``task``. Raises JobError for an unknown name or a function that cannot be found."""
    return resolve(task.metric_name, f"tasks[{task.name}].metric", METRICS)
