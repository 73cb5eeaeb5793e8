# mypy: ignore-errors
"""The inner loop of every layer, in MicroPython's bytecode."""


def dot(x, start, kernel, tap, count, zero):
    """The sum of ``(x[start + i] - zero) * kernel[tap + i]`` over ``count`` integers."""
    total = 0
    for place in range(start, start + count):
        total += (x[place] - zero) * kernel[tap]
        tap += 1
    return total
