from __future__ import annotations

import re

import pytest

from mas_edge.export.trace import trace_program
from mas_edge.job import Job, Optimizer, Task
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Program, Value, dump, load
from tests.learning.jobs import OWN, own_job, series_job

BATCH = 6
NUMBER = Task(name="t", kind="value", head=f"{OWN}:flat_head")


@pytest.fixture(scope="module")
def program() -> Program:
    job = series_job(optimizer=Optimizer(proximal_mu=0.1))
    return trace_program(job, "merged", [task.name for task in job.tasks])


def names(values: list[Value]) -> list[str]:
    return [value.name for value in values]


def test_inputs_and_outputs_are_those_of_the_contract(program: Program) -> None:
    samples = ["x", *(f"{kind}.{task}" for kind in ("y", "mask") for task in program.tasks)]
    expected = {
        "train_step": (
            ["weights", "momentum", "anchor", *samples, "task_weights", "hyper"], ["weights", "momentum", "losses"],
        ),
        "evaluate": (["weights", *samples], ["losses", "metrics"]),
        "affinity": (["weights", *samples, "hyper"], ["losses", "affinity"]),
        "infer": (["weights", "x"], [f"out.{task}" for task in program.tasks]),
    }  # fmt: skip
    assert {name: (names(m.inputs), names(m.outputs)) for name, m in program.methods.items()} == expected
    n, layout = len(program.tasks), program.layout
    shapes = {value.name: value.shape for m in program.methods.values() for value in [*m.inputs, *m.outputs]}
    assert shapes["weights"] == [layout.size]
    assert shapes["momentum"] == shapes["anchor"] == [layout.trainable]
    assert (shapes["x"], shapes["hyper"], shapes["task_weights"]) == ([BATCH, 2, 16], [4], [n])
    assert (shapes["losses"], shapes["metrics"], shapes["affinity"]) == ([n], [n], [n, n])
    assert (shapes["y.next"], shapes["mask.next"], shapes["mask.places"]) == ([BATCH, 2, 4], [BATCH, 2, 4], [BATCH])


def test_targets_tell_a_device_what_to_feed(program: Program) -> None:
    places = program.targets["places"]
    assert (places.shape, places.dtype, places.classes, places.ignore_index) == ([16], "int64", 4, 255)
    assert program.targets["next"].mask_shape == [2, 4]
    assert program.targets["label"].mask_shape == []


def test_a_program_is_the_same_every_time_and_names_no_place_of_this_machine(program: Program) -> None:
    again = trace_program(series_job(), "merged", program.tasks, ["evaluate"])
    assert again.methods["evaluate"] == program.methods["evaluate"]
    assert load(dump(program)) == program
    text = str(program)
    assert "cpu" not in text
    assert "/" not in text


def test_forward_calls_know_their_module(program: Program) -> None:
    nodes = program.methods["evaluate"].nodes
    convolution = next(node for node in nodes if node.op == "aten.convolution.default")
    assert convolution.module == "encoder.0.0"
    assert {node.module for node in nodes if node.op == "aten.addmm.default"} == {
        f"heads.{name}.linear" for name in ("label", "amount", "next", "down")
    }


def test_nothing_is_kept_that_no_result_needs(program: Program) -> None:
    for method in program.methods.values():
        used = set(re.findall(r"'ref': '(\w+)'", str(method.nodes))) | set(method.results)
        changing = {node.name for node in method.nodes if re.search(r"\w_\.", node.op)}
        assert {node.name for node in method.nodes} <= used | changing
        assert not any(node.op.startswith(("aten.detach", "aten.alias")) for node in method.nodes)


def test_constants_travel_and_counters_do_not() -> None:
    program = trace_program(own_job("depthwise", [NUMBER], [3, 4, 4]), "g", ["t"], ["train_step"])
    constants = program.methods["train_step"].constants
    assert sorted((constant.dtype, constant.shape) for constant in constants) == [("float32", []), ("int64", [4])]
    assert not any(node.op == "aten.add_.Tensor" for node in program.methods["train_step"].nodes)


def test_methods_can_be_left_out() -> None:
    assert list(trace_program(series_job(), "g", ["amount"], ["evaluate"]).methods) == ["evaluate"]


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("foreign", r"module 'encoder\.0' .* uses an operator .* 'mas_edge_tests\.twice\.default' is not allowed"),
        ("in_place", r"module 'encoder\.0' of the network changes its input .* in place \(aten\.mul_\.Tensor\)"),
        ("branching", r"tracing 'evaluate' failed in the module 'encoder\.0'"),
    ],
)
def test_a_network_that_cannot_become_a_program_is_refused_by_module(encoder: str, reason: str) -> None:
    job: Job = own_job(encoder, [NUMBER], [3, 4, 4])
    with pytest.raises(JobError, match=reason):
        trace_program(job, "g", ["t"], ["evaluate"])
