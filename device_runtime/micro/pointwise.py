# mypy: ignore-errors
"""Operators on one integer, as a table of all 256, and in and out of integers, as LiteRT's reference kernels."""

from . import fixed
from .ends import HEADROOM, HIGHEST, LOWEST, RELU, RELU6, blank, bounds, clipped, number, quantized, real
from .fixed import DOUBLE, SINGLE, scaled
from .tflite import FLOAT32


def _looked_up(_file, x, table):
    out = blank(len(x))
    for place in range(len(x)):
        out[place] = table[x[place] - LOWEST]
    return out


def _table(function):
    table = blank(HIGHEST - LOWEST + 1)
    for place in range(len(table)):
        table[place] = function(place + LOWEST)
    return _looked_up, table


def relu(operator):
    """RELU."""
    return _limited(operator, RELU)


def relu6(operator):
    """RELU6."""
    return _limited(operator, RELU6)


def _limited(operator, activation):
    source, target = operator.tensor(0), operator.target()
    low, high = bounds(target, activation)
    factor, shift = fixed.multiplier(fixed.quotient(source.scale(), target.scale(), SINGLE))
    return _table(lambda value: clipped(target.zero + scaled(value - source.zero, factor, shift), low, high))


def rsqrt(operator):
    """RSQRT: one by the square root; of zero it is the largest there is."""
    source, target = operator.tensor(0), operator.target()
    root = fixed.product(fixed.root(source.scale(), SINGLE), target.scale(), SINGLE)
    factor, shift = fixed.multiplier(fixed.quotient(fixed.ONE, root, DOUBLE))

    def of(value):
        if value <= source.zero:
            return HIGHEST
        found = scaled(1, *_inverse_root(value - source.zero))
        return clipped(scaled(found, factor, shift - HEADROOM) + target.zero, LOWEST, HIGHEST)

    return _table(of)


def _inverse_root(value):
    """1 / sqrt(value) as factor and shift, for ``scaled``: five steps of Newton's with 28 bits, as LiteRT does it."""
    if value == 1:
        return 0x7FFFFFFF, HEADROOM
    pairs = (31 - fixed.width(value)) // 2 - 1
    half = fixed.shifted(value << 2 * pairs >> 1, 1)
    x = 1 << 28
    for _ in range(5):
        cube = min(fixed.high(fixed.high(x, x), x) << 6, 0x7FFFFFFF)
        x = (fixed.high(x, (1 << 28) + (1 << 27)) - fixed.high(half, cube)) << 3
    x, shift = fixed.high(x, 1518500250), 11 - pairs  # the half of the root of two, with 31 bits
    return (x, HEADROOM - shift) if shift >= 0 else (x << -shift, HEADROOM)


# ---------------------------------------------------------------------- in and out of integers


def quantize(operator):
    """QUANTIZE: float32 to int8, or int8 to the int8 of another scale."""
    source, target = operator.tensor(0), operator.target()
    if source.kind == FLOAT32:
        return _quantize, number(target.scale()), target.zero
    factor, shift = fixed.multiplier(fixed.quotient(source.scale(), target.scale(), DOUBLE))
    return _table(lambda value: clipped(target.zero + scaled(value - source.zero, factor, shift), LOWEST, HIGHEST))


def _quantize(_file, x, scale, zero):
    return quantized(x, scale, zero)


def dequantize(operator):
    """DEQUANTIZE: int8 to float32."""
    source = operator.tensor(0)
    return _dequantize, number(source.scale()), source.zero


def _dequantize(_file, x, scale, zero):
    return real(x, scale, zero)
