# mypy: ignore-errors
"""Dense layers, and how every layer rounds: as LiteRT's reference kernels, one kernel in memory at a time."""

from array import array

from . import fixed
from .ends import blank, bounds, clipped
from .fixed import DOUBLE, scaled

try:
    from .dot_native import dot
except (ImportError, SyntaxError):  # no emitter of machine code on this board; CPython
    from .dot import dot


def rounding(operator, channels, activation):
    """What a layer's sums are rounded by: (bias, factors, shifts by channel, [zero, lowest, highest])."""
    factors, shifts = array("i", bytes(4 * channels)), blank(channels)
    for channel, scale in enumerate(_scales(operator, channels)):
        factors[channel], shifts[channel] = fixed.multiplier(scale)
    return _biases(operator, channels), factors, shifts, _ends(operator, activation)


def rounded(total, rule, channel):
    """The integer for a channel's sum of products."""
    biases, factors, shifts, (zero, low, high) = rule
    return clipped(scaled(total + biases[channel], factors[channel], shifts[channel]) + zero, low, high)


def _scales(operator, channels):
    """What a sum is worth in steps of the output, by channel."""
    source, weights, target = operator.tensor(0), operator.tensor(1), operator.target()
    if weights.channels not in (1, channels):
        raise ValueError
    for channel in range(channels):
        yield fixed.quotient(fixed.product(source.scale(), weights.scale(channel), DOUBLE), target.scale(), DOUBLE)


def _biases(operator, channels):
    found, bias = array("i", bytes(4 * channels)), operator.tensor(2)
    if bias is not None:
        operator.fill(bias, found)
    return found


def _ends(operator, activation):
    target = operator.target()
    return array("h", (target.zero,) + bounds(target, activation))


def dense(operator):
    """FULLY_CONNECTED: [.., I] by weights [O, I]. Its sums are multiplied in 53 bits, other layers' in 31."""
    source, weights = operator.tensor(0), operator.tensor(1)
    outputs, inputs = weights.shape
    if source.size % inputs:
        raise ValueError
    told = array("i", (source.zero, operator.weights(weights), inputs, outputs))
    mantissas, exponents = array("q", bytes(8 * outputs)), array("h", bytes(2 * outputs))
    for channel, scale in enumerate(_scales(operator, outputs)):
        mantissas[channel], exponents[channel] = scale
    return _dense, told, (_biases(operator, outputs), mantissas, exponents, _ends(operator, operator.option(0)))


def _dense(file, x, numbers, rule):
    zero, place, inputs, outputs = numbers
    biases, mantissas, exponents, (output_zero, low, high) = rule
    kernel, out = blank(inputs), blank(len(x) // inputs * outputs)
    file.seek(place)
    for channel in range(outputs):
        fill(file, kernel)
        for sample in range(len(x) // inputs):
            total = dot(x, sample * inputs, kernel, 0, inputs, zero) + biases[channel]
            value = fixed.times(total, mantissas[channel], exponents[channel]) + output_zero
            out[sample * outputs + channel] = clipped(value, low, high)
    return out


def fill(file, kernel):
    """Read the next kernel of a layer."""
    if file.readinto(kernel) != len(kernel):
        raise ValueError
