"""Convolutions and their gradients in terms of what LiteRT can convert and computes correctly.

LiteRT has no gradient of a convolution, and its converter does not accept every transposed one. Both become ordinary
convolutions: the input's gradient is a convolution of the result's gradient, spread by zeros, with the flipped kernel;
the weight's gradient is a convolution of the input with the result's gradient as its kernel.

Letters: N batch, G groups, A channels of the side with fewer places (the result of a convolution), B of the other, K
the kernel's sizes. A transposed convolution is the input gradient of a convolution and shares everything with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ATEN = torch.ops.aten
Sizes = Sequence[int]


def spread(x: Tensor, axis: int, stride: int) -> Tensor:
    """``x`` with stride - 1 zeros between neighbours of ``axis``: its size L becomes (L - 1) * stride + 1."""
    if stride == 1:
        return x
    before, size, after = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    rows = ATEN.constant_pad_nd(x.reshape(before, size, after), [0, (stride - 1) * after])
    full = rows.reshape(*x.shape[:axis], size * stride, *x.shape[axis + 1 :])
    found: Tensor = full.narrow(axis, 0, (size - 1) * stride + 1)
    return found


def fitted(x: Tensor, axis: int, before: int, size: int) -> Tensor:
    """``x`` moved by ``before`` places along ``axis`` and cut or filled up with zeros to ``size``."""
    if before < 0:
        x, before = x.narrow(axis, -before, max(x.shape[axis] + before, 0)), 0
    x = x.narrow(axis, 0, min(x.shape[axis], max(size - before, 0)))
    after = size - before - x.shape[axis]
    if before == after == 0:
        return x
    pads = [0] * 2 * (x.dim() - axis)
    pads[-2:] = [before, after]
    padded: Tensor = ATEN.constant_pad_nd(x, pads)
    return padded


def _turned(weight: Tensor, groups: int) -> Tensor:
    """The kernel [G*A, B, *K] of a convolution as that of its gradient: [G*B, A, *K], every axis of K reversed."""
    a, b, *kernel = weight.shape
    parts = weight.reshape(groups, a // groups, b, math.prod(kernel)).transpose(1, 2)
    # Reversed as one axis: litert-torch 0.10 reverses the wrong axes of a kernel that it lays out anew.
    return parts.flip(3).reshape(groups * b, a // groups, *kernel)


def input_gradient(
    grad: Tensor, weight: Tensor, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """The gradient [N, G*B, *size] of the input of a convolution whose result has the gradient ``grad``."""
    for i, wanted in enumerate(size):
        axis, reach = i + 2, dilation[i] * (weight.shape[i + 2] - 1)
        grad = fitted(spread(grad, axis, stride[i]), axis, reach - padding[i], wanted + reach)
    none = [0] * len(size)
    ones = [1] * len(size)
    turned: Tensor = ATEN.convolution(grad, _turned(weight, groups), None, ones, none, dilation, False, none, groups)
    return turned


def weight_gradient(
    small: Tensor, large: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """The gradient [G*A, B, *kernel] of a convolution's weight.

    dW[a, b, k] = sum_{n, l} small[n, a, l] * large[n, b, stride*l + dilation*k - padding]: a convolution of samples
    taken for channels, whose stride is the dilation and the other way round.
    """
    n, a = small.shape[:2]
    b = large.shape[1] // groups
    kernels = small.transpose(0, 1)
    images = large.reshape(n, groups, b, *large.shape[2:]).permute(2, 1, 0, *range(3, large.dim() + 1))
    images = images.reshape(b, groups * n, *large.shape[2:])
    for i, wanted in enumerate(kernel):
        reach = dilation[i] * (wanted - 1) + stride[i] * (small.shape[i + 2] - 1) + 1
        images = fitted(images, i + 2, padding[i], reach)
    none = [0] * len(kernel)
    found: Tensor = ATEN.convolution(images, kernels, None, dilation, none, stride, False, none, groups)
    return found.transpose(0, 1).reshape(a, b, *kernel).contiguous()  # whoever views it expects PyTorch's strides


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes, transposed: bool,
    output_padding: Sizes, groups: int,
) -> Any:  # fmt: skip
    """A transposed convolution by zeros between the places; an ordinary one stays."""
    if not transposed:
        return NotImplemented
    stride, padding, dilation, output_padding = (_full(o, x) for o in (stride, padding, dilation, output_padding))
    size = [
        (x.shape[i + 2] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[i + 2] - 1)
        + output_padding[i] + 1
        for i in range(x.dim() - 2)
    ]  # fmt: skip
    found = input_gradient(x, weight, size, stride, padding, dilation, groups)
    return found if bias is None else found + bias.reshape(-1, *[1] * len(size))


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, _bias_sizes: Sizes | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    transposed: bool, output_padding: Sizes, groups: int, output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of input, weight and bias; None where ``output_mask`` does not ask for one."""
    stride, padding, dilation = (_full(option, x) for option in (stride, padding, dilation))
    of_input = of_weight = of_bias = None
    if output_mask[0] and transposed:
        of_input = ATEN.convolution(grad, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
    elif output_mask[0]:
        of_input = input_gradient(grad, weight, x.shape[2:], stride, padding, dilation, groups)
    if output_mask[1]:
        small, large = (x, grad) if transposed else (grad, x)
        of_weight = weight_gradient(small, large, weight.shape[2:], stride, padding, dilation, groups)
    if output_mask[2]:
        of_bias = grad.sum([0, *range(2, grad.dim())])
    return of_input, of_weight, of_bias


def _full(option: Sizes, x: Tensor) -> list[int]:
    """One number an axis; a single one stands for all."""
    return list(option) * (x.dim() - 2) if len(option) == 1 else list(option)
