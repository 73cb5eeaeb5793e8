from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from device_runtime.engines.torch_engine import TorchEngine
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import DRIFT_TOLERANCE, TOLERANCE, Comparison, verify
from mas_edge.job import Affinity, Job, Method, Optimizer, Task
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.program import Program
from tests.learning.jobs import KINDS, OWN, feeds_of, image_job, own_job, series_job

LABEL = Task(name="label", kind="class", classes=3, head=f"{OWN}:flat_head")
NUMBER = Task(name="number", kind="value", shape=[2], loss=f"{OWN}:log_cosh", metric="root_mean_square_error",
              head=f"{OWN}:flat_head")  # fmt: skip
PAIR = [LABEL, NUMBER]
COMPARED = {
    ("train_step", "weights"), ("train_step", "momentum"), ("train_step", "losses"),
    ("train_step", "weights after 10 steps"), ("evaluate", "losses"), ("evaluate", "metrics"),
    ("affinity", "losses"), ("affinity", "affinity"),
}  # fmt: skip


def verified(job: Job) -> list[Comparison]:
    names = [task.name for task in job.tasks]
    return verify(trace_program(job, "g", names), build(job, names), job)


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(series_job(), id="series, every kind of task"),
        pytest.param(image_job(), id="image, every kind of task, element masks"),
        pytest.param(own_job("depthwise", PAIR, [3, 4, 4]), id="own network with BatchNorm, own loss"),
        pytest.param(own_job("dropping", PAIR, [3, 4, 4]), id="dropout draws the same"),
        pytest.param(series_job(KINDS[:2], Optimizer(proximal_mu=0.5)), id="FedProx"),
        pytest.param(series_job(KINDS[:2], Optimizer(clip_norm=0.05)), id="clipped"),
        pytest.param(series_job(KINDS[:2], Optimizer(scale_encoder_gradient=False)), id="unscaled"),
        pytest.param(series_job(KINDS[:1]), id="one task"),
        pytest.param(replace(image_job(), affinity=Affinity(kind="first_order")), id="first order"),
        pytest.param(replace(own_job("depthwise", PAIR, [3, 4, 4]), affinity=Affinity(kind="features")), id="features"),
    ],
)
def test_a_program_does_what_ordinary_training_does(job: Job) -> None:
    found = verified(job)
    answers = {("infer", f"out.{task.name}") for task in job.tasks}
    assert {(comparison.method, comparison.output) for comparison in found} == COMPARED | answers
    for comparison in found:
        many = comparison.output.endswith("steps")
        assert comparison.max_rel <= (DRIFT_TOLERANCE if many else TOLERANCE), comparison


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(series_job(KINDS[:3], Optimizer(clip_norm=0.05)), id="clipped"),
        pytest.param(own_job("depthwise", PAIR, [3, 4, 4]), id="own network with BatchNorm"),
        pytest.param(own_job("dropping", PAIR, [3, 4, 4]), id="dropout draws the same"),
    ],
)
def test_a_program_for_gradnorm_gives_the_norms_beside(job: Job) -> None:
    found = verified(replace(job, method=Method(balance="gradnorm")))
    assert ("train_step", "norms") in {(comparison.method, comparison.output) for comparison in found}


@pytest.fixture(scope="module")
def small() -> tuple[Job, Program]:
    job = series_job([KINDS[0], KINDS[2]])
    return job, trace_program(job, "small", ["label", "amount"])


def changed(program: Program, method: str, find: str, **fields: Any) -> Program:
    """``program`` with the last call of the operator ``find`` in ``method`` replaced."""
    nodes = list(program.methods[method].nodes)
    i = max(i for i, node in enumerate(nodes) if node.op == find)
    nodes[i] = msgspec.structs.replace(nodes[i], **fields)
    methods = program.methods | {method: msgspec.structs.replace(program.methods[method], nodes=nodes)}
    return msgspec.structs.replace(program, methods=methods)


@pytest.mark.parametrize(
    ("method", "find", "fields", "reason"),
    [
        ("train_step", "aten.sub.Tensor", {"op": "aten.add.Tensor"}, "weights of train_step|weights after 10 steps"),
        ("train_step", "aten.sgn.default", {"op": "aten.neg.default"}, "of train_step differs by"),
        ("evaluate", "aten.abs.default", {"op": "aten.neg.default"}, "of evaluate differs by"),
        ("affinity", "aten.rsub.Scalar", {"op": "aten.sub.Scalar"}, "affinity of affinity differs by"),
        ("evaluate", "aten.abs.default", {"op": "aten.log.default"}, "of evaluate differs by inf"),
    ],
)
def test_a_program_that_computes_something_else_is_not_released(
    small: tuple[Job, Program], method: str, find: str, fields: dict[str, Any], reason: str
) -> None:
    job, program = small
    with pytest.raises(ServerError, match=reason):
        verify(changed(program, method, find, **fields), build(job, program.tasks), job)


def test_a_program_of_another_network_is_not_released(small: tuple[Job, Program]) -> None:
    job, program = small
    other = copy.deepcopy(build(job, program.tasks))
    other.encoder[0][1].eps = 0.5  # type: ignore[index]
    with pytest.raises(ServerError, match="program 'small' does not do what its network does"):
        verify(program, other, job)


def test_a_head_without_labels_only_decays_in_the_program_too(small: tuple[Job, Program]) -> None:
    job, program = small
    feeds = feeds_of(program, "train_step")
    feeds["weights"] = vector_of(build(job, program.tasks))
    feeds["momentum"] = np.zeros_like(feeds["momentum"])
    feeds["mask.amount"] = np.zeros_like(feeds["mask.amount"])
    after = TorchEngine().load(program).run("train_step", feeds)
    rate, _, decay, _ = feeds["hyper"]
    for entry, place in zip(program.layout.entries, program.layout.slices().values(), strict=True):
        decayed = np.allclose(after["weights"][place], feeds["weights"][place] * (1 - rate * decay), atol=1e-7)
        assert decayed == (entry.part == "amount"), entry.name
    assert all(np.isfinite(array).all() for array in after.values())


def test_batch_statistics_come_out_of_a_train_step_only() -> None:
    job = own_job("depthwise", PAIR, [3, 4, 4])
    program = trace_program(job, "g", ["label", "number"])
    runner = TorchEngine().load(program)
    feeds = feeds_of(program, "train_step")
    feeds["weights"] = vector_of(build(job, program.tasks))
    given = feeds["weights"].copy()
    after = runner.run("train_step", feeds)["weights"]
    mean = program.layout.slices()["encoder.norm.running_mean"]
    assert np.abs(after[mean] - given[mean]).min() > 0
    runner.run("affinity", feeds)
    runner.run("evaluate", feeds)
    assert np.array_equal(feeds["weights"], given)
