"""Convolution and transposed convolution in any number of dimensions, and their gradients.

Letters: N batch, G groups, A channels of a group on the small side (the output of a convolution), B on the large side,
K the kernel's sizes. A transposed convolution is the input gradient of a convolution, so that both share everything.

The weight's gradient is a sum over places l of samples n,
    dW[a, b, k] = sum_{n, l} small[n, a, l] * large[n, b, stride*l + dilation*k - padding]:
one matrix product for each tap k of the kernel. The large side is padded once, its phases of the stride are laid apart,
and both sides get rows of equal length; then the operand of every tap is one contiguous slice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer


@dataclass(frozen=True)
class Geometry:
    """The options of a convolution, one number a spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def attributes(self) -> dict[str, Any]:
        """What ``Conv`` and ``ConvTranspose`` have in common."""
        return {
            "kernel_shape": list(self.kernel), "strides": list(self.stride), "pads": [*self.padding, *self.padding],
            "dilations": list(self.dilation), "group": self.groups,
        }  # fmt: skip

    def reach(self, axis: int) -> int:
        """How many places the kernel spans."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1


def geometry(
    weight: Operand, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> Geometry:
    """The options as torch gives them; one number may stand for all axes."""
    rank = weight.rank - 2

    def full(sizes: Sequence[int]) -> tuple[int, ...]:
        return tuple(sizes) * rank if len(sizes) == 1 else tuple(sizes)

    return Geometry(weight.shape[2:], full(stride), full(padding), full(dilation), groups)


def convolution(
    w: Writer, out: Operand, x: Operand, weight: Operand, bias: Operand | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool, _output_padding: Sequence[int], groups: int,
) -> Operand:  # fmt: skip
    """The convolution of ``x`` [N, G*B, ...] with ``weight`` [G*A, B, *K], or the transposed one."""
    g = geometry(weight, stride, padding, dilation, groups)
    return spread(w, x, weight, g, out.shape, bias) if transposed else narrow(w, x, weight, g, out.shape, bias)


def convolution_backward(
    w: Writer, out: Sequence[Operand], gradient: Operand, x: Operand, weight: Operand, _bias: object,
    stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    _output_padding: Sequence[int], groups: int, wanted: Sequence[bool],
) -> list[Operand | None]:  # fmt: skip
    """The gradients of input, weight and bias, those that are wanted."""
    g = geometry(weight, stride, padding, dilation, groups)
    small, large = (x, gradient) if transposed else (gradient, x)
    of_x = of_weight = of_bias = None
    if wanted[0]:
        of_x = (narrow if transposed else spread)(w, gradient, weight, g, x.shape)
    if wanted[1]:
        of_weight = weight_gradient(w, small, large, g)
    if wanted[2]:
        of_bias = w.reduce("ReduceSum", gradient, [0, *range(2, gradient.rank)])
    return [of_x, of_weight, of_bias]


def narrow(
    w: Writer, x: Operand, weight: Operand, g: Geometry, shape: Sequence[int], bias: Operand | None = None
) -> Operand:
    """From the large side to the small one."""
    return w.one("Conv", x, weight, *([bias] if bias else []), shape=shape, **g.attributes())


def spread(
    w: Writer, x: Operand, weight: Operand, g: Geometry, shape: Sequence[int], bias: Operand | None = None
) -> Operand:
    """From the small side to the large one, whose size ``shape`` says: several sizes have the same small side."""
    rest = [
        shape[2 + i] - ((x.shape[2 + i] - 1) * g.stride[i] + g.reach(i) - 2 * g.padding[i])
        for i in range(len(g.kernel))
    ]
    inputs = [x, weight, *([bias] if bias else [])]
    return w.one("ConvTranspose", *inputs, shape=shape, output_padding=rest, **g.attributes())


def weight_gradient(w: Writer, small: Operand, large: Operand, g: Geometry) -> Operand:
    """dW [G*A, B, *K] from the gradient at the small side and the values at the large side, or the other way round."""
    batch, groups = small.shape[0], g.groups
    a, b = small.shape[1] // groups, large.shape[1] // groups
    products = []
    for rows, columns in _taps(w, small, large, g):
        rows = w.reshape(rows, [batch, groups, a, rows.shape[-1]])
        columns = w.reshape(columns, [batch, groups, b, columns.shape[-1]])
        product = w.matmul(rows, w.transpose(columns, [0, 1, 3, 2]))
        products.append(w.reshape(w.reduce("ReduceSum", product, [0]), [groups * a, b, 1]))
    return w.reshape(w.concat(products, 2), [groups * a, b, *g.kernel])


def _taps(w: Writer, small: Operand, large: Operand, g: Geometry) -> list[tuple[Operand, Operand]]:
    """For each tap of the kernel the two operands [N, channels, length] of its product."""
    rank, places = len(g.kernel), small.shape[2:]
    if g.kernel == g.stride == (1,) * rank and not any(g.padding):
        left, right = (w.reshape(side, [*side.shape[:2], math.prod(places)]) for side in (small, large))
        return [(left, right)]
    # q: the sizes of one phase of the stride, the same for all phases
    q = [places[i] + (g.reach(i) - 1) // g.stride[i] for i in range(rank)]
    spare = 1 if rank > 1 and g.reach(rank - 1) > 1 else 0  # the last slices reach a little into another row
    q[0] += spare
    padded = _fit(w, large, g.padding, [q[i] * g.stride[i] for i in range(rank)])
    phases = _phases(w, padded, g.stride, q)
    rows = [places[0], *q[1:]]
    wide = w.pad(small, [0] * small.rank, [0, 0, *(rows[i] - places[i] for i in range(rank))])
    length, plane = math.prod(rows), math.prod(q)
    flat = w.reshape(wide, [*small.shape[:2], length])
    found = []
    for tap in itertools.product(*map(range, g.kernel)):
        at = [tap[i] * g.dilation[i] for i in range(rank)]
        phase = _index([at[i] % g.stride[i] for i in range(rank)], g.stride)
        start = phase * plane + _index([at[i] // g.stride[i] for i in range(rank)], q)
        found.append((flat, w.slice(phases, 2, start, start + length)))
    return found


def _fit(w: Writer, x: Operand, padding: Sequence[int], sizes: Sequence[int]) -> Operand:
    """``x`` with ``padding`` in front and cut or padded behind, so that it has ``sizes``."""
    behind = [size - x.shape[2 + i] - padding[i] for i, size in enumerate(sizes)]
    return w.pad(x, [0, 0, *padding], [0, 0, *behind])


def _phases(w: Writer, x: Operand, stride: Sequence[int], q: Sequence[int]) -> Operand:
    """[N, C, *(q*stride)] to [N, C, phases * places]: what lies ``stride`` apart lies together."""
    if any(step > 1 for step in stride):
        x = w.reshape(x, [*x.shape[:2], *itertools.chain(*zip(q, stride, strict=True))])
        for i in range(len(q)):  # the phase of axis i goes in front of all places
            x = w.swap(x, 2 + i, 3 + 2 * i, 4 + 2 * i)
    return w.reshape(x, [*x.shape[:2], math.prod(q) * math.prod(stride)])


def _index(place: Sequence[int], sizes: Sequence[int]) -> int:
    """The position of ``place`` in row-major order."""
    flat = 0
    for at, size in zip(place, sizes, strict=True):
        flat = flat * size + at
    return flat


CONVERTERS: dict[str, Converter] = {
    "aten.convolution.default": convolution, "aten.convolution_backward.default": convolution_backward,
}  # fmt: skip
