from __future__ import annotations

import importlib
import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime.engines.pte_kernels import ARGUMENTS
from device_runtime.engines.pte_model import check_pte
from mas_edge.export.executorch.flat import OPTIONAL_TENSORS, TENSOR_LIST, Call, ListValue, Plan, TensorValue, Value
from mas_edge.export.executorch.kernels import KERNELS
from mas_edge.protocol.errors import ProgramError
from tests.device_runtime.pte_files import ADD, ALPHA, OUT, C, X, packed

XNNPACK = Path(__file__).parents[1] / "export" / "contents" / "data" / "pte_xnnpack.bytes"
LIST = ListValue(12 - 5, (ALPHA,))  # integers


def value(place: int, made: Value) -> Callable[[Plan], object]:
    return lambda plan: plan.values.__setitem__(place, made)


def call(operator: int, *arguments: int) -> Callable[[Plan], object]:
    return lambda plan: plan.calls.__setitem__(0, Call(operator, list(arguments)))


def kernel(name: str, overload: str) -> Callable[[Plan], object]:
    return lambda plan: plan.operators.__setitem__(0, (name, overload))


def arena(size: int) -> Callable[[Plan], object]:
    return lambda plan: setattr(plan, "arena_bytes", size)


def listed(made: ListValue, name: str, *arguments: int) -> Callable[[Plan], object]:
    def change(plan: Plan) -> None:
        plan.values.append(made)
        plan.operators[0] = (name, "out")
        call(ADD, *arguments)(plan)

    return change


TENSOR = (2,), "float32"
BROKEN: dict[str, tuple[Callable[[Plan], object], str]] = {
    "an argument that there is not": (call(ADD, X, C, ALPHA, 9, OUT), "names item 9 of 4"),
    "a negative argument": (call(ADD, -1, C, ALPHA, OUT, OUT), "names item -1 of 4"),
    "an operator that there is not": (call(3, X, C, ALPHA, OUT, OUT), "names item 3 of 1"),
    "an argument too few": (call(ADD, X, C, ALPHA), r"aten::add.out with 3 arguments, it takes 4"),
    "a number for a tensor": (call(ADD, X, ALPHA, ALPHA, OUT, OUT), r"of the kind 2, where one of \[5\]"),
    "a tensor for a number": (call(ADD, X, C, C, OUT, OUT), r"of the kind 5, where one of \[2, 3, 4\]"),
    "a text for a number": (value(ALPHA, "one"), "of the kind 6, where"),
    "a kernel that is wrong": (
        kernel("aten::max_pool2d_with_indices_backward", "grad_input"), "calls aten::max_pool2d_with_indices_backward",
    ),
    "a kernel of somebody else": (kernel("llama::sdpa", "out"), "calls llama::sdpa.out, which is none"),
    "a constant that is written": (call(ADD, X, C, ALPHA, C, C), "writes to value 1"),
    "a constant that there is not": (value(C, TensorValue(*TENSOR, constant=2)), "names item 2 of 2"),
    "a constant beyond its segment": (value(C, TensorValue((5,), "float32", constant=1)), "of 20 bytes does not end"),
    "a tensor beyond its memory": (value(OUT, TensorValue(*TENSOR, offset=28)), r"ends at byte 36 of memory 1"),
    "a tensor far beyond": (value(OUT, TensorValue(*TENSOR, offset=1 << 40)), r"ends at byte 1099511627784"),
    "a negative size": (value(OUT, TensorValue((-2,), "float32", offset=16)), r"the shape \[-2\]"),
    "a huge size": (value(OUT, TensorValue((2**31 - 1,) * 9, "float32", offset=16)), r"ends at byte \d{50}"),
    "more axes than the runtime has": (value(OUT, TensorValue((1,) * 17, "float32")), "a tensor of the type 6"),
    "memory that nothing uses": (arena(1 << 33), "memory of 8589934592 bytes, of which tensors take 24"),
    "memory that no machine has": (arena(1 << 60), r"memory of \[0, 1152921504606846976\] bytes"),
    "negative memory": (arena(-64), r"memory of \[0, -64\] bytes"),
    "an input that there is not": (lambda plan: plan.inputs.append(77), "names item 77 of 4"),
    "an input that is a number": (lambda plan: plan.inputs.append(ALPHA), "of the kind 2"),
    "an input that is a constant": (lambda plan: plan.inputs.append(C), "writes to value 1"),
    "an output that there is not": (lambda plan: plan.outputs.append(77), "names item 77 of 4"),
    "a list of integers that holds a tensor": (
        listed(ListValue(7, (X,)), "aten::permute_copy", X, 4, OUT), "integers that holds something else",
    ),
    "a list that names itself": (listed(ListValue(TENSOR_LIST, (4,)), "aten::cat", 4, ALPHA, OUT), "item 4 of 4"),
    "a list of tensors that holds a number": (
        listed(ListValue(TENSOR_LIST, (ALPHA,)), "aten::cat", 4, ALPHA, OUT), "list of tensors that holds value 2",
    ),
    "a list of tensors with a gap": (
        listed(ListValue(TENSOR_LIST, (X, -1)), "aten::cat", 4, ALPHA, OUT), "holds value -1",
    ),
    "memory of nobody": (value(OUT, TensorValue(*TENSOR, offset=None)), "the tensor 3 has no memory where it is used"),
    "an input of the caller that is written": (
        lambda plan: (value(X, TensorValue(*TENSOR, offset=None))(plan), call(ADD, X, C, ALPHA, X, X)(plan)),
        "writes to value 0, which is a constant or the caller's",
    ),
    "a method without a name": (lambda plan: setattr(plan, "name", ""), r"the methods are \[''\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_does_not_hold_together_is_refused(case: str) -> None:
    change, reason = BROKEN[case]
    with pytest.raises(ProgramError, match=rf"^it holds a damaged ExecuTorch file: .*{reason}"):
        check_pte(packed(change), "it")


def test_what_holds_together_is_not() -> None:
    check_pte(packed(), "it")
    check_pte(packed(listed(ListValue(TENSOR_LIST, (X, C)), "aten::cat", 4, ALPHA, OUT)), "it")
    check_pte(packed(value(ALPHA, 1.5)), "it")
    check_pte(packed(value(X, TensorValue(*TENSOR, offset=None))), "it")
    check_pte(packed(value(ALPHA, True)), "it")


def test_a_tensor_may_be_missing_only_where_the_kernel_allows_it() -> None:
    def index(items: tuple[int, ...]) -> bytes:
        def change(plan: Plan) -> None:
            plan.values.append(ListValue(OPTIONAL_TENSORS, items))
            plan.operators[0] = ("aten::index", "Tensor_out")
            plan.calls[0] = Call(ADD, [X, 4, OUT])

        return packed(change)

    check_pte(index((-1, X)), "it")
    with pytest.raises(ProgramError, match="holds value -2"):
        check_pte(index((-2, X)), "it")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not an ExecuTorch file: expected b'ET12' at byte 4, got b''"),
        (b"\0\0\0\0TFL3", "is not an ExecuTorch file"),
        (b"\0\0\0\0ET12", "damaged ExecuTorch file"),
        (b"\xff\xff\xff\xffET12" + bytes(64), "damaged ExecuTorch file: .* lies behind the file's end"),
        (packed()[:60], "a program of .* bytes, segments from byte .*, in 60 bytes"),
        (packed()[:-1], "a segment from byte"),
    ],
)
def test_what_is_foreign_or_cut_off_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProgramError, match=f"^it .*{reason}"):
        check_pte(data, "it")


