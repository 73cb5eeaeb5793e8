"""Programs for boards: released only if they do what the network does, refused by name where a board cannot."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from mas_edge.export.gate import released
from mas_edge.export.heads import MICRO, emit
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import verify
from mas_edge.job import Job
from mas_edge.learning.network import build
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.program import Node, Program, load
from tests.e2e.fleet import TASKS, tiny_job

TRACED = ("train_step", "evaluate")


def traced(job: Job) -> Program:
    return trace_program(job, "merged", [task.name for task in job.tasks], TRACED)


def with_optimizer(**changed: float) -> Job:
    job = tiny_job()
    return msgspec.structs.replace(job, optimizer=msgspec.structs.replace(job.optimizer, **changed))


@pytest.mark.parametrize("clip_norm", [0.0, 0.1], ids=["a gradient as it is", "a gradient that is clipped"])
def test_a_board_evaluates_and_trains_its_heads_as_the_network_does(clip_norm: float) -> None:
    job = with_optimizer(clip_norm=clip_norm)
    found = released(traced(job), MICRO, job, None)
    program = load(found.program)
    assert (program.engine, program.tasks, program.layout) == (MICRO, list(TASKS), traced(job).layout)
    assert {comparison.output for comparison in found.comparisons} == {"losses", "metrics"}
    assert len(found.program) < 2048  # it is read on a board


@pytest.mark.parametrize("op", ["relu", "l1"])
def test_a_program_that_does_not_do_what_its_network_does_is_not_released(op: str) -> None:
    job = tiny_job()
    program = emit(traced(job), job)
    instead: dict[str, tuple[str, dict[str, Any]]] = {"relu": ("mean", {"length": 1}), "l1": ("l2", {"task": "mean"})}
    other, told = instead[op]
    [place] = [i for i, node in enumerate(program.methods["evaluate"].nodes) if node.op == op][:1]
    node = program.methods["evaluate"].nodes[place]
    program.methods["evaluate"].nodes[place] = Node(node.name, other, node.args, told)
    with pytest.raises(ServerError, match="not released"):
        verify(program, build(job, list(TASKS)), job)


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "a metric that a board has not": ({"metric": "root_mean_square_error"}, "root_mean_square_error"),
    "a loss that a board has not": ({"loss": "l1_all"}, "l1_all"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_job_is_refused_for_boards_with(case: str) -> None:
    changed, named = REFUSED[case]
    job = tiny_job()
    tasks = [msgspec.structs.replace(t, **changed) if t.name == "mean" else t for t in job.tasks]
    job = msgspec.structs.replace(job, tasks=tasks)
    with pytest.raises(JobError, match=re.escape(named)):
        emit(traced(job), job)
