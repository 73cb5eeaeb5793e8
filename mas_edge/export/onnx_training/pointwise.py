"""Operators that work element by element: arithmetic, comparisons, choices, activations, casts."""

from __future__ import annotations

import math

from mas_edge.export.onnx_training.operand import Converter, Operand
from mas_edge.export.onnx_training.writer import Writer

Number = float | int | bool
Arg = Operand | Number

ARITHMETIC = {
    "aten.mul.Tensor": "Mul", "aten.mul.Scalar": "Mul", "aten.maximum.default": "Max", "aten.minimum.default": "Min",
    "aten.div.Tensor": "Div", "aten.div.Scalar": "Div", "aten.pow.Tensor_Tensor": "Pow", "aten.pow.Scalar": "Pow",
    "aten.logical_and.default": "And", "aten.logical_or.default": "Or", "aten.logical_xor.default": "Xor",
}  # fmt: skip
COMPARED = {"eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"}
UNARY = {
    "abs": "Abs", "acos": "Acos", "asin": "Asin", "atan": "Atan", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh",
    "erf": "Erf", "exp": "Exp", "floor": "Floor", "isinf": "IsInf", "isnan": "IsNaN", "log": "Log", "neg": "Neg",
    "logical_not": "Not", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sgn": "Sign", "sign": "Sign",
    "sigmoid": "Sigmoid", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip


def operand(w: Writer, arg: Arg, dtype: str) -> Operand:
    """``arg`` as an operand of ``dtype``."""
    return w.cast(arg, dtype) if isinstance(arg, Operand) else w.scalar(arg, dtype)


def common_dtype(a: Arg, b: Arg) -> str:
    """In which dtype two arguments are compared: the wider tensor's; a number gives way to a tensor."""
    order = ["bool", "uint8", "int8", "int32", "int64", "float32", "float64"]
    dtypes = [arg.dtype for arg in (a, b) if isinstance(arg, Operand)]
    if any(isinstance(arg, float) for arg in (a, b)):
        dtypes.append("float32")
    if any(type(arg) is int for arg in (a, b)) and set(dtypes) == {"bool"}:
        dtypes.append("int64")
    return max(dtypes, key=order.index)


def add(w: Writer, out: Operand, a: Arg, b: Arg, alpha: Number = 1) -> Operand:
    """a + alpha*b."""
    if out.dtype == "bool":
        return w.pointwise("Or", operand(w, a, "bool"), operand(w, b, "bool"))
    return w.add(operand(w, a, out.dtype), w.times(operand(w, b, out.dtype), alpha))


def sub(w: Writer, out: Operand, a: Arg, b: Arg, alpha: Number = 1) -> Operand:
    """a - alpha*b."""
    return w.sub(operand(w, a, out.dtype), w.times(operand(w, b, out.dtype), alpha))


def rsub(w: Writer, out: Operand, a: Arg, b: Arg, alpha: Number = 1) -> Operand:
    """b - alpha*a."""
    return sub(w, out, b, a, alpha)


def power(w: Writer, out: Operand, a: Operand, exponent: Number) -> Operand:
    """a to a fixed exponent; the usual ones without the slow general operator."""
    a = w.cast(a, out.dtype)
    known = {1: lambda: a, 2: lambda: w.mul(a, a), 3: lambda: w.mul(w.mul(a, a), a)}
    if exponent in known:
        return known[int(exponent)]()
    if exponent == 0.5:
        return w.pointwise("Sqrt", a)
    return w.pointwise("Reciprocal", a) if exponent == -1 else w.pointwise("Pow", a, w.scalar(exponent, out.dtype))


def rounded_division(w: Writer, out: Operand, a: Arg, b: Arg, rounding_mode: str | None = None) -> Operand:
    """a / b, rounded down or towards zero."""
    a, b = operand(w, a, out.dtype), operand(w, b, out.dtype)
    if "float" not in out.dtype:  # ONNX divides whole numbers towards zero; without the rest there is nothing to round
        return w.div(w.sub(a, remainder(w, out, a, b)) if rounding_mode == "floor" else a, b)
    quotient = w.div(a, b)
    if rounding_mode == "floor":
        return w.pointwise("Floor", quotient)
    return truncated(w, out, quotient) if rounding_mode == "trunc" else quotient


def truncated(w: Writer, _out: Operand, a: Operand) -> Operand:
    """``a`` rounded towards zero."""
    return w.mul(w.pointwise("Sign", a), w.pointwise("Floor", w.pointwise("Abs", a)))


def remainder(w: Writer, out: Operand, a: Arg, b: Arg) -> Operand:
    """What is left of a / b rounded down: it has the sign of b."""
    a, b = operand(w, a, out.dtype), operand(w, b, out.dtype)
    if "float" not in out.dtype:
        return w.pointwise("Mod", a, b)
    return w.sub(a, w.mul(w.pointwise("Floor", w.div(a, b)), b))


def truncated_remainder(w: Writer, out: Operand, a: Arg, b: Arg) -> Operand:
    """What is left of a / b rounded towards zero: it has the sign of a."""
    return w.one("Mod", operand(w, a, out.dtype), operand(w, b, out.dtype), shape=out.shape, fmod=1)


def not_equal(w: Writer, _out: Operand, a: Arg, b: Arg) -> Operand:
    """a != b."""
    return w.pointwise("Not", _compare(w, "Equal", a, b))


def _compare(w: Writer, op: str, a: Arg, b: Arg) -> Operand:
    dtype = common_dtype(a, b)
    return w.pointwise(op, operand(w, a, dtype), operand(w, b, dtype))


def where(w: Writer, out: Operand, condition: Operand, a: Arg, b: Arg) -> Operand:
    """A where the condition holds, else b."""
    return w.where(w.cast(condition, "bool"), operand(w, a, out.dtype), operand(w, b, out.dtype))


def clamp(w: Writer, out: Operand, a: Operand, low: Arg | None = None, high: Arg | None = None) -> Operand:
    """A held between ``low`` and ``high``."""
    a = w.cast(a, out.dtype)
    if low is not None:
        a = w.pointwise("Max", a, operand(w, low, out.dtype))
    return a if high is None else w.pointwise("Min", a, operand(w, high, out.dtype))


def clamp_max(w: Writer, out: Operand, a: Operand, high: Arg) -> Operand:
    """A held below ``high``."""
    return clamp(w, out, a, None, high)


def to_copy(w: Writer, out: Operand, a: Operand, *_options: object) -> Operand:
    """The same values, perhaps in another dtype."""
    return w.cast(a, out.dtype)


def same(_w: Writer, _out: Operand, a: Operand, *_options: object) -> Operand:
    """What only autograd or the memory layout sees."""
    return a


def threshold_backward(w: Writer, _out: Operand, gradient: Operand, a: Operand, threshold: Number) -> Operand:
    """The gradient where ``a`` is above the threshold (ReLU), else 0: a product, as ``Where`` takes twice the time."""
    above = w.pointwise("Greater", a, w.scalar(threshold, a.dtype))
    return w.mul(gradient, w.cast(above, gradient.dtype))


def shrink_backward(w: Writer, _out: Operand, gradient: Operand, a: Operand, limit: Number) -> Operand:
    """The gradient where ``a`` is further than ``limit`` from 0, else 0."""
    outside = w.pointwise("Greater", w.pointwise("Abs", a), w.scalar(limit, a.dtype))
    return w.where(outside, gradient, w.scalar(0, gradient.dtype))


def gelu(w: Writer, _out: Operand, a: Operand, approximate: str) -> Operand:
    """a * Phi(a), or its approximation by tanh (Hendrycks and Gimpel 2016, arXiv 1606.08415)."""
    one, half = w.scalar(1, a.dtype), w.scalar(0.5, a.dtype)
    if approximate == "tanh":
        cubed = w.times(w.mul(w.mul(a, a), a), 0.044715)
        bell = w.pointwise("Tanh", w.times(w.add(a, cubed), math.sqrt(2 / math.pi)))
    else:
        bell = w.pointwise("Erf", w.times(a, math.sqrt(0.5)))
    return w.mul(w.mul(a, w.add(bell, one)), half)


def leaky_relu(w: Writer, out: Operand, a: Operand, slope: Number) -> Operand:
    """A above 0, slope*a below."""
    return w.one("LeakyRelu", a, shape=out.shape, alpha=float(slope))


def hardtanh(w: Writer, out: Operand, a: Operand, low: Number, high: Number) -> Operand:
    """A held between two numbers (ReLU6)."""
    return clamp(w, out, a, low, high)


def elu(w: Writer, _out: Operand, a: Operand, alpha: Number, scale: Number, input_scale: Number) -> Operand:
    """scale*a above 0, scale*alpha*(exp(input_scale*a) - 1) below."""
    below = w.sub(w.pointwise("Exp", w.times(a, input_scale)), w.scalar(1, a.dtype))
    positive = w.pointwise("Greater", a, w.scalar(0, a.dtype))
    return w.where(positive, w.times(a, scale), w.times(below, alpha * scale))


def rsqrt(w: Writer, out: Operand, a: Operand) -> Operand:
    """1 / sqrt(a)."""
    return w.pointwise("Reciprocal", w.pointwise("Sqrt", w.cast(a, out.dtype)))


def log1p(w: Writer, out: Operand, a: Operand) -> Operand:
    """log(1 + a)."""
    return w.pointwise("Log", w.add(w.cast(a, out.dtype), w.scalar(1, out.dtype)))


def expm1(w: Writer, out: Operand, a: Operand) -> Operand:
    """exp(a) - 1."""
    return w.sub(w.pointwise("Exp", w.cast(a, out.dtype)), w.scalar(1, out.dtype))


def _unary(op: str) -> Converter:
    def convert(w: Writer, out: Operand, a: Operand) -> Operand:
        kept = out.dtype == "bool" and op != "Not"  # a question about numbers
        return w.pointwise(op, a if kept else w.cast(a, out.dtype), dtype=out.dtype)

    return convert


def _arithmetic(op: str) -> Converter:
    def convert(w: Writer, out: Operand, a: Arg, b: Arg) -> Operand:
        if out.dtype == "bool":
            return w.pointwise("And" if op == "Mul" else op, operand(w, a, "bool"), operand(w, b, "bool"))
        return w.pointwise(op, operand(w, a, out.dtype), operand(w, b, out.dtype))

    return convert


def _comparison(op: str) -> Converter:
    def convert(w: Writer, _out: Operand, a: Arg, b: Arg) -> Operand:
        return _compare(w, op, a, b)

    return convert


CONVERTERS: dict[str, Converter] = {
    **{name: _arithmetic(op) for name, op in ARITHMETIC.items()},
    **{f"aten.{name}.{kind}": _comparison(op) for name, op in COMPARED.items() for kind in ("Tensor", "Scalar")},
    **{f"aten.{name}.default": _unary(op) for name, op in UNARY.items()},
    "aten.add.Tensor": add, "aten.add.Scalar": add, "aten.sub.Tensor": sub, "aten.sub.Scalar": sub,
    "aten.rsub.Scalar": rsub, "aten.rsub.Tensor": rsub, "aten.pow.Tensor_Scalar": power,
    "aten.div.Tensor_mode": rounded_division, "aten.div.Scalar_mode": rounded_division,
    "aten.trunc.default": truncated, "aten.remainder.Scalar": remainder, "aten.remainder.Tensor": remainder,
    "aten.fmod.Scalar": truncated_remainder, "aten.fmod.Tensor": truncated_remainder,
    "aten.ne.Tensor": not_equal, "aten.ne.Scalar": not_equal, "aten.bitwise_and.Tensor": _arithmetic("And"),
    "aten.bitwise_or.Tensor": _arithmetic("Or"), "aten.bitwise_not.default": _unary("Not"),
    "aten.where.self": where, "aten.clamp.default": clamp, "aten.clamp.Tensor": clamp, "aten.clamp_min.default": clamp,
    "aten.clamp_min.Tensor": clamp, "aten.clamp_max.default": clamp_max, "aten.clamp_max.Tensor": clamp_max,
    "aten._to_copy.default": to_copy, "aten.clone.default": same, "aten.alias.default": same,
    "aten.detach.default": same, "aten.lift_fresh_copy.default": same,
    "aten.threshold_backward.default": threshold_backward, "aten.gelu.default": gelu,
    "aten.leaky_relu.default": leaky_relu, "aten.hardtanh.default": hardtanh, "aten.elu.default": elu,
    "aten.hardshrink_backward.default": shrink_backward, "aten.softshrink_backward.default": shrink_backward,
    "aten.rsqrt.default": rsqrt, "aten.log1p.default": log1p, "aten.expm1.default": expm1,
}  # fmt: skip
