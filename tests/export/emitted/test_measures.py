"""Every kind of affinity, and the gradient norms of GradNorm, on every engine: held against ordinary autograd."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from device_runtime.engines import open_engine
from device_runtime.engines.base import Arrays
from mas_edge.export.trace import trace_program
from mas_edge.job import Affinity, Job, Method, Task
from mas_edge.learning import build, objective_of, train_step, vector_of
from mas_edge.protocol.program import Program, dump, load
from tests.export.emitted.against_eager import EMITTERS
from tests.learning.jobs import KINDS, OWN, feeds_of, image_job, own_job, series_job
from tests.learning.ordinary import affinity_by_kind, norms_by_task

GRADNORM = Method(balance="gradnorm")
TOLERANCE = 1e-5  # of the largest value of a result, as for releasing a program
TWO = [
    Task(name="label", kind="class", classes=3, unit=1.7, head=f"{OWN}:flat_head"),
    Task(name="pair", kind="value", shape=[2], head=f"{OWN}:flat_head"),
]
JOBS = {
    "series": series_job(KINDS[1:4]),
    "image": image_job(),
    "batch statistics": own_job("depthwise", TWO, [3, 4, 4]),
}


def feeds_for(program: Program, method: str, job: Job) -> tuple[Arrays, dict[str, Tensor]]:
    """A batch for the engine, and the same as tensors."""
    feeds = feeds_of(program, method) | {"weights": vector_of(build(job, program.tasks))}
    return feeds, {name: torch.tensor(array) for name, array in feeds.items()}


def run_on(engine: str, program: Program, method: str, feeds: Arrays) -> Arrays:
    emitted = program if engine == "torch" else EMITTERS[engine](program)
    return open_engine(engine).load(load(dump(emitted))).run(method, feeds)


def require_close(found: np.ndarray[tuple[int, ...], np.dtype[np.float32]], expected: Tensor) -> None:
    assert found.shape == tuple(expected.shape)
    assert np.abs(found - expected.numpy()).max() <= TOLERANCE * float(expected.abs().max())


@pytest.mark.parametrize("case", JOBS)
@pytest.mark.parametrize("kind", ["first_order", "features"])
def test_an_affinity_from_a_gram_matrix_is_that_of_ordinary_gradients(
    engine: str, kind: Literal["first_order", "features"], case: str
) -> None:
    job = replace(JOBS[case], affinity=Affinity(kind=kind))
    program = trace_program(job, "g", [task.name for task in job.tasks], ["affinity"])
    feeds, tensors = feeds_for(program, "affinity", job)
    expected = affinity_by_kind(kind, build(job, program.tasks), job, tensors)
    require_close(run_on("torch", program, "affinity", feeds)["affinity"], expected)
    require_close(run_on(engine, program, "affinity", feeds)["affinity"], expected)


@pytest.mark.parametrize("case", JOBS)
def test_a_step_for_gradnorm_gives_the_norms_and_the_weights_of_the_plain_step(engine: str, case: str) -> None:
    job = JOBS[case]
    program = trace_program(replace(job, method=GRADNORM), "g", [task.name for task in job.tasks], ["train_step"])
    feeds, tensors = feeds_for(program, "train_step", job)
    network = build(job, program.tasks)
    plain = train_step(objective_of(job, network), tensors)
    for name in ("torch", engine):
        after = run_on(name, program, "train_step", feeds)
        require_close(after["norms"], norms_by_task(network, job, tensors))
        for output, tensor in plain.items():
            require_close(after[output], tensor)


def test_only_what_is_needed_is_fed() -> None:
    def inputs(kind: Literal["lookahead", "first_order", "features"]) -> list[str]:
        job = replace(series_job(KINDS[:1]), affinity=Affinity(kind=kind))
        program = trace_program(job, "g", ["label"], ["affinity"])
        return [value.name for value in program.methods["affinity"].inputs]

    assert inputs("lookahead") == inputs("first_order") == ["weights", "x", "y.label", "mask.label", "hyper"]
    assert inputs("features") == ["weights", "x", "y.label", "mask.label"]
