"""Whole networks: traced, emitted, and trained on its engine to parity with ordinary training."""

from __future__ import annotations

import pytest

from mas_edge.export.trace import trace_program
from mas_edge.export.verify import verify
from mas_edge.job import Job, Network, Optimizer, Task
from mas_edge.learning import build
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.program import Program
from tests.export.emitted.against_eager import EMITTERS
from tests.learning.jobs import KINDS, OWN, image_job, job, own_job, series_job

HERE = "tests.export.emitted.networks"
TASKS = [
    Task(name="label", kind="class", classes=3, head=f"{HERE}:pooled_head"),
    Task(name="pose", kind="value", shape=[2], loss="huber", head=f"{HERE}:pooled_head"),
]


TRAIN = ("train_step", "evaluate")
ALL = (*TRAIN, "affinity")


def of(encoder: str, size: int) -> Job:
    return job(TASKS, [3, size, size], Network(encoder=f"{HERE}:{encoder}"))


def emitted(engine: str, made: Job, methods: tuple[str, ...]) -> Program:
    return EMITTERS[engine](trace_program(made, "g", [task.name for task in made.tasks], methods))


@pytest.mark.parametrize(
    ("made", "methods"),
    [
        pytest.param(of("resnet18", 64), TRAIN, id="ResNet-18"),
        pytest.param(of("mobilenet_v3_small", 64), TRAIN[:1], id="MobileNetV3-small"),
        pytest.param(of("transformer", 16), TRAIN, id="transformer"),
        pytest.param(series_job(KINDS[1:4], Optimizer(proximal_mu=0.1, clip_norm=0.5)), ALL, id="series"),
        pytest.param(image_job(), TRAIN, id="image, every kind of task"),
    ],
)
def test_a_network_trains_to_parity(engine: str, made: Job, methods: tuple[str, ...]) -> None:
    program = emitted(engine, made, methods)
    verify(program, build(made, program.tasks), made)


def test_affinity_is_measured_with_batch_statistics_too(engine: str) -> None:
    task = Task(name="label", kind="class", classes=3, head=f"{OWN}:flat_head")
    made = own_job("depthwise", [task], [3, 4, 4])
    verify(emitted(engine, made, ("affinity",)), build(made, ["label"]), made)


def test_only_the_graphs_and_the_engine_change(engine: str) -> None:
    traced = trace_program(series_job(KINDS[:1]), "g", ["label"], ["evaluate"])
    program = EMITTERS[engine](traced)
    assert (program.engine, program.layout, program.targets) == (engine, traced.layout, traced.targets)
    method = program.methods["evaluate"]
    assert (method.inputs, method.outputs) == (traced.methods["evaluate"].inputs, traced.methods["evaluate"].outputs)
    assert not method.nodes
    assert not method.constants
    assert EMITTERS[engine](traced) == program


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("drop", r"module 'encoder\.1' .* uses aten\.bernoulli.*: dropout .* set the rate to 0"),
        (
            "sorting",
            r"module 'encoder\.1' .* uses aten\.sort\.default, which cannot train on .*: use max",
        ),
    ],
)
def test_a_refusal_names_the_module_and_a_way_out(engine: str, encoder: str, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        emitted(engine, of(encoder, 4), ("train_step",))


def test_an_emitted_program_of_another_network_is_not_released(engine: str) -> None:
    made = series_job(KINDS[:2])
    program = emitted(engine, made, ("train_step", "evaluate"))
    other = build(made, program.tasks)
    other.encoder[0][1].eps = 0.5  # type: ignore[index]
    with pytest.raises(ServerError, match="program 'g' does not do what its network does"):
        verify(program, other, made)
