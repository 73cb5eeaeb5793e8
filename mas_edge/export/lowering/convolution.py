"""Convolution and its gradients as gathers and matrix products (im2col), in one and two dimensions.

For engines whose own convolution is slow or has no gradient: ExecuTorch's portable kernel took 250 times as long as a
matrix product of the same size. Letters: N batch, C/O channels in/out, g groups, K = kh*kw taps, L output places.
The gather puts the taps first and the batch last, [g, C/g*K, N*L], so that a group is one matrix product.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten
# Numbers that are gathered at a time, as what the taps see is K times as large as what there is: 3 MB. A step on 8
# images of 64x64 took 109 MB instead of 119 without a limit, in the same time.
LIMIT = 700_000
Ints = Sequence[int]
Pair = tuple[int, int]


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Ints, padding: Ints, dilation: Ints, transposed: bool,
    output_padding: Ints, groups: int,
) -> Tensor:  # fmt: skip
    """``aten.convolution``."""
    if x.dim() == 3:
        flat = (_wide(stride, 1), _wide(padding, 0), _wide(dilation, 1), transposed, _wide(output_padding, 0), groups)
        return convolution(x.unsqueeze(2), weight.unsqueeze(2), bias, *flat).squeeze(2)
    _require_plane(x)
    steps, pads, spread = _pair(stride), _pair(padding), _pair(dilation)
    if transposed:
        size = _transposed_size(x, weight, steps, pads, spread, _pair(output_padding))
        y = _input_gradient(x, weight, size, steps, pads, spread, groups)
        return y if bias is None else y + bias.view(1, -1, 1, 1)
    size = _output_size(x, weight, steps, pads, spread)
    return _convolved(x, weight, bias, size, steps, pads, spread, groups)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Ints | None, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int, output_mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """``aten.convolution_backward``: the gradients of input, weight and bias, None where the mask is false."""
    if x.dim() == 3:
        lifted = (grad.unsqueeze(2), x.unsqueeze(2), weight.unsqueeze(2))
        gx, gw, gb = convolution_backward(
            *lifted, bias_sizes, _wide(stride, 1), _wide(padding, 0), _wide(dilation, 1), transposed,
            _wide(output_padding, 0), groups, output_mask,
        )  # fmt: skip
        return None if gx is None else gx.squeeze(2), None if gw is None else gw.squeeze(2), gb
    _require_plane(x)
    steps, pads, spread = _pair(stride), _pair(padding), _pair(dilation)
    gx = gw = gb = None
    if output_mask[0]:
        if transposed:
            gx = _convolved(grad, weight, None, (x.shape[2], x.shape[3]), steps, pads, spread, groups)
        else:
            gx = _input_gradient(grad, weight, (x.shape[2], x.shape[3]), steps, pads, spread, groups)
    if output_mask[1]:
        small, large = (x, grad) if transposed else (grad, x)
        gw = _weight_gradient(small, large, weight, steps, pads, spread, groups)
    if output_mask[2]:
        gb = grad.sum((0, 2, 3))
    return gx, gw, gb


def _require_plane(x: Tensor) -> None:
    if x.dim() != 4:
        message = f"a convolution over {x.dim() - 2} dimensions; this engine has those over one and two"
        raise JobError(message)


def _wide(values: Ints, along: int) -> list[int]:
    """The options of a one-dimensional convolution for one row of two dimensions."""
    return [along, *values]


def _pair(values: Ints) -> Pair:
    return (values[0], values[-1])


def _output_size(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    def along(i: int) -> int:
        return (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (weight.shape[2 + i] - 1) - 1) // stride[i] + 1

    return along(0), along(1)


def _transposed_size(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, extra: Pair) -> Pair:
    def along(i: int) -> int:
        reach = dilation[i] * (weight.shape[2 + i] - 1)
        return (x.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + reach + extra[i] + 1

    return along(0), along(1)


def _padded(x: Tensor, before: Pair, after: Pair) -> Tensor:
    """``x`` with zeros around it, or cut where a number is negative."""
    for axis in (2, 3):
        first, last = max(-before[axis - 2], 0), max(-after[axis - 2], 0)
        x = x.narrow(axis, first, x.shape[axis] - first - last)
    around = [max(number, 0) for number in (before[1], after[1], before[0], after[0])]
    return F.pad(x, around) if any(around) else x


def _gathered(x: Tensor, size: Pair, taps: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """[g, C/g*K, N*L]: what each tap sees at each of the ``size`` places of the output."""
    n, c, height, width = x.shape
    reach = [stride[i] * (size[i] - 1) + dilation[i] * (taps[i] - 1) + 1 for i in (0, 1)]
    x = _padded(x, padding, (reach[0] - height - padding[0], reach[1] - width - padding[1])).contiguous()
    strides = x.stride()
    seen = torch.as_strided(
        x, (c, *taps, n, *size),
        (strides[1], dilation[0] * strides[2], dilation[1] * strides[3],
         strides[0], stride[0] * strides[2], stride[1] * strides[3]),
    )  # fmt: skip
    return seen.clone(memory_format=torch.contiguous_format).view(groups, -1, n * math.prod(size))


def _parts(x: Tensor, seen: int) -> list[int]:
    """Samples to gather at a time, if every channel of one is seen ``seen`` times: within LIMIT numbers."""
    most = max(LIMIT // (x.shape[1] * seen), 1)
    count = -(-x.shape[0] // most)
    return [x.shape[0] // count + (i < x.shape[0] % count) for i in range(count)]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """[g, M, K] @ [g, K, L]; one group needs no batch."""
    return torch.mm(a[0], b[0]).unsqueeze(0) if a.shape[0] == 1 else torch.bmm(a, b)


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:  # fmt: skip
    """[N, O, *size]: the first ``size`` places of the convolution."""
    out, taps = weight.shape[0], (weight.shape[2], weight.shape[3])
    parts = _parts(x, math.prod(taps) * math.prod(size))
    if len(parts) > 1:
        options = (size, stride, padding, dilation, groups)
        return torch.cat([_convolved(part, weight, bias, *options) for part in x.split(parts)])
    seen = _gathered(x, size, taps, stride, padding, dilation, groups)
    y = _product(weight.reshape(groups, out // groups, -1), seen).reshape(out, -1)
    y = y if bias is None else y + bias.view(-1, 1)
    return y.view(out, x.shape[0], *size).transpose(0, 1).contiguous()


def _weight_gradient(
    small: Tensor, large: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """What each tap saw of ``large`` times ``small``; [O, C/g, kh, kw] of an ordinary convolution.

    The smaller factor is the one that is transposed: the gathered one is K times as large.
    """
    n, out = small.shape[:2]
    taps, size = (weight.shape[2], weight.shape[3]), (small.shape[2], small.shape[3])
    parts = _parts(large, math.prod(taps) * math.prod(size))
    if len(parts) > 1:
        pairs = zip(small.split(parts), large.split(parts), strict=True)
        found = [_weight_gradient(a, b, weight, stride, padding, dilation, groups) for a, b in pairs]
        return functools.reduce(torch.add, found)
    seen = _gathered(large, size, taps, stride, padding, dilation, groups)
    turned = small.view(n, groups, out // groups, -1).permute(1, 0, 3, 2).reshape(groups, -1, out // groups)
    return _product(seen, turned).transpose(1, 2).contiguous().view(weight.shape)


def _input_gradient(
    grad: Tensor, weight: Tensor, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """[N, C, *size]: for each residue of places modulo the stride, a convolution of ``grad`` with the taps that meet.

    Place i = s*q + r saw tap k of output o = (i + p - d*k)/s = q + (r + p - d*k)/s, where that is whole.
    """
    n = grad.shape[0]
    parts = _parts(grad, math.prod(weight.shape[2:]) * math.prod(size) // math.prod(stride))
    if len(parts) > 1:
        options = (size, stride, padding, dilation, groups)
        return torch.cat([_input_gradient(part, weight, *options) for part in grad.split(parts)])
    kernel = weight.view(groups, weight.shape[0] // groups, *weight.shape[1:])  # [g, O/g, C/g, kh, kw]
    rows = [_meeting(r, weight.shape[2], stride[0], padding[0], dilation[0]) for r in range(stride[0])]
    columns = [_meeting(r, weight.shape[3], stride[1], padding[1], dilation[1]) for r in range(stride[1])]
    places = (-(-size[0] // stride[0]), -(-size[1] // stride[1]))
    phases = []
    for row in rows:
        for column in columns:
            if row and column:
                phases.append(_phase(grad, kernel, row, column, places))
            else:
                phases.append(grad.new_zeros(groups * kernel.shape[2], n * math.prod(places)))
    if len(phases) == 1:
        return phases[0].view(-1, n, *size).transpose(0, 1).contiguous()
    mixed = torch.stack(phases).view(*stride, -1, n, *places).permute(3, 2, 4, 0, 5, 1)
    whole = mixed.reshape(n, -1, places[0] * stride[0], places[1] * stride[1])
    return whole[:, :, : size[0], : size[1]].contiguous()


def _meeting(residue: int, taps: int, stride: int, padding: int, dilation: int) -> list[tuple[int, int]]:
    """(tap, shift) of the taps that meet places of this residue, by rising shift: equal steps apart."""
    found = [(k, (residue + padding - dilation * k) // stride) for k in range(taps)
             if (residue + padding - dilation * k) % stride == 0]  # fmt: skip
    return sorted(found, key=lambda pair: pair[1])


def _phase(
    grad: Tensor, kernel: Tensor, rows: list[tuple[int, int]], columns: list[tuple[int, int]], places: Pair
) -> Tensor:
    """[C, N*places]: ``grad`` convolved with some of the taps, the first one shifted by ``rows[0][1]``."""
    groups, _, c = kernel.shape[:3]
    step = [pairs[1][1] - pairs[0][1] if len(pairs) > 1 else 1 for pairs in (rows, columns)]
    taps = _taken(_taken(kernel, 3, [k for k, _ in rows]), 4, [k for k, _ in columns])
    weight = taps.transpose(1, 2).reshape(groups, c, -1)
    seen = _gathered(grad, places, (len(rows), len(columns)), (1, 1), (-rows[0][1], -columns[0][1]),
                     (step[0], step[1]), groups)  # fmt: skip
    return _product(weight, seen).reshape(groups * c, -1)


def _taken(tensor: Tensor, dimension: int, places: list[int]) -> Tensor:
    """The entries at ``places``, in this order."""
    if places == list(range(tensor.shape[dimension])):
        return tensor
    return torch.cat([tensor.narrow(dimension, place, 1) for place in places], dimension)


DEFINITIONS: dict[Any, Callable[..., Any]] = {
    ATEN.convolution.default: convolution,
    ATEN.convolution_backward.default: convolution_backward,
}
