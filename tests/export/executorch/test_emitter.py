from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from device_runtime.engines.base import Arrays
from device_runtime.engines.executorch_engine import ExecutorchEngine
from mas_edge.export.executorch import emit
from mas_edge.export.graph import method_of
from mas_edge.export.trace import portable_operators, trace_program
from mas_edge.job import Network, Task
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import FORMAT, Program, Value
from mas_edge.protocol.weights import Layout
from tests.learning.jobs import KINDS, job, series_job

TASK = Task(name="label", kind="class", classes=3, head="tests.export.emitted.networks:pooled_head")
Function = Callable[..., object]


def traced(function: Function, *tensors: Tensor) -> Program:
    inputs = [Value(f"i{i}", list(t.shape), str(t.dtype).removeprefix("torch.")) for i, t in enumerate(tensors)]

    def results(*arguments: Tensor) -> tuple[object, ...]:
        found = function(*arguments)
        return found if isinstance(found, tuple) else (found,)

    with portable_operators():
        graph = make_fx(results, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    names = [f"r{i}" for i in range(len(graph.graph.output_node().args[0]))]  # type: ignore[arg-type]
    return Program(
        format=FORMAT, group="g", tasks=[], batch_size=1, input_shape=[1], targets={}, layout=Layout([]),
        methods={"m": method_of(graph, inputs, names)},
    )  # fmt: skip


def run(function: Function, *tensors: Tensor) -> Arrays:
    program = emit(traced(function, *tensors))
    return ExecutorchEngine().load(program).run("m", {f"i{i}": tensor.numpy() for i, tensor in enumerate(tensors)})


@pytest.fixture(scope="module")
def small() -> Program:
    return trace_program(series_job(KINDS[:1]), "g", ["label"], ["evaluate", "infer"])


def test_the_same_program_gives_the_same_bytes(small: Program) -> None:
    assert emit(small).file == emit(small).file


def test_nothing_but_file_and_engine_change(small: Program) -> None:
    program = emit(small)
    for name in set(Program.__struct_fields__) - {"engine", "file", "methods"}:
        assert getattr(program, name) == getattr(small, name), name
    for name, method in program.methods.items():
        assert msgspec.structs.replace(method, results=[], nodes=[], constants=[]) == method
        assert (method.inputs, method.outputs) == (small.methods[name].inputs, small.methods[name].outputs)


def test_weights_are_not_in_the_file() -> None:
    """One file serves every round: what grows with the network is the input."""
    wide = series_job(KINDS[:1])
    narrow_size = len(emit(trace_program(wide, "g", ["label"], ["infer"])).file)
    wide.network.encoder_args["width"] = 64
    assert len(emit(trace_program(wide, "g", ["label"], ["infer"])).file) < 1.05 * narrow_size


A, B, C = torch.arange(6.0).view(2, 3), torch.arange(6.0).view(2, 3) * 10, torch.arange(6.0).view(2, 3) * 100


def test_inputs_of_one_shape_are_not_taken_for_each_other() -> None:
    got = run(lambda a, b, c: (a - b + c, torch.cat([c, a, b])), A, B, C)
    np.testing.assert_array_equal(got["r0"], (A - B + C).numpy())
    np.testing.assert_array_equal(got["r1"], torch.cat([C, A, B]).numpy())


ALIASES: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "an input": lambda a: (a,),
    "a view of an input": lambda a: (a.t(), a[0], a.view(-1)),
    "one result twice": lambda a: (a * 2,) * 2,
    "a result and a view of it": lambda a: (lambda b: (b, b[1], b.t()))(a * 2),
    "a constant": lambda a: (torch.tensor([1.0, 2.0]).expand(3, 2), a),
}


@pytest.mark.parametrize("case", ALIASES)
def test_no_result_shares_memory_with_an_input_or_another_result(case: str) -> None:
    program = emit(traced(ALIASES[case], A))
    runner, given = ExecutorchEngine().load(program), A.clone().numpy()
    first = runner.run("m", {"i0": given})
    for name, expected in zip(first, ALIASES[case](A), strict=True):
        np.testing.assert_array_equal(first[name], expected.numpy())
    kept = {name: array.copy() for name, array in first.items()}
    runner.run("m", {"i0": -given - 1})
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        array += 1
    np.testing.assert_array_equal(given, A.numpy())
    again = runner.run("m", {"i0": given})
    for name, array in again.items():
        np.testing.assert_array_equal(array, kept[name])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda a: a.sum(), A.sum()),
        (lambda a: a[:0].sum() + a[:, 1:1].sum(), torch.tensor(0.0)),
        (lambda a: torch.zeros(0) + a[0, 0], torch.zeros(0)),
        (lambda a: a.expand(2, 2, 3).reshape(4, 3), A.repeat(2, 1)),
        (lambda a: a.t().contiguous().view(-1)[1:5:2], A.t().reshape(-1)[1:5:2]),
        (lambda a: a.clamp(1, 4), A.clamp(1, 4)),  # whole numbers where the kernel takes any
    ],
)
def test_corners_of_views_and_sizes(function: Function, expected: Tensor) -> None:
    np.testing.assert_allclose(run(function, A)["r0"], expected.numpy())


def test_a_constant_that_many_methods_use_is_in_the_file_once() -> None:
    table = torch.arange(4096.0)
    one = traced(lambda a: a[0, 0] + table, A)
    both = msgspec.structs.replace(one, methods={"m": one.methods["m"], "n": one.methods["m"]})
    assert len(emit(both).file) - len(emit(one).file) < 4096


def test_an_unknown_operator_is_refused_by_its_name_with_module_and_a_way_out() -> None:
    made = job([TASK], [3, 4, 4], Network(encoder="tests.export.emitted.networks:sorting"))
    with pytest.raises(JobError, match=r"module 'encoder\.\d' of the network uses aten\.sort.* on ExecuTorch: use max"):
        emit(trace_program(made, "g", ["label"], ["infer"]))


def test_a_type_that_the_engine_has_not_is_refused() -> None:
    with pytest.raises(JobError, match="computes in float16; on ExecuTorch: float32"):
        emit(traced(lambda a: a.half() + 1, A))