def test_a_delegate_other_than_xnnpack_is_refused() -> None:
    data = XNNPACK.read_bytes()
    check_pte(data, "it")
    with pytest.raises(ProgramError, match=r"the delegate 'OpenvBackend!!'; expected XnnpackBackend"):
        check_pte(data.replace(b"XnnpackBackend", b"OpenvBackend!!"), "it")


@pytest.mark.parametrize("data", [packed(), XNNPACK.read_bytes()], ids=["emitted", "XNNPACK"])
def test_whatever_bytes_are_damaged_the_answer_is_one_line_or_none(data: bytes) -> None:
    refused = 0
    for seed in range(1500):
        chance = random.Random(seed)
        changed = bytearray(data)
        for _ in range(chance.choice([1, 2, 8])):
            changed[chance.randrange(8, len(data))] = chance.randrange(256)
        try:
            check_pte(bytes(changed), "it")
        except ProgramError as error:
            refused += 1
            assert str(error).startswith("it "), seed
            assert "\n" not in str(error)
    assert refused > 300


def test_the_table_of_kernels_is_that_of_the_schemas_and_holds_all_that_is_emitted() -> None:
    torch = importlib.import_module("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("executorch.exir")  # which brings the operators of dim_order_ops
    letters = {
        "Tensor": "T", "number": "N", "int": "I", "bool": "B", "float": "F", "str": "Z", "List[int]": "L",
        "List[float]": "D", "List[bool]": "A", "List[Tensor]": "X", "List[Optional[Tensor]]": "Y",
    }  # fmt: skip
    for (name, overload), arguments in ARGUMENTS.items():
        space, _, operator = name.partition("::")
        if space == "executorch_prim":  # et_view: the runtime's own, without a schema
            continue
        schema = getattr(getattr(getattr(torch.ops, space), operator), overload)._schema
        expected = ""
        for argument in schema.arguments:
            kind = str(argument.type)
            inner = kind.removeprefix("Optional[").removesuffix("]") if kind.startswith("Optional[") else kind
            inner = next(known for known in letters if known == inner or known == inner + "]")
            letter = letters[inner] if inner == kind else letters[inner].lower()
            expected += letter if not argument.is_out else "P" if kind == "List[Tensor]" else "O"
        assert arguments == expected, (name, overload)
    assert {f"aten::{kernel}" for kernel in KERNELS} <= {".".join(kernel) for kernel in ARGUMENTS}
    assert not [name for name, _ in ARGUMENTS if "backward" in name]
