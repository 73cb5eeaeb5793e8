"""Losses by name: functions ``(output, target, mask)`` -> 0-dim tensor, the mean over what is valid.

The mask is float32: 1 = valid, 0 = padding, unlabelled or ignored. It has shape [B], or the target's shape. Nothing
valid gives 0 with a zero gradient, never NaN, so that a batch without labels for a task does no harm. Targets that hold
the task's ignore_index arrive here as class 0 with mask 0 (see ``step``): a loss need not know that index.
A loss of one's own is any torch function of the same signature, named in the job as ``package:function``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from mas_edge.job import Task
from mas_edge.learning.lookup import find_function
from mas_edge.protocol.errors import JobError

Measure = Callable[[Tensor, Tensor, Tensor], Tensor]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` [B, ...] where ``mask`` ([B] or the shape of ``values``) is 1; 0 when it is 0 everywhere."""
    weight = spread(mask, values)
    count = weight.sum()
    return (values * weight).sum() / torch.where(count > 0, count, 1.0)


def spread(mask: Tensor, values: Tensor) -> Tensor:
    """Return ``mask``, [B] or already of the shape of ``values`` [B, ...], with the shape of ``values``."""
    return mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim())).expand_as(values)


def vector_mask(mask: Tensor) -> Tensor:
    """The mask of vectors that lie along dim 1: one that lacks a component is not valid. [B] stays [B]."""
    return mask.amin(1) if mask.dim() > 1 else mask


def cross_entropy(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of logits [B, classes, ...] against class indices [B, ...]."""
    return masked_mean(F.cross_entropy(output, target, reduction="none"), mask)


def l1(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference over the valid places."""
    return masked_mean((output - target).abs(), mask)


def l1_all(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Absolute difference at the valid places, averaged over all places of every sample that has a valid one.

    This is how the released code of the method averages (an image that is half invalid counts half).
    """
    valid = spread(mask, output)
    present = valid.reshape(len(valid), -1).amax(1)
    return masked_mean((output - target).abs() * valid, present)


def l2(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared difference over the valid places."""
    return masked_mean((output - target).square(), mask)


def huber(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Huber loss with delta 1: squared near zero, absolute beyond."""
    return masked_mean(F.huber_loss(output, target, reduction="none"), mask)


def cosine(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - cos of the angle between vectors along dim 1; lengths do not matter."""
    return masked_mean(1 - F.cosine_similarity(output, target, dim=1), vector_mask(mask))


LOSSES: dict[str, Measure] = {
    "cosine": cosine, "cross_entropy": cross_entropy, "huber": huber, "l1": l1, "l1_all": l1_all, "l2": l2,
}  # fmt: skip


def loss_of(task: Task) -> Measure:
    """The loss function of ``task``; that of a class task is divided by ``task.unit``, as its targets cannot be.

    Raises JobError for an unknown name or a function that cannot be found.
    """
    loss = resolve(task.loss_name, f"tasks[{task.name}].loss", LOSSES)
    return loss if task.unit == 1 or task.target_dtype != "int64" else _in_units(loss, task.unit)


def _in_units(loss: Measure, unit: float) -> Measure:
    """``loss`` divided by ``unit``, under its own name."""

    @functools.wraps(loss)
    def scaled(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return loss(output, target, mask) / unit

    return scaled


def resolve(name: str, key: str, table: Mapping[str, Measure]) -> Measure:
    """The function called ``name`` in ``table``, or imported if it is a ``package:function``. Raises JobError."""
    if ":" in name:
        return find_function(name, key)
    if name not in table:
        message = f"{key} is {name!r}; allowed: {', '.join(sorted(table))}, or package:function"
        raise JobError(message)
    return table[name]
