"""The peak of what is alive while a traced method runs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from mas_edge.export.gate import released
from mas_edge.export.memory import peak_bytes
from mas_edge.export.trace import trace_program
from mas_edge.protocol import program as program_format
from tests.device_runtime.tiny_job import TASKS, tiny_job

KB = 1024
N = 256  # float32 numbers: one KB


def traced(function: Callable[..., object], *arguments: Tensor) -> fx.Graph:
    graph: fx.Graph = make_fx(function, tracing_mode="fake")(*arguments).graph
    graph.eliminate_dead_code()
    return graph


def ones(n: int = N) -> Tensor:
    return torch.ones(n)


def chain(x: Tensor) -> Tensor:
    for _ in range(10):
        x = x.sin()
    return x


def kept(x: Tensor) -> Tensor:
    steps = [x]
    for _ in range(10):
        steps.append(steps[-1].sin())
    return torch.stack(steps).sum(0)


CASES: dict[str, tuple[Callable[[Tensor], object], float]] = {
    "an input that is given back": (lambda x: x, 1),
    "one call: input and result": (lambda x: x.sin(), 2),
    "a chain holds its input, what it comes from and what it makes": (chain, 3),
    "what is needed later is held": (kept, 1 + 10 + 11),  # the input, ten sines, and the stack of all
    "views are free": (lambda x: x.view(16, 16).t()[2:, :3].expand(5, 14, 3), 1),
    "a view keeps what it looks at": (lambda x: (x.sin()[:1], x.cos()), 3),
    "a copy of a view is as large as the view": (lambda x: x[: N // 2].clone(), 1.5),
    "a change in place takes nothing": (lambda x: x.sin().add_(1).mul_(2), 2),
    "several results of one call": (lambda x: torch.split(x.sin(), N // 2), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_the_peak_is_what_is_alive_at_the_fullest_moment(case: str) -> None:
    function, expected = CASES[case]
    assert peak_bytes(traced(function, ones())) == expected * KB


def test_every_type_counts_by_its_size() -> None:
    assert peak_bytes(traced(lambda x: (x > 0, x.to(torch.float64)), ones())) == (1 + 0.25 + 2) * KB


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["sin", "add", "view", "double"]), st.integers(0, 9)), min_size=1, max_size=12)
)
def test_the_peak_lies_between_the_largest_call_and_everything_together(steps: list[tuple[str, int]]) -> None:
    def run(x: Tensor) -> Tensor:
        values = [x]
        for kind, choice in steps:
            value = values[choice % len(values)]
            match kind:
                case "sin":
                    made = value.sin()
                case "add":
                    made = value + value.mean()
                case "view":
                    made = value.view(-1, 2).t()
                case _:
                    made = torch.cat([value.reshape(-1), value.reshape(-1)])
            values.append(made.reshape(-1))
        return values[-1]

    graph = traced(run, ones(16))
    storages: dict[int, int] = {}
    largest = 0
    for node in graph.nodes:

        def held(each: fx.Node) -> dict[int, int]:
            value = each.meta.get("val")
            found = value.untyped_storage() if isinstance(value, Tensor) else None
            return {} if found is None else {found._cdata: found.nbytes()}

        call = held(node)
        for used in node.all_input_nodes:
            call |= held(used)
        largest = max(largest, sum(call.values()))
        storages |= call
    assert largest <= peak_bytes(graph) <= sum(storages.values())


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_method_of_a_released_program_says_what_it_holds_and_more_at_a_larger_batch(engine: str) -> None:
    found = []
    for batch in (2, 64):
        job = tiny_job(batch)
        program = program_format.load(released(trace_program(job, "merged", TASKS), engine, job, None).program)
        assert all(method.memory_bytes > 4 * program.layout.size for method in program.methods.values())
        found.append({name: method.memory_bytes for name, method in program.methods.items()})
    assert all(found[0][name] < found[1][name] for name in found[0])


def test_programs_of_before_say_nothing_and_still_load() -> None:
    program = trace_program(tiny_job(), "merged", TASKS, ["evaluate"])
    old = msgspec.to_builtins(program)
    del old["methods"]["evaluate"]["memory_bytes"]
    assert msgspec.convert(old, program_format.Program).methods["evaluate"].memory_bytes == 0
