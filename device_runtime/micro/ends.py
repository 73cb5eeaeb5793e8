# mypy: ignore-errors
"""Where integers end: the bounds behind an activation, and the way from real numbers and back."""

import math
from array import array

from . import fixed

LOWEST, HIGHEST = -128, 127
NOTHING, RELU, RELU6 = 0, 1, 3  # activations within another operator
AT_A_TIME = 64  # integers that are set to a value: of all at once there would be another copy
HEADROOM = 20  # bits that LiteRT gives a sum before it rounds
FAR = 1000.0  # beyond every range of integers: what is no number of a scale must not overflow one


def blank(size, value=0):
    """``size`` integers of 8 bits, all ``value``."""
    out = array("b", bytes(size))
    if value:
        some = array("b", bytes((value & 255,)) * min(size, AT_A_TIME))
        for place in range(0, size, AT_A_TIME):
            count = min(AT_A_TIME, size - place)
            out[place : place + count] = some[:count]
    return out


def bounds(target, activation):
    """The least and the largest integer of a tensor behind an activation. Raises ValueError."""
    if activation == NOTHING:
        return LOWEST, HIGHEST
    if activation == RELU:
        return max(LOWEST, target.zero), HIGHEST
    if activation == RELU6:
        six = fixed.nearest((6, 0), target.scale(), fixed.SINGLE)
        return max(LOWEST, target.zero), min(HIGHEST, target.zero + six)
    raise ValueError


def clipped(value, low, high):
    """``value``, or the nearest that is allowed."""
    return low if value < low else high if value > high else value


def number(pair):
    """A pair of ``fixed`` as a float."""
    return math.ldexp(pair[0], pair[1])


def quantized(x, scale, zero):
    """float32 numbers as integers; halves away from zero, what is beyond the range at its end."""
    out, single = blank(len(x)), array("f", (0.0,))
    for place, value in enumerate(x):
        single[0] = value / scale  # as a float32: a board's floats may have more bits
        value = max(-FAR, min(FAR, single[0]))
        out[place] = clipped(int(value + 0.5 if value >= 0 else value - 0.5) + zero, LOWEST, HIGHEST)
    return out


def real(x, scale, zero):
    """Integers as float32 numbers."""
    out = array("f", range(len(x)))
    for place, value in enumerate(x):
        out[place] = scale * (value - zero)
    return out
