"""Group, layer and batch normalisation and their gradients.

x^ = (x - mean) * rstd over a set of elements, y = x^ * weight + bias. With the sums over each channel
S = sum(g), T = sum(g*x) the gradients are dweight = (T - mean*S) * rstd, dbias = S, and dx is one linear function of
g and x for every channel: dx = g*weight*rstd + x*u + v (as PyTorch's own kernels compute it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer


def group_norm(
    w: Writer, out: Sequence[Operand], x: Operand, weight: Operand | None, bias: Operand | None, n: int, c: int,
    places: int, groups: int, eps: float,
) -> list[Operand]:  # fmt: skip
    """y [N, C, ...], mean [N, G], rstd [N, G]; the normalised set is one group of one sample."""
    size = c // groups * places
    unit = w.constant(np.ones(size, np.float32))
    sets = w.reshape(x, [n * groups, size])
    shapes = [((n * groups, size), "float32"), ((n * groups, 1), "float32"), ((n * groups, 1), "float32")]
    y, mean, rstd = w.call("LayerNormalization", [sets, unit], shapes, axis=1, epsilon=float(eps))
    if weight and bias:
        y = fused(w, w.reshape(y, [n, c, places]), weight, bias)
    return [w.reshape(y, out[0].shape), w.reshape(mean, [n, groups]), w.reshape(rstd, [n, groups])]


def group_norm_backward(
    w: Writer, out: Sequence[Operand], g: Operand, x: Operand, mean: Operand, rstd: Operand, weight: Operand | None,
    n: int, c: int, places: int, groups: int, wanted: Sequence[bool],
) -> list[Operand | None]:  # fmt: skip
    """The gradients of x, weight and bias."""
    s, t = _channel_sums(w, g, x, n, c, places)
    by_group = [n, groups, c // groups]
    s, t = w.reshape(s, by_group), w.reshape(t, by_group)
    mean, rstd = w.reshape(mean, [n, groups, 1]), w.reshape(rstd, [n, groups, 1])
    of_x = of_weight = of_bias = None
    if wanted[0]:
        scale = w.reshape(weight, [groups, c // groups]) if weight else w.full([groups, c // groups], 1, "float32")
        factor = w.reshape(w.mul(rstd, scale), [n, c, 1])
        scaled = w.mul(w.reshape(g, [n, c, places]), factor)
        total, product = (w.reduce("ReduceSum", w.mul(part, scale), [2], keep=True) for part in (s, t))
        sets = w.reshape(x, [1, n * groups, c // groups * places])
        of_x = w.reshape(_input_gradient(w, scaled, sets, total, product, mean, rstd), x.shape)
    if wanted[1]:
        of_weight = w.reshape(w.reduce("ReduceSum", w.mul(w.sub(t, w.mul(s, mean)), rstd), [0]), [c])
    if wanted[2]:
        of_bias = w.reshape(w.reduce("ReduceSum", s, [0]), [c])
    return [of_x, of_weight, of_bias]


def _channel_sums(w: Writer, g: Operand, x: Operand, n: int, c: int, places: int) -> tuple[Operand, Operand]:
    """S and T [N, C]."""
    g, x = w.reshape(g, [n, c, places]), w.reshape(x, [n, c, places])
    return w.reduce("ReduceSum", g, [2]), w.reduce("ReduceSum", w.mul(g, x), [2])


def _input_gradient(
    w: Writer, scaled: Operand, x: Operand, total: Operand, product: Operand, mean: Operand, rstd: Operand
) -> Operand:
    """dx = scaled + x*u + v, u = (S*mean - T) * rstd^3 / size, v = -u*mean - S*rstd / size.

    ``scaled`` is g*weight*rstd; ``x`` [A, sets, B] with one column a normalised set; S and T are summed over a set,
    weighted, and have one element a set, as ``mean`` and ``rstd`` have.
    """
    size = x.size // mean.size
    cubed = w.mul(w.mul(rstd, rstd), rstd)
    u = w.times(w.mul(w.sub(w.mul(total, mean), product), cubed), 1 / size)
    v = w.sub(w.times(w.mul(total, rstd), -1 / size), w.mul(u, mean))
    return w.add(w.reshape(scaled, x.shape), fused(w, x, w.reshape(u, [u.size]), w.reshape(v, [v.size])))


def fused(w: Writer, x: Operand, scale: Operand, shift: Operand) -> Operand:
    """x [N, C, ...] * scale [C] + shift [C] in one pass: that is a batch normalisation with mean 0 and variance 1."""
    zero, one = (w.constant(np.full(scale.size, value, np.float32)) for value in (0, 1))
    return w.one("BatchNormalization", x, scale, shift, zero, one, shape=x.shape, epsilon=0.0)


def layer_norm(
    w: Writer, out: Sequence[Operand], x: Operand, shape: Sequence[int], weight: Operand | None, bias: Operand | None,
    eps: float,
) -> list[Operand]:  # fmt: skip
    """y, mean, rstd; the normalised set is the last axes of one sample."""
    scale = weight or w.constant(np.ones(list(shape), np.float32))
    inputs = [x, scale, *([bias] if bias else [])]
    outputs = [(spec.shape, "float32") for spec in out]
    return w.call("LayerNormalization", inputs, outputs, axis=-len(shape), epsilon=float(eps))


def batch_norm(
    w: Writer, out: Sequence[Operand], x: Operand, weight: Operand | None, bias: Operand | None,
    running_mean: Operand | None, running_var: Operand | None, training: bool, momentum: float, eps: float,
) -> Sequence[Operand | None]:  # fmt: skip
    """y, mean, rstd and the new running statistics; the normalised set is one channel of the whole batch.

    The running variance learns from the unbiased one, n/(n-1) times that of the batch.
    """
    if not training and running_mean and running_var:
        scale, shift = _folded(w, weight, bias, running_mean, _rstd(w, running_var, eps))
        empty = w.constant(np.zeros(0, np.float32))
        return [_by_channel(w, x, scale, shift), empty, empty, running_mean, running_var][: len(out)]
    axes, count = [0, *range(2, x.rank)], x.size // x.shape[1]
    mean = w.reduce("ReduceMean", x, axes, keep=True)
    distance = w.sub(x, mean)
    var = w.reshape(w.reduce("ReduceMean", w.mul(distance, distance), axes), [x.shape[1]])
    rstd = _rstd(w, var, eps)
    scale = w.mul(rstd, weight) if weight else rstd
    flat = w.reshape(mean, [x.shape[1]])
    new: list[Operand | None] = [None, None]
    if running_mean and running_var:
        unbiased = w.times(var, count / max(count - 1, 1))
        pairs = ((running_mean, flat), (running_var, unbiased))
        new = [w.add(w.times(old, 1 - momentum), w.times(now, momentum)) for old, now in pairs]
    return [_by_channel(w, distance, scale, bias), flat, rstd, *new][: len(out)]


def batch_norm_without_statistics(
    w: Writer, out: Sequence[Operand], x: Operand, weight: Operand | None, bias: Operand | None, training: bool,
    momentum: float, eps: float,
) -> Sequence[Operand | None]:  # fmt: skip
    """``batch_norm`` that keeps no running statistics."""
    return batch_norm(w, out, x, weight, bias, None, None, training, momentum, eps)


def batch_norm_backward(
    w: Writer, out: Sequence[Operand], g: Operand, x: Operand, weight: Operand | None, running_mean: Operand | None,
    running_var: Operand | None, mean: Operand, rstd: Operand, training: bool, eps: float,
    wanted: Sequence[bool],
) -> list[Operand | None]:  # fmt: skip
    """The gradients of x, weight and bias."""
    if not training and running_mean and running_var:
        mean, rstd = running_mean, _rstd(w, running_var, eps)
    n, c = x.shape[:2]
    places = math.prod(x.shape[2:])
    s, t = (w.reduce("ReduceSum", part, [0]) for part in _channel_sums(w, g, x, n, c, places))
    factor = w.mul(rstd, weight) if weight else rstd
    of_x = None
    if wanted[0]:
        total, product = (w.mul(part, weight) if weight else part for part in (s, t))
        of_x = _by_channel(w, g, factor, None)
        if training:
            sets = w.reshape(x, [n, c, places])
            of_x = w.reshape(_input_gradient(w, of_x, sets, total, product, mean, rstd), x.shape)
    of_weight = w.mul(w.sub(t, w.mul(s, mean)), rstd) if wanted[1] else None
    return [of_x, of_weight, s if wanted[2] else None]


def _rstd(w: Writer, var: Operand, eps: float) -> Operand:
    return w.pointwise("Reciprocal", w.pointwise("Sqrt", w.add(var, w.scalar(eps, "float32"))))


def _folded(
    w: Writer, weight: Operand | None, bias: Operand | None, mean: Operand, rstd: Operand
) -> tuple[Operand, Operand]:
    """Scale and shift [C] that do the whole normalisation: x*scale + (bias - mean*scale)."""
    scale = w.mul(rstd, weight) if weight else rstd
    shift = w.mul(mean, scale)
    return scale, w.sub(bias, shift) if bias else w.pointwise("Neg", shift)


def _by_channel(w: Writer, x: Operand, scale: Operand, shift: Operand | None) -> Operand:
    flat = w.reshape(x, [*x.shape[:2], math.prod(x.shape[2:])])
    scaled = fused(w, flat, scale, shift) if shift else w.mul(flat, w.reshape(scale, [scale.size, 1]))
    return w.reshape(scaled, x.shape)


CONVERTERS: dict[str, Converter] = {
    "aten.native_group_norm.default": group_norm, "aten.native_group_norm_backward.default": group_norm_backward,
    "aten.native_layer_norm.default": layer_norm, "aten._native_batch_norm_legit_functional.default": batch_norm,
    "aten._native_batch_norm_legit.no_stats": batch_norm_without_statistics,
    "aten.native_batch_norm_backward.default": batch_norm_backward,
}  # fmt: skip
