"""What is written is what ExecuTorch's own reader reads."""

from __future__ import annotations

import importlib
import struct
import warnings
from typing import Any

import pytest

from mas_edge.export.executorch.flat import (
    ALIGNMENT,
    BOOL_LIST,
    IDENTIFIER,
    INT_LIST,
    OPTIONAL_TENSORS,
    SEGMENT_ALIGNMENT,
    TENSOR_LIST,
    Call,
    ListValue,
    Plan,
    TensorValue,
    write,
)

BLOCK = (1 << 32) + 4096  # more than 32 bits
CONSTANTS = [b"first", bytes(range(40)), b""]
PLAN = Plan(
    "train_step",
    [
        TensorValue((2, 3), "float32", 32), TensorValue((5,), "bool", constant=1), TensorValue((), "int64", None),
        TensorValue((4,), "float64", 1 << 32), TensorValue((10,), "float32", constant=2),
        None, True, False, -7, 2**40, 0.5, "floor", ListValue(INT_LIST, (8, 9)), ListValue(TENSOR_LIST, (0, 1)),
        ListValue(OPTIONAL_TENSORS, (-1, 0)), ListValue(BOOL_LIST, (1, 0)),
    ],
    [0, 2], [3], [("aten::add", "out"), ("aten::cat", "out")],
    [Call(0, [0, 1, 8, 3, 3]), Call(1, [13, 8, 3, 3])], BLOCK,
)  # fmt: skip


@pytest.fixture(scope="module")
def program() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = importlib.import_module("executorch.exir._serialize._program")
        return reader.deserialize_pte_binary(write([PLAN, Plan("evaluate")], CONSTANTS)).program


def test_methods_inputs_outputs_and_calls_come_back(program: Any) -> None:
    assert [plan.name for plan in program.execution_plan] == ["train_step", "evaluate"]
    plan = program.execution_plan[0]
    assert (plan.inputs, plan.outputs, plan.non_const_buffer_sizes) == ([0, 2], [3], [0, BLOCK])
    assert [(operator.name, operator.overload) for operator in plan.operators] == PLAN.operators
    calls = [instruction.instr_args for instruction in plan.chains[0].instructions]
    assert [(call.op_index, call.args) for call in calls] == [(call.operator, call.arguments) for call in PLAN.calls]
    assert plan.delegates == []


def test_every_kind_of_value_comes_back(program: Any) -> None:
    found = [value.val for value in program.execution_plan[0].values]
    assert [type(value).__name__ for value in found] == (
        ["Tensor"] * 5 + ["Null", "Bool", "Bool", "Int", "Int", "Double", "String"]
        + ["IntList", "TensorList", "OptionalTensorList", "BoolList"]
    )  # fmt: skip
    numbers = [found[6].bool_val, found[7].bool_val, found[8].int_val, found[9].int_val, found[10].double_val]
    assert numbers == [True, False, -7, 2**40, 0.5]
    assert found[11].string_val == "floor"
    assert [list(value.items) for value in found[12:]] == [[8, 9], [0, 1], [-1, 0], [True, False]]


def test_a_tensor_lies_in_the_block_in_a_constant_or_with_the_caller(program: Any) -> None:
    tensors = [value.val for value in program.execution_plan[0].values[:5]]
    assert [tensor.sizes for tensor in tensors] == [[2, 3], [5], [], [4], [10]]
    assert [list(tensor.dim_order) for tensor in tensors] == [[0, 1], [0], [], [0], [0]]
    assert [tensor.scalar_type.name for tensor in tensors] == ["FLOAT", "BOOL", "LONG", "DOUBLE", "FLOAT"]
    assert [tensor.data_buffer_idx for tensor in tensors] == [0, 1, 0, 0, 2]
    places = [tensor.allocation_info for tensor in tensors]
    assert [place is None for place in places] == [False, True, True, False, True]
    assert (places[0].memory_id, places[0].memory_offset_low, places[0].memory_offset_high) == (1, 32, 0)
    assert (places[3].memory_offset_low, places[3].memory_offset_high) == (0, 1)


def test_constants_come_back(program: Any) -> None:
    for buffer, data in zip(program.constant_buffer[1:], CONSTANTS, strict=True):
        assert bytes(buffer.storage)[: len(data)] == data


def test_the_file_says_what_it_is_and_where_its_segment_begins() -> None:
    data = write([PLAN], CONSTANTS)
    assert data[4:8] == IDENTIFIER
    magic, length, size, begin, room = struct.unpack_from("<4sIQQQ", data, 8)
    assert (magic, length) == (b"eh00", 32)
    assert (begin % SEGMENT_ALIGNMENT, room % ALIGNMENT) == (0, 0)
    assert size <= begin
    assert begin + room == len(data)
    assert data[begin:].startswith(b"first")


def test_a_file_without_constants_has_no_segment() -> None:
    data = write([Plan("m")], [])
    _, _, size, begin, room = struct.unpack_from("<4sIQQQ", data, 8)
    assert (size, begin, room) == (len(data), 0, 0)


def test_the_same_plans_give_the_same_bytes() -> None:
    assert write([PLAN], CONSTANTS) == write([PLAN], CONSTANTS)
