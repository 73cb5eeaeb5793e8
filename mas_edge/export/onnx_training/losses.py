"""Softmax, its logarithm, and the gradients of both; the losses on them are made of simpler operators.

Cross-entropy picks the target's logarithm with a gather; its gradient is a one-hot tensor. A label outside the classes
(``ignore_index``) is 0 everywhere there, and is masked where it is read.
"""

from __future__ import annotations

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer


def softmax(w: Writer, out: Operand, a: Operand, dim: int, *_half: object) -> Operand:
    """exp(a) / sum exp(a) along ``dim``."""
    a = w.cast(a, out.dtype)
    if _is_last(a, dim):
        return w.one("Softmax", a, shape=out.shape, axis=-1)
    powers = w.pointwise("Exp", _lowered(w, a, dim))
    return w.div(powers, w.reduce("ReduceSum", powers, [dim], keep=True))


def log_softmax(w: Writer, out: Operand, a: Operand, dim: int, *_half: object) -> Operand:
    """a - log sum exp(a) along ``dim``."""
    a = w.cast(a, out.dtype)
    if _is_last(a, dim):
        return w.one("LogSoftmax", a, shape=out.shape, axis=-1)
    lowered = _lowered(w, a, dim)
    total = w.reduce("ReduceSum", w.pointwise("Exp", lowered), [dim], keep=True)
    return w.sub(lowered, w.pointwise("Log", total))


def _is_last(a: Operand, dim: int) -> bool:
    """ONNX Runtime transposes for any other axis, which takes ten times as long as the softmax itself."""
    return dim % max(a.rank, 1) == max(a.rank, 1) - 1


def _lowered(w: Writer, a: Operand, dim: int) -> Operand:
    """``a`` less its largest value along ``dim``, so that no power overflows."""
    return w.sub(a, w.reduce("ReduceMax", a, [dim], keep=True))


def softmax_backward(w: Writer, _out: Operand, g: Operand, p: Operand, dim: int, *_dtype: object) -> Operand:
    """p * (g - sum(g*p))."""
    return w.mul(p, w.sub(g, w.reduce("ReduceSum", w.mul(g, p), [dim], keep=True)))


def log_softmax_backward(w: Writer, _out: Operand, g: Operand, logs: Operand, dim: int, *_dtype: object) -> Operand:
    """g - exp(logs) * sum(g)."""
    return w.sub(g, w.mul(w.pointwise("Exp", logs), w.reduce("ReduceSum", g, [dim], keep=True)))


CONVERTERS: dict[str, Converter] = {
    "aten._softmax.default": softmax, "aten._log_softmax.default": log_softmax,
    "aten._softmax_backward_data.default": softmax_backward,
    "aten._log_softmax_backward_data.default": log_softmax_backward,
}  # fmt: skip
