"""The largest of a window with its place, and the gradient at that place, for two dimensions.

Both go tap by tap: what every window has at one place of the kernel is a strided slice of the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mas_edge.export.litert.convolution import fitted, spread

ATEN = torch.ops.aten
Sizes = Sequence[int]


def max_pool(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil_mode: bool = False
) -> Any:
    """``aten.max_pool2d_with_indices``: the largest of a window's taps, and its place in the image.

    Of equal ones the first, as in PyTorch. The converter's own form of this operator gives no places.
    """
    windows = Windows(x.shape[-2:], kernel, stride, padding, dilation, ceil_mode)
    taps = [windows.tap(x, i, j) for i, j in windows.taps()]
    stacked = torch.stack(taps)
    largest = stacked.amax(0)
    places = windows.places().reshape(len(taps), *[1] * (x.dim() - 2), *windows.result)
    return largest, torch.where(stacked == largest, places, math.prod(windows.size)).amin(0)


def max_pool_backward(
    grad: Tensor, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool,
    indices: Tensor,
) -> Tensor:  # fmt: skip
    """``aten.max_pool2d_with_indices_backward``: to every tap the gradient of the windows it was the largest of."""
    windows = Windows(x.shape[-2:], kernel, stride, padding, dilation, ceil_mode)
    images = (math.prod(x.shape[:-2]), *windows.result)
    chosen = indices.reshape(1, *images) == windows.places().unsqueeze(1)
    shares = torch.where(chosen, grad.reshape(1, *images), 0.0)
    for axis in (0, 1):
        shares = spread(shares, axis + 2, windows.stride[axis])
    found = torch.zeros(images[0], *windows.size)
    for share, (i, j) in zip(shares.unbind(), windows.taps(), strict=True):
        for axis, tap in ((0, i), (1, j)):
            share = fitted(share, axis + 1, windows.offset(axis, tap), windows.size[axis])
        found = found + share
    return found.reshape(x.shape)


class Windows:
    """The windows of a two-dimensional pooling of an image of ``size``, one number an axis for each option."""

    def __init__(
        self, size: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, ceil_mode: bool
    ) -> None:
        pairs = [list(o) * (2 // len(o)) for o in (kernel, stride or kernel, padding, dilation)]
        self.size = list(size)
        self.kernel, self.stride, self.padding, self.dilation = pairs
        self.result = [self._count(axis, ceil_mode) for axis in (0, 1)]

    def _count(self, axis: int, ceil_mode: bool) -> int:
        """How many windows there are; with ``ceil_mode`` one may reach over the end, if it begins before it."""
        padding, stride = self.padding[axis], self.stride[axis]
        room = self.size[axis] + 2 * padding - self.dilation[axis] * (self.kernel[axis] - 1) - 1
        count = (-(-room // stride) if ceil_mode else room // stride) + 1
        return count - 1 if ceil_mode and (count - 1) * stride >= self.size[axis] + padding else count

    def taps(self) -> list[tuple[int, int]]:
        """Every place of the kernel, in the order in which the image is stored."""
        return [(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]

    def offset(self, axis: int, tap: int) -> int:
        """Where the first window has its ``tap``."""
        return tap * self.dilation[axis] - self.padding[axis]

    def tap(self, x: Tensor, i: int, j: int) -> Tensor:
        """What every window has at one place of the kernel; beyond the image less than anything."""
        for axis, tap in ((0, i), (1, j)):
            x = _window(x, x.dim() - 2 + axis, self.offset(axis, tap), self.result[axis], self.stride[axis])
        return x

    def places(self) -> Tensor:
        """The place in the image that each tap of each window looks at, int64 [taps, *result]."""
        first, second = (
            (torch.arange(self.kernel[a]) * self.dilation[a] - self.padding[a]).unsqueeze(1)
            + torch.arange(self.result[a]) * self.stride[a]
            for a in (0, 1)
        )
        grid = first.reshape(-1, 1, self.result[0], 1) * self.size[1] + second.reshape(1, -1, 1, self.result[1])
        return grid.reshape(-1, *self.result)


def _window(x: Tensor, axis: int, start: int, count: int, step: int) -> Tensor:
    """``count`` places of ``axis`` from ``start`` on, ``step`` apart; -inf beyond both ends."""
    size, end = x.shape[axis], start + (count - 1) * step + 1
    before, after = max(-start, 0), max(end - size, 0)
    pads = [0] * 2 * (x.dim() - axis)
    pads[-2:] = [before, after]
    padded = ATEN.constant_pad_nd(x, pads, -math.inf) if before or after else x
    found: Tensor = ATEN.slice(padded, axis, start + before, end + before, step)
    return found
