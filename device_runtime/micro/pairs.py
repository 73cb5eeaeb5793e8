# mypy: ignore-errors
"""Operators on two integers of the same place, or on all along some axes, as LiteRT's reference kernels."""

from array import array

from . import fixed
from .ends import HEADROOM, HIGHEST, LOWEST, blank, bounds, clipped
from .fixed import DOUBLE, SINGLE, scaled
from .moves import merged, rows, spread, strides_of, walk


def _pair(operator):
    """How an operator goes over its two tensors, as ``walk`` reads it."""
    one, other, shape = operator.tensor(0), operator.tensor(1), operator.target().shape
    return merged(shape, spread(one.shape, shape), spread(other.shape, shape))


def add(operator):
    """ADD."""
    return _sum_of(operator, 1)


def subtract(operator):
    """SUB."""
    return _sum_of(operator, -1)


def _sum_of(operator, sign):
    one, other, target = operator.tensor(0), operator.tensor(1), operator.target()
    larger = other.scale() if fixed.less(one.scale(), other.scale()) else one.scale()
    twice, out = (larger[0], larger[1] + 1), target.scale()
    told = [target.size, sign, one.zero, other.zero, target.zero]
    for each in (one, other):
        told += fixed.multiplier(fixed.quotient(each.scale(), twice, DOUBLE))
    told += fixed.multiplier(fixed.quotient(twice, (out[0], out[1] + HEADROOM), DOUBLE))
    told += bounds(target, operator.option(0))
    return _add, array("i", told + _pair(operator))


def _add(_file, x, y, numbers):
    size, sign, x_zero, y_zero, zero, x_factor, x_shift, y_factor, y_shift, factor, shift, low, high = numbers[:13]
    shape, x_strides, y_strides = walk(numbers, 13, 2)
    out, place = blank(size), 0
    x_step, y_step = x_strides[-1], y_strides[-1]
    for a, b in zip(rows(shape, x_strides), rows(shape, y_strides)):
        for _ in range(shape[-1]):
            value = scaled((x[a] - x_zero) << HEADROOM, x_factor, x_shift)
            value += sign * scaled((y[b] - y_zero) << HEADROOM, y_factor, y_shift)
            value = scaled(value, factor, shift) + zero
            out[place] = low if value < low else high if value > high else value
            place, a, b = place + 1, a + x_step, b + y_step
    return out


def multiply(operator):
    """MUL."""
    one, other, target = operator.tensor(0), operator.tensor(1), operator.target()
    scale = fixed.quotient(fixed.product(one.scale(), other.scale(), SINGLE), target.scale(), SINGLE)
    told = [target.size, one.zero, other.zero, target.zero]
    told += fixed.multiplier(scale) + bounds(target, operator.option(0))
    return _multiply, array("i", told + _pair(operator))


def _multiply(_file, x, y, numbers):
    size, x_zero, y_zero, zero, factor, shift, low, high = numbers[:8]
    shape, x_strides, y_strides = walk(numbers, 8, 2)
    out, place = blank(size), 0
    x_step, y_step = x_strides[-1], y_strides[-1]
    for a, b in zip(rows(shape, x_strides), rows(shape, y_strides)):
        for _ in range(shape[-1]):
            value = scaled((x[a] - x_zero) * (y[b] - y_zero), factor, shift) + zero
            out[place] = low if value < low else high if value > high else value
            place, a, b = place + 1, a + x_step, b + y_step
    return out


def mean(operator):
    """MEAN."""
    source, target, axes = operator.tensor(0), operator.target(), operator.tensor(1).numbers()
    rank, steps = len(source.shape), strides_of(source.shape)
    gone = [axis % rank for axis in axes] if rank else []
    parts = []
    for taken in (False, True):
        there = [axis for axis in range(rank) if (axis in gone) is taken]
        parts += merged([source.shape[axis] for axis in there], [steps[axis] for axis in there])
    count = source.size // max(1, target.size)
    factor, shift = fixed.multiplier(fixed.quotient(source.scale(), target.scale(), DOUBLE))
    more = min(fixed.width(count) - 1, 32, 31 + shift)  # so that the division by the count loses little
    told = [target.size, source.zero * count, target.zero, (factor << more) // count, shift - more]
    return _mean, array("i", told + parts)


def _mean(_file, x, numbers):
    size, offset, zero, factor, shift = numbers[:5]
    kept, kept_strides = walk(numbers, 5)
    gone, gone_strides = walk(numbers, 6 + 2 * len(kept))
    out, place, step, inner = blank(size), 0, kept_strides[-1], gone_strides[-1]
    for start in rows(kept, kept_strides):
        for _ in range(kept[-1]):
            total = -offset
            for row in rows(gone, gone_strides):
                at = start + row
                for _ in range(gone[-1]):
                    total += x[at]
                    at += inner
            out[place] = clipped(scaled(total, factor, shift) + zero, LOWEST, HIGHEST)
            place, start = place + 1, start + step
    return out
