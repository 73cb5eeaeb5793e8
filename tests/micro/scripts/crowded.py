# mypy: ignore-errors
"""The ``infer`` of a board whose firmware does other work as well, and leaves 48 KB of its memory free."""

import gc

from device_runtime.micro import int8

LEFT = 48 * 1024  # a small model fits into it, one of a hundred steps does not
OWN = []

gc.collect()
while gc.mem_free() > LEFT:
    OWN.append(bytearray(1024))

load, look = int8.load, int8.look
