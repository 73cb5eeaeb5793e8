"""Small .pte files for tests to break: sum = x + [10, 20] in a method ``m``, and a program that holds one."""

from __future__ import annotations

import struct
from collections.abc import Callable

from mas_edge.export.executorch.flat import Call, Plan, TensorValue, write
from mas_edge.export.executorch.flat import Value as PteValue
from mas_edge.protocol.program import FORMAT, Method, Program, Value
from mas_edge.protocol.weights import Layout

ADDED = struct.pack("<2f", 10, 20)
ADD, X, C, ALPHA, OUT = 0, 0, 1, 2, 3  # the operator and the values of the call
Change = Callable[[Plan], object]


def plan(name: str = "m") -> Plan:
    values: list[PteValue] = [TensorValue((2,), "float32"), TensorValue((2,), "float32", constant=1), 1,
              TensorValue((2,), "float32", offset=16)]  # fmt: skip
    return Plan(name, values, [X], [OUT], [("aten::add", "out")], [Call(ADD, [X, C, ALPHA, OUT, OUT])], 32)


def packed(change: Change = lambda _plan: None, name: str = "m") -> bytes:
    """The file, its plan changed by ``change`` before it is written."""
    made = plan(name)
    change(made)
    return write([made], [ADDED])


def program(file: bytes) -> Program:
    """A program that says of its file: ``x`` [2] goes into ``m``, ``sum`` [2] comes out."""
    method = Method([Value("x", [2], "float32")], [Value("sum", [2], "float32")], [], [])
    return Program(
        format=FORMAT, group="g", tasks=["t"], batch_size=1, input_shape=[2], targets={}, layout=Layout([]),
        methods={"m": method}, engine="executorch", file=file,
    )  # fmt: skip
