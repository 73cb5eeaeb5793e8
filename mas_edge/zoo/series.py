"""Networks for windows of several signals over time, such as those of a smart watch.

Letters: B batch, C channels, T time. The encoder turns [B, signals, T] into [B, 4*width, T/8]: four convolutions, three
of them halving the time. GroupNorm, not BatchNorm: it keeps no statistics, which would differ from device to device and
suffer from padded batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from mas_edge.job import Task
from mas_edge.protocol.errors import JobError

STRIDE = 8  # of the whole encoder


def encoder(input_shape: tuple[int, ...], width: int = 16) -> nn.Module:
    """Return the encoder for inputs of ``input_shape`` = (signals, T), T a multiple of 8.

    About 22 k parameters at width 16, 86 k at width 32 (six signals). Raises JobError for another shape.
    """
    if len(input_shape) != 2 or input_shape[1] % STRIDE:
        message = (
            f"the series family needs data.input_shape [signals, length] with a length that is a multiple of {STRIDE}, "
            f"got {list(input_shape)}"
        )
        raise JobError(message)
    return nn.Sequential(
        block(input_shape[0], width, 5, 1),
        block(width, 2 * width, 5, 2),
        block(2 * width, 4 * width, 3, 2),
        block(4 * width, 4 * width, 3, 2),
    )


def block(channels: int, width: int, size: int, stride: int) -> nn.Module:
    """Convolution, GroupNorm, ReLU: [B, channels, T] to [B, width, T/stride].

    The convolution has a bias: without one the norm would make a strong movement look like a weak one. A group has at
    least four channels: over one it would take the channel's mean away.
    """
    return nn.Sequential(
        nn.Conv1d(channels, width, size, stride, padding=size // 2),
        nn.GroupNorm(math.gcd(8, width, max(width // 4, 1)), width),
        nn.ReLU(),
    )


def head(feature_shape: tuple[int, ...], task: Task, width: int = 8) -> nn.Module:
    """Return the head for ``task`` on features of ``feature_shape`` = (C, T).

    ``width`` is the number of channels that a ``value`` or ``direction`` head keeps of every place in time.
    Raises JobError if the features or the task's shape do not fit.
    """
    if len(feature_shape) != 2:
        message = (
            f"tasks[{task.name}]: the series heads take features of shape [channels, length], the encoder gives "
            f"{list(feature_shape)}: name a head of your own or use another family"
        )
        raise JobError(message)
    return _HEADS[task.kind](feature_shape[0], feature_shape[1], task, width)


class Pooled(nn.Module):
    """Mean over time, then a linear layer: [B, C, T] to [B, classes]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, T] to logits [B, classes]."""
        logits: Tensor = self.linear(features.mean(-1))
        return logits


class Regression(nn.Module):
    """Narrow to ``width`` channels, keep every place in time, then linear: [B, C, T] to [B, *shape]."""

    def __init__(self, channels: int, length: int, shape: list[int], width: int) -> None:
        super().__init__()
        self.shape = shape
        self.narrow = nn.Sequential(nn.Conv1d(channels, width, 1), nn.ReLU())
        self.linear = nn.Linear(width * length, math.prod(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, T] to values [B, *shape]."""
        values: Tensor = self.linear(self.narrow(features).flatten(1))
        return values.reshape(-1, *self.shape)


class PerPlace(nn.Module):
    """Logits at every place in time: each place of the features is spread over ``factor`` places of the output."""

    def __init__(self, channels: int, classes: int, factor: int) -> None:
        super().__init__()
        self.classes, self.factor = classes, factor
        self.convolution = nn.Conv1d(channels, classes * factor, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, T] to logits [B, classes, T * factor]."""
        logits: Tensor = self.convolution(features)
        spread = logits.reshape(-1, self.classes, self.factor, features.shape[2])
        return spread.transpose(2, 3).reshape(-1, self.classes, features.shape[2] * self.factor)


def _pooled(channels: int, _length: int, task: Task, _width: int) -> nn.Module:
    return Pooled(channels, task.classes)


def _regression(channels: int, length: int, task: Task, width: int) -> nn.Module:
    return Regression(channels, length, task.shape, width)


def _per_place(channels: int, length: int, task: Task, _width: int) -> nn.Module:
    if len(task.shape) != 1 or task.shape[0] % length:
        message = (
            f"tasks[{task.name}].shape is {task.shape}; the series family gives classes for [places] with a number of "
            f"places that is a multiple of {length}, the length of the features"
        )
        raise JobError(message)
    return PerPlace(channels, task.classes, task.shape[0] // length)


_HEADS: dict[str, Callable[[int, int, Task, int], nn.Module]] = {
    "class": _pooled, "value": _regression, "direction": _regression, "dense_class": _per_place,
}  # fmt: skip
