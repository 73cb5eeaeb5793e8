"""Networks for images with a shared encoder that does most of the work and light heads, dense or pooled.

Letters: B batch, C channels, H and W the image. The encoder works at strides 1, 2 and 4 and fuses the two coarser ones
at stride 2, as a small feature pyramid does (Lin et al. 2017, arXiv 1612.03144); a dense head costs a tenth of it.
GroupNorm, not BatchNorm: it keeps no statistics, which would differ from device to device.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from mas_edge.job import Task
from mas_edge.protocol.errors import JobError


def encoder(input_shape: tuple[int, ...], width: int = 8) -> nn.Module:
    """Return the encoder for ``input_shape`` = (C, H, W), H and W multiples of 4; 66 k parameters at width 8.

    Raises:
        JobError: another shape.
    """
    if len(input_shape) != 3 or input_shape[1] % 4 or input_shape[2] % 4:
        message = (
            "the image family needs data.input_shape [channels, height, width] with height and width that are "
            f"multiples of 4, got {list(input_shape)}"
        )
        raise JobError(message)
    return Pyramid(input_shape[0], width)


def block(channels: int, width: int, stride: int = 1) -> nn.Module:
    """3x3 convolution, GroupNorm (four channels a group or more), ReLU: H and W are divided by ``stride``."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        nn.GroupNorm(math.gcd(8, width, max(width // 4, 1)), width),
        nn.ReLU(),
    )


class Pyramid(nn.Module):
    """Features of strides 2 and 4, added at stride 2: [B, C, H, W] to [B, 3*width, H/2, W/2]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        middle, deep = 3 * width, 6 * width
        self.stem = block(channels, width)
        self.middle = nn.Sequential(block(width, middle, 2), block(middle, middle), block(middle, middle))
        self.deep = nn.Sequential(block(middle, deep, 2), block(deep, deep), block(deep, deep))
        self.lateral = nn.Conv2d(deep, middle, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, C, H, W] to features [B, 3*width, H/2, W/2]."""
        middle: Tensor = self.middle(self.stem(x))
        deep = self.lateral(self.deep(middle))
        return middle + F.interpolate(deep, scale_factor=2.0, mode="nearest")


def head(feature_shape: tuple[int, ...], task: Task, width: int = 12) -> nn.Module:
    """Return the head for ``task`` on features of ``feature_shape`` = (C, H/2, W/2).

    A task whose shape ends in [H, W] gets a value, class or vector per pixel, any other one pools the image.
    ``width`` is the number of channels inside a dense head. Raises JobError if the shapes do not fit.
    """
    if len(feature_shape) != 3:
        message = (
            f"tasks[{task.name}]: the image heads take features of shape [channels, height, width], the encoder gives "
            f"{list(feature_shape)}: name a head of your own or use another family"
        )
        raise JobError(message)
    pixels = [2 * feature_shape[1], 2 * feature_shape[2]]
    if task.shape[-2:] == pixels and len(task.shape) <= 3:
        channels = [task.classes] if task.kind == "dense_class" else task.shape[:-2]
        return Dense(feature_shape[0], channels, width)
    if task.kind == "dense_class":
        message = f"tasks[{task.name}].shape is {task.shape}; the image family gives classes for {pixels}"
        raise JobError(message)
    return Pooled(feature_shape[0], [task.classes] if task.kind == "class" else task.shape)


class Dense(nn.Module):
    """Logits or values at every pixel: 3x3 convolution, then 1x1, then sub-pixels spread to twice the size."""

    def __init__(self, channels: int, shape: list[int], width: int) -> None:
        super().__init__()
        self.shape = shape  # what stands before height and width: [classes], [numbers] or nothing
        self.decode = nn.Sequential(
            block(channels, width), nn.Conv2d(width, 4 * math.prod(shape), 1), nn.PixelShuffle(2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, H/2, W/2] to [B, *shape, H, W]."""
        pixels: Tensor = self.decode(features)
        return pixels if self.shape else pixels.squeeze(1)


class Pooled(nn.Module):
    """Mean over the image, then a linear layer: [B, C, H/2, W/2] to [B, *shape]."""

    def __init__(self, channels: int, shape: list[int]) -> None:
        super().__init__()
        self.shape = shape
        self.linear = nn.Linear(channels, math.prod(shape))

    def forward(self, features: Tensor) -> Tensor:
        """Map features [B, C, H/2, W/2] to [B, *shape]."""
        values: Tensor = self.linear(features.mean((2, 3)))
        return values.reshape(-1, *self.shape)
