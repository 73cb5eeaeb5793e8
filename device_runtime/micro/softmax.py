# mypy: ignore-errors
"""SOFTMAX of integers, as LiteRT's reference kernel: exponentials and one division in fixed point."""

from array import array

from . import fixed
from .ends import HIGHEST, LOWEST, blank, clipped
from .fixed import high, scaled, shifted

INTEGER_BITS = 5  # before the point of a difference: beyond -32 an exponential is nothing
FRACTION = 31 - INTEGER_BITS
SUM_BITS = 12  # before the point of a sum of exponentials
ONE = 0x7FFFFFFF  # the largest number with no bit before its point
EIGHTH, THIRD = 1895147668, 715827883  # exp(-1/8), 1/3
POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-1/4), exp(-1/2) .. exp(-16)


def softmax(operator):
    """SOFTMAX along the last axis."""
    source, target = operator.tensor(0), operator.target()
    beta = fixed.real(operator.option(0, "<I"))
    mantissa, exponent = fixed.product(beta, source.scale(), fixed.DOUBLE)
    factor, shift = fixed.multiplier((mantissa, exponent + FRACTION))
    if shift > 31 or shift < 0 or target.size != source.size:
        raise ValueError
    least = -(((1 << INTEGER_BITS) - 1 << FRACTION) >> shift)
    return _softmax, array("i", (source.shape[-1], factor, shift, least))


def _softmax(_file, x, numbers):
    depth, factor, shift, least = numbers
    out = blank(len(x))
    for start in range(0, len(x), depth):
        top, total, powers = max(x[start : start + depth]), 0, []
        for place in range(start, start + depth):
            gap = x[place] - top
            power = _exponential(scaled(gap, factor, shift)) if gap >= least else None
            powers.append(power)
            total += shifted(power, SUM_BITS) if gap >= least else 0
        room = 32 - fixed.width(total)
        share = _reciprocal((total << room) - (1 << 31))
        for place, power in enumerate(powers):
            if power is None:
                out[start + place] = LOWEST
            else:
                part = shifted(high(share, power), SUM_BITS - room + 31 - 8)
                out[start + place] = clipped(part + LOWEST, LOWEST, HIGHEST)
    return out


def _exponential(value):
    """exp(value), for a negative value with FRACTION bits behind its point; 31 bits behind the result's."""
    if not value:
        return ONE
    quarter = 1 << FRACTION - 2
    rest = (value & quarter - 1) - quarter
    result = _near_zero(rest << INTEGER_BITS)
    whole = rest - value
    for number, power in enumerate(POWERS):
        if whole >> FRACTION - 2 + number & 1:
            result = high(result, power)
    return result


def _near_zero(value):
    """exp(value) from -1/4 to 0, by the first terms of its series about -1/8."""
    x = value + (1 << 28)
    square = high(x, x)
    cube, fourth = high(square, x), high(square, square)
    terms = shifted(high(shifted(fourth, 2) + cube, THIRD) + square, 1)
    return EIGHTH + high(EIGHTH, x + terms)


def _reciprocal(value):
    """1 / (1 + value) from 0 to 1, by three steps of Newton's."""
    half = value + ONE + 1 >> 1
    x = 1515870810 + high(half, -1010580540)  # 48/17 - 32/17 of it, with two bits before the point
    for _ in range(3):
        x += high(x, (1 << 29) - high(half, x)) << 2
    return min(x << 1, ONE)
