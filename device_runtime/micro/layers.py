# mypy: ignore-errors
"""Convolutions and pooling, as LiteRT's reference kernels: one kernel of a layer in memory at a time."""

from array import array

from .dense import dot, fill, rounded, rounding
from .ends import blank, bounds, clipped


def window(length, size, stride, dilation, same, places):
    """How a kernel of ``size`` taps goes along an axis of ``length``, for ``taps``. Raises ValueError."""
    reach = (places - 1) * stride + (size - 1) * dilation + 1 - length
    if min(size, stride, dilation) < 1 or (reach > 0 and not same):
        raise ValueError
    return array("i", (length, size, stride, dilation, max(0, reach) // 2 if same else 0))


def taps(axis, place):
    """Of a ``window`` at one place: the first tap that lies within, the one behind the last, where the first reads."""
    length, size, stride, dilation, padding = axis
    start = place * stride - padding
    low = -(start // dilation) if start < 0 else 0
    high = min(size, -((start - length) // dilation))
    return low, max(low, high), start + low * dilation


def convolution(operator):
    """CONV_2D: [1, H, W, C] by weights [O, h, w, C], or a part of the channels each in groups."""
    source, weights, target = operator.tensor(0), operator.tensor(1), operator.target()
    (one, height, width, channels), (outputs, tall, wide, depth) = source.shape, weights.shape
    if channels % depth or outputs % (channels // depth) or one != 1 or target.shape[3] != outputs:
        raise ValueError
    same, across, down = operator.option(0) == 0, operator.option(4, "<i", 1), operator.option(5, "<i", 1)
    axes = (
        window(height, tall, operator.option(2, "<i"), down, same, target.shape[1]),
        window(width, wide, operator.option(1, "<i"), across, same, target.shape[2]),
    )
    told = (source.zero, operator.weights(weights), tall * wide * depth, channels, depth) + tuple(target.shape[1:])
    return _convolution, array("i", told), axes, rounding(operator, outputs, operator.option(3))


def _convolution(file, x, numbers, axes, rule):
    zero, place, size, channels, depth, lines, columns, outputs = numbers
    line_step, (width, wide, _, column_step, _) = axes[0][3], axes[1]
    kernel, out = blank(size), blank(lines * columns * outputs)
    whole = depth == channels and column_step == 1  # then what a line of taps reads lies in one piece
    group = outputs // (channels // depth)
    file.seek(place)
    for output in range(outputs):
        fill(file, kernel)
        first, target = output // group * depth, output
        for line in range(lines):
            top, bottom, y = taps(axes[0], line)
            for column in range(columns):
                left, right, start = taps(axes[1], column)
                total, at = 0, y
                for tap in range(top, bottom):
                    here, weight = (at * width + start) * channels + first, (tap * wide + left) * depth
                    if whole:
                        total += dot(x, here, kernel, weight, (right - left) * depth, zero)
                    else:
                        for _ in range(left, right):
                            total += dot(x, here, kernel, weight, depth, zero)
                            here, weight = here + column_step * channels, weight + depth
                    at += line_step
                out[target] = rounded(total, rule, output)
                target += outputs
    return out


def depthwise(operator):
    """DEPTHWISE_CONV_2D: [1, H, W, C] by weights [1, h, w, O], O a multiple of C."""
    source, weights, target = operator.tensor(0), operator.tensor(1), operator.target()
    (one, height, width, channels), (_, tall, wide, outputs) = source.shape, weights.shape
    if outputs % channels or one != 1 or target.shape[3] != outputs:
        raise ValueError
    same, across, down = operator.option(0) == 0, operator.option(5, "<i", 1), operator.option(6, "<i", 1)
    axes = (
        window(height, tall, operator.option(2, "<i"), down, same, target.shape[1]),
        window(width, wide, operator.option(1, "<i"), across, same, target.shape[2]),
    )
    told = (source.zero, operator.weights(weights), tall * wide * outputs, channels) + tuple(target.shape[1:])
    return _depthwise, array("i", told), axes, rounding(operator, outputs, operator.option(4))


def _depthwise(file, x, numbers, axes, rule):
    zero, place, size, channels, lines, columns, outputs = numbers
    line_step, (width, wide, _, column_step, _) = axes[0][3], axes[1]
    kernel, out, target = blank(size), blank(lines * columns * outputs), 0
    file.seek(place)
    fill(file, kernel)
    for line in range(lines):
        top, bottom, y = taps(axes[0], line)
        for column in range(columns):
            left, right, start = taps(axes[1], column)
            for output in range(outputs):
                total, at = 0, y
                for tap in range(top, bottom):
                    here = (at * width + start) * channels + output * channels // outputs
                    weight = (tap * wide + left) * outputs + output
                    for _ in range(left, right):
                        total += (x[here] - zero) * kernel[weight]
                        here, weight = here + column_step * channels, weight + outputs
                    at += line_step
                out[target] = rounded(total, rule, output)
                target += 1
    return out


def average(operator):
    """AVERAGE_POOL_2D."""
    return _pooling(operator, _mean_of)


def largest(operator):
    """MAX_POOL_2D."""
    return _pooling(operator, max)


def _pooling(operator, choose):
    source, target = operator.tensor(0), operator.target()
    same = operator.option(0) == 0
    _, height, width, channels = source.shape
    axes = (
        window(height, operator.option(4, "<i"), operator.option(2, "<i"), 1, same, target.shape[1]),
        window(width, operator.option(3, "<i"), operator.option(1, "<i"), 1, same, target.shape[2]),
    )
    told = (channels, target.shape[1], target.shape[2]) + bounds(target, operator.option(5))
    return _pool, array("i", told), axes, choose


def _pool(_file, x, numbers, axes, choose):
    channels, lines, columns, low, high = numbers
    width, (out, place) = axes[1][0], (blank(lines * columns * channels), 0)
    for line in range(lines):
        top, bottom, y = taps(axes[0], line)
        for column in range(columns):
            left, right, start = taps(axes[1], column)
            for channel in range(channels):
                seen = [
                    x[((y + down) * width + start + across) * channels + channel]
                    for down in range(bottom - top) for across in range(right - left)
                ]  # fmt: skip
                out[place] = clipped(choose(seen), low, high)
                place += 1
    return out


def _mean_of(values):
    total, count = sum(values), len(values)
    return (total + count // 2) // count if total > 0 else -((count // 2 - total) // count)
