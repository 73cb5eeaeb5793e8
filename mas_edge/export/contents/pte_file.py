"""An ExecuTorch file (.pte), read by its FlatBuffers schema (program.fbs, identifier ET12)."""

from __future__ import annotations

import math
from collections import Counter

from mas_edge.export.contents.listing import Contents, MethodContents, Tensor
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.flatbuffer import Table, item_of, root_of

# By ExecuTorch's number of the type: its name and the bytes of one item.
SCALAR_TYPES = {
    0: ("uint8", 1), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("int64", 8), 5: ("float16", 2),
    6: ("float32", 4), 7: ("float64", 8), 11: ("bool", 1), 15: ("bfloat16", 2),
}  # fmt: skip
# Field numbers of program.fbs.
VERSION, PLANS, CONSTANT_BUFFERS, DELEGATE_DATA, SEGMENTS, CONSTANT_SEGMENT = 0, 1, 2, 3, 4, 5
NAME, VALUES, INPUTS, OUTPUTS, CHAINS, OPERATORS, DELEGATES, MEMORY = 0, 2, 3, 4, 5, 6, 7, 8
KIND, CONTENT = 0, 1  # of a union
TENSOR = 5
TENSOR_TYPE, TENSOR_SIZES, TENSOR_CONSTANT = 0, 2, 5
KERNEL_CALL, DELEGATE_CALL = 1, 2


def read_pte(data: bytes) -> Contents:
    """What is in it. Raises ProgramError if it is damaged."""
    try:
        root = root_of(data)
        plans = [_plan(plan) for plan in root.tables(PLANS)]
        segments = [segment.number(1, "Q") for segment in root.tables(SEGMENTS)]
        inline = sum(part.length(0) for field in (CONSTANT_BUFFERS, DELEGATE_DATA) for part in root.tables(field))
        end = max((segment.number(0, "Q") + segment.number(1, "Q") for segment in root.tables(SEGMENTS)), default=0)
        _require_end(data, end)
        memory = {plan.text(NAME): sum(plan.numbers(MEMORY, "q")) for plan in root.tables(PLANS)}
    except ValueError as error:
        message = f"is a damaged or truncated ExecuTorch file: {error}"
        raise ProgramError(message) from None
    return Contents(
        kind="ExecuTorch file",
        engine="executorch",
        size=len(data),
        sha256=digest_of(data),
        facts={
            "constants": f"{sum(segments) + inline} bytes, shared by the methods",
            "memory": ", ".join(f"{name} {size} bytes" for name, size in memory.items()) or "none",
        },
        methods=plans,
    )


def _require_end(data: bytes, end: int) -> None:
    """Segments lie behind the table, at offsets that begin where the extended header says."""
    begin = int.from_bytes(data[24:32], "little") if data[8:12] == b"eh00" else 0
    if begin + end > len(data):
        message = f"its segments end at byte {begin + end}, the file has {len(data)}"
        raise ValueError(message)


def _plan(plan: Table) -> MethodContents:
    values = plan.tables(VALUES)
    operators, delegates = plan.tables(OPERATORS), plan.tables(DELEGATES)
    names = [f"{operator.text(0)}.{operator.text(1)}".rstrip(".") for operator in operators]
    calls = Counter[str]()
    for chain in plan.tables(CHAINS):
        for instruction in chain.tables(2):
            kind, call = instruction.number(KIND, "B"), instruction.table(CONTENT)
            place = call.number(0, "i") if call is not None else 0
            if kind == KERNEL_CALL:
                calls[item_of(names, place)] += 1
            elif kind == DELEGATE_CALL:
                calls[f"delegate {item_of(delegates, place).text(0)}"] += 1
    return MethodContents(
        name=plan.text(NAME),
        inputs=[_tensor(f"input {i}", item_of(values, place)) for i, place in enumerate(plan.numbers(INPUTS, "i"))],
        outputs=[_tensor(f"output {i}", item_of(values, place)) for i, place in enumerate(plan.numbers(OUTPUTS, "i"))],
        operators=dict(calls.most_common()),
        constants_bytes=_constants(values),
    )


def _constants(values: list[Table]) -> int:
    """The bytes of the constants that a method names, each once; a delegate's are its own."""
    held: dict[int, int] = {}
    for value in values:
        tensor = value.table(CONTENT) if value.number(KIND, "B") == TENSOR else None
        if tensor is not None and (constant := tensor.number(TENSOR_CONSTANT, "I")):
            _, size = SCALAR_TYPES.get(tensor.number(TENSOR_TYPE, "b"), ("?", 0))
            held[constant] = size * math.prod(tensor.numbers(TENSOR_SIZES, "i"))
    return sum(held.values())


def _tensor(name: str, value: Table) -> Tensor:
    tensor = value.table(CONTENT)
    if value.number(KIND, "B") != TENSOR or tensor is None:
        return Tensor(name, "a number or a list", [])
    dtype, _ = SCALAR_TYPES.get(tensor.number(TENSOR_TYPE, "b"), ("?", 0))
    return Tensor(name, dtype, list(tensor.numbers(TENSOR_SIZES, "i")))
