# mypy: ignore-errors
"""Operators that move integers and compute none, and the walk over axes that all others share."""

from array import array

from . import fixed
from .ends import blank


def strides_of(shape):
    """How far apart neighbours lie along each axis."""
    found, step = [], 1
    for size in reversed(shape):
        found.append(step)
        step *= size
    return list(reversed(found))


def spread(shape, target):
    """Strides of a tensor of ``shape`` that is repeated to ``target``: 0 along what is repeated. Raises ValueError."""
    shape = (1,) * (len(target) - len(shape)) + tuple(shape)
    if len(shape) != len(target) or any([size != wanted and size != 1 for size, wanted in zip(shape, target)]):
        raise ValueError
    return [0 if size == 1 else step for size, step in zip(shape, strides_of(shape))]


def merged(shape, *strides):
    """``shape`` and ``strides`` with as few axes as say the same, one at least: the number of axes, sizes, strides."""
    axes = []
    for axis, size in enumerate(shape):
        steps = [each[axis] for each in strides]
        if size == 1:
            continue
        if axes and all([before == step * size for before, step in zip(axes[-1][1], steps)]):
            axes[-1] = axes[-1][0] * size, steps
        else:
            axes.append((size, steps))
    axes = axes or [(1, [0] * len(strides))]
    told = [len(axes)] + [size for size, _ in axes]
    for number in range(len(strides)):
        told += [steps[number] for _, steps in axes]
    return told


def walk(numbers, start, strides=1):
    """What ``merged`` said, out of ``numbers`` from ``start``: the sizes, and each of the ``strides``."""
    rank = numbers[start]
    places = range(start + 1, start + 1 + rank * (1 + strides), rank)
    return [numbers[place : place + rank] for place in places]


def rows(shape, strides):
    """Where each row along the last axis begins, in order."""
    count = len(shape) - 1
    index, place = [0] * count, 0
    while True:
        yield place
        axis = count - 1
        while axis >= 0:
            index[axis] += 1
            place += strides[axis]
            if index[axis] < shape[axis]:
                break
            place -= strides[axis] * shape[axis]
            index[axis] = 0
            axis -= 1
        if axis < 0:
            return


def _gather(_file, x, numbers):
    shape, strides = walk(numbers, 1)
    out, place, count, step = blank(numbers[0]), 0, shape[-1], strides[-1]
    for start in rows(shape, strides):
        if step == 1:
            out[place : place + count] = x[start : start + count]
            place += count
        else:
            for _ in range(count):
                out[place] = x[start]
                place, start = place + 1, start + step
    return out


def transpose(operator):
    """TRANSPOSE: axes in another order."""
    source, order = operator.tensor(0), operator.tensor(1).numbers()
    steps = strides_of(source.shape)
    shape = [source.shape[axis] for axis in order]
    return _gather, array("i", [source.size] + merged(shape, [steps[axis] for axis in order]))


def broadcast(operator):
    """BROADCAST_TO: repeated along axes of one."""
    target = operator.target()
    return _gather, array("i", [target.size] + merged(target.shape, spread(operator.tensor(0).shape, target.shape)))


def pad(operator):
    """PAD: with what stands for zero."""
    source, target = operator.tensor(0), operator.target()
    before = operator.tensor(1).numbers()[::2]
    steps = strides_of(target.shape)
    first = sum([step * count for step, count in zip(steps, before)])
    told = [target.size, target.zero, first]
    return _pad, array("i", told + merged(source.shape, strides_of(source.shape), steps))


def _pad(_file, x, numbers):
    size, zero, first = numbers[:3]
    shape, strides, steps = walk(numbers, 3, 2)
    out = blank(size, zero)
    count = shape[-1]
    if steps[-1] != 1 and count > 1:
        raise ValueError
    for start, place in zip(rows(shape, strides), rows(shape, steps)):
        out[first + place : first + place + count] = x[start : start + count]
    return out


def enlarge(operator):
    """RESIZE_NEAREST_NEIGHBOR: [1, h, w, C] to another height and width."""
    (_, height, width, channels), target = operator.tensor(0).shape, operator.target()
    corners, centers = operator.option(0), operator.option(1)
    lines = _nearest(height, target.shape[1], corners, centers)
    places = _nearest(width, target.shape[2], corners, centers)
    return _enlarge, target.size, width, channels, lines, places


def _nearest(size, wanted, corners, centers):
    """Which of ``size`` places each of ``wanted`` is nearest to, as LiteRT rounds it."""
    scale = fixed.quotient((size, 0), (wanted, 0), fixed.SINGLE)
    if corners and wanted > 1:
        scale = fixed.quotient((size - 1, 0), (wanted - 1, 0), fixed.SINGLE) if size > 1 else (0, 0)
    found = array("h", bytes(2 * wanted))
    for place in range(wanted):
        at = (2 * place + 1, -1) if centers else (place, 0)
        whole, exponent = fixed.product(at, scale, fixed.SINGLE) if at[0] and scale[0] else (0, 0)
        near = fixed.shifted(whole, -exponent) if corners else whole >> max(0, -exponent)
        found[place] = min(near << max(0, exponent), size - 1)
    return found


def _enlarge(_file, x, size, width, channels, lines, places):
    out, place = blank(size), 0
    for line in lines:
        for column in places:
            start = (line * width + column) * channels
            out[place : place + channels] = x[start : start + channels]
            place += channels
    return out
