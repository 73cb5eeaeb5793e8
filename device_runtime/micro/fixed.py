# mypy: ignore-errors
"""Scales and their products as LiteRT's reference kernels round them, in integers alone.

Most boards have floats of 24 bits and LiteRT computes its multipliers in 53, so that a float would give other answers
on another board. A real number is a pair here: (mantissa, exponent), for mantissa * 2**exponent, never negative.
"""

SINGLE, DOUBLE = 24, 53  # bits of a mantissa
ONE = (1, 0)
RESOLUTION = 31  # bits of a multiplier
LEAST = -31  # of a multiplier's shift: what is smaller is nothing


def real(bits):
    """The pair of a positive float32 by its 32 bits. Raises ValueError."""
    exponent = bits >> 23
    if not 0 < exponent < 255:  # negative, zero, denormal, infinite or none
        raise ValueError
    return bits & 0x7FFFFF | 0x800000, exponent - 150


def width(number):
    """How many bits a positive integer has."""
    count = 0
    while number >> 16:
        number >>= 16
        count += 16
    while number:
        number >>= 1
        count += 1
    return count


def rounded(pair, bits, inexact=False):
    """The nearest pair with a mantissa of ``bits`` bits, of two the even one; ``inexact``: it is a little larger."""
    mantissa, exponent = pair
    surplus = width(mantissa) - bits
    if surplus <= 0:
        return mantissa << -surplus, exponent + surplus
    rest, half = mantissa & ((1 << surplus) - 1), 1 << (surplus - 1)
    mantissa >>= surplus
    if rest > half or (rest == half and (inexact or mantissa & 1)):
        mantissa += 1
    return mantissa, exponent + surplus


def product(one, other, bits):
    """``one`` times ``other`` with ``bits`` bits."""
    return rounded((one[0] * other[0], one[1] + other[1]), bits)


def quotient(one, other, bits):
    """``one`` by ``other`` with ``bits`` bits."""
    shift = max(0, bits + 2 + width(other[0]) - width(one[0]))
    whole, rest = divmod(one[0] << shift, other[0])
    return rounded((whole, one[1] - other[1] - shift), bits, rest != 0)


def root(pair, bits):
    """The square root of ``pair`` with ``bits`` bits."""
    mantissa, exponent = pair
    shift = 2 * bits + 4 - width(mantissa)
    shift += exponent - shift & 1  # so that half of the exponent is whole
    square = mantissa << shift
    found = 1 << (width(square) + 1) // 2
    while True:
        better = (found + square // found) >> 1
        if better >= found:
            return rounded((found, (exponent - shift) >> 1), bits, found * found != square)
        found = better


def less(one, other):
    """Whether ``one`` is smaller."""
    shift = one[1] - other[1]
    return one[0] << max(0, shift) < other[0] << max(0, -shift)


def multiplier(pair):
    """(integer of 31 bits, shift): a number as ``scaled`` takes it."""
    mantissa, exponent = pair
    size = width(mantissa)
    if size > RESOLUTION:
        surplus = size - RESOLUTION
        mantissa = (mantissa + (1 << (surplus - 1))) >> surplus
    else:
        mantissa <<= RESOLUTION - size
    shift = exponent + size
    if mantissa >> RESOLUTION:
        mantissa, shift = mantissa >> 1, shift + 1
    return (mantissa, shift) if shift >= LEAST else (0, 0)


def high(one, other):
    """The upper half of twice the product of two numbers of 32 bits, rounded."""
    return (one * other + 0x40000000) >> 31


def shifted(value, places):
    """``value`` by 2**places, rounded; halves away from zero."""
    if not places:
        return value
    return (value + (1 << (places - 1)) - (value < 0)) >> places


def scaled(value, factor, shift):
    """``value`` times ``factor`` * 2**(shift - 31), rounded twice, as LiteRT does."""
    if shift > 0:
        return ((value << shift) * factor + 0x40000000) >> 31
    value = (value * factor + 0x40000000) >> 31
    if shift:
        value = (value + (1 << (-shift - 1)) - (value < 0)) >> -shift
    return value


def times(value, mantissa, exponent):
    """An integer times a number of DOUBLE bits, rounded to as many, and then to an integer; halves away from zero."""
    size, exponent = rounded((abs(value) * mantissa, exponent), DOUBLE)
    size = (size + (1 << -exponent >> 1)) >> -exponent if exponent < 0 else size << exponent
    return size if value >= 0 else -size


def nearest(one, other, bits):
    """``one`` by ``other`` with ``bits`` bits, as an integer; halves away from zero."""
    mantissa, exponent = quotient(one, other, bits)
    return mantissa << exponent if exponent >= 0 else shifted(mantissa, -exponent)
