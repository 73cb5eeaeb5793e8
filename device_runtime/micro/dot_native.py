# mypy: ignore-errors
"""The inner loop of every layer in machine code, which MicroPython makes where its port has an emitter for it.

The same as ``dot``, of which it takes the place; what has no emitter refuses to compile this file.
"""

import micropython


@micropython.viper
def dot(x: ptr8, start: int, kernel: ptr8, tap: int, count: int, zero: int) -> int:
    """The sum of ``(x[start + i] - zero) * kernel[tap + i]`` over ``count`` integers."""
    total = 0
    end = start + count
    while start < end:
        total += (((x[start] ^ 128) - 128) - zero) * ((kernel[tap] ^ 128) - 128)
        start += 1
        tap += 1
    return total
