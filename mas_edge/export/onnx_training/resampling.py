"""Upsampling: nearest and linear interpolation, and their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.separable import apply_along
from mas_edge.export.onnx_training.writer import Writer
from mas_edge.export.separable import linear_matrices, nearest_matrices, transposed, whole_factors


def nearest(w: Writer, out: Operand, x: Operand, _size: object, *scales: float | None) -> Operand:
    """The nearest place's value; whole factors repeat places, others pick them."""
    if not whole_factors(out.shape, x.shape, scales):
        return apply_along(w, x, nearest_matrices(x.shape, out.shape, scales))
    factors = [large // small for small, large in zip(x.shape, out.shape, strict=True)]
    scales_operand = w.constant(np.array(factors, np.float32))
    options: dict[str, Any] = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return w.one("Resize", x, None, scales_operand, shape=out.shape, **options)


def nearest_backward(
    w: Writer, out: Operand, g: Operand, _size: object, _input_size: object, *scales: float | None
) -> Operand:
    """The sum over the places that took the value."""
    if not whole_factors(g.shape, out.shape, scales):
        return apply_along(w, g, transposed(nearest_matrices(out.shape, g.shape, scales)))
    window = [large // small for small, large in zip(out.shape[2:], g.shape[2:], strict=True)]
    mean = w.one("AveragePool", g, shape=out.shape, kernel_shape=window, strides=window)
    return w.times(mean, math.prod(window))


def linear(w: Writer, out: Operand, x: Operand, _size: object, align: bool, *scales: float | None) -> Operand:
    """Linear interpolation along every axis."""
    return apply_along(w, x, linear_matrices(x.shape, out.shape, align, scales))


def linear_backward(
    w: Writer, out: Operand, g: Operand, _size: object, _input_size: object, align: bool, *scales: float | None
) -> Operand:
    """Every place's share of what was interpolated from it."""
    return apply_along(w, g, transposed(linear_matrices(out.shape, g.shape, align, scales)))


CONVERTERS: dict[str, Converter] = {
    **{f"aten.upsample_nearest{n}d.default": nearest for n in (1, 2, 3)},
    **{f"aten.upsample_nearest{n}d_backward.default": nearest_backward for n in (1, 2, 3)},
    **{f"aten.upsample_{name}.default": linear for name in ("linear1d", "bilinear2d", "trilinear3d")},
    **{f"aten.upsample_{name}_backward.default": linear_backward for name in ("linear1d", "bilinear2d", "trilinear3d")},
}
