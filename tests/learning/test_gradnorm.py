"""The train step for GradNorm: the plain step's result by another way, and the norms at the encoder's output."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from mas_edge.export.trace import trace_program
from mas_edge.job import Job, Method, Optimizer, Task
from mas_edge.learning import build, objective_of, train_step, vector_of
from mas_edge.protocol.program import Program
from tests.learning.bowls import BATCH, GRADIENTS, bowls
from tests.learning.jobs import KINDS, OWN, feeds_of, image_job, own_job, series_job
from tests.learning.ordinary import norms_by_task

GRADNORM = Method(balance="gradnorm")
TWO = [
    Task(name="label", kind="class", classes=3, unit=1.7, head=f"{OWN}:flat_head"),
    Task(name="pair", kind="value", shape=[2], head=f"{OWN}:flat_head"),
]
JOBS = {
    "series, every kind of task": series_job(),
    "image": image_job(),
    "batch statistics": own_job("depthwise", TWO, [3, 4, 4]),
    "FedProx, clipped, unscaled": series_job(
        KINDS[:3], Optimizer(proximal_mu=0.5, clip_norm=0.05, scale_encoder_gradient=False)
    ),
    "one task": series_job(KINDS[:1]),
}


def traced(job: Job) -> Program:
    return trace_program(job, "g", [task.name for task in job.tasks], ["train_step"])


def feeds_for(job: Job) -> dict[str, Tensor]:
    feeds = {name: torch.tensor(array) for name, array in feeds_of(traced(job), "train_step").items()}
    return feeds | {"weights": torch.tensor(vector_of(build(job, [task.name for task in job.tasks])))}


@pytest.mark.parametrize("case", JOBS)
def test_the_step_is_the_plain_one_to_rounding_and_gives_the_norms_beside(case: str) -> None:
    job, names = JOBS[case], [task.name for task in JOBS[case].tasks]
    feeds = feeds_for(job)
    plain = train_step(objective_of(job, build(job, names)), feeds)
    balanced = train_step(objective_of(replace(job, method=GRADNORM), build(job, names)), feeds)
    norms = balanced.pop("norms")
    assert balanced.keys() == plain.keys()
    for name, tensor in plain.items():
        assert torch.allclose(balanced[name], tensor, rtol=1e-5, atol=1e-6 * float(tensor.abs().max())), name
    assert torch.allclose(norms, norms_by_task(build(job, names), job, feeds), rtol=1e-4)


def test_the_norms_of_quadratic_losses_have_their_closed_form_and_know_no_task_weights() -> None:
    made = bowls(method=GRADNORM)
    expected = np.linalg.norm(GRADIENTS, axis=1) / np.sqrt(BATCH)  # f_i = g_i / BATCH in each of BATCH rows
    for weights in ([1.0, 1.0, 1.0], [5.0, 0.1, 2.0]):
        norms = train_step(made.objective, made.feeds | {"task_weights": torch.tensor(weights)})["norms"]
        assert np.allclose(norms.numpy(), expected, rtol=1e-5)


def test_a_task_without_labels_has_no_norm() -> None:
    made = bowls(method=GRADNORM)
    norms = train_step(made.objective, made.feeds | {"mask.b": torch.zeros(BATCH)})["norms"]
    assert [bool(norm) for norm in norms] == [True, False, True]


def test_an_encoder_that_is_frozen_as_a_whole_still_has_norms_at_its_output() -> None:
    job = own_job("depthwise", TWO, [3, 4, 4])
    network = build(job, ["label", "pair"])
    network.encoder.requires_grad_(False)
    objective = objective_of(replace(job, method=GRADNORM), network)
    feeds = feeds_for(job) | {
        "weights": torch.tensor(vector_of(network)), "momentum": torch.zeros(objective.layout.trainable),
    }  # fmt: skip
    after = train_step(objective, feeds)
    assert (after["norms"] > 0).all()
    assert torch.allclose(after["weights"], train_step(objective_of(job, network), feeds)["weights"])


def test_balancing_adds_no_pass_back_through_the_network_and_changes_no_other_program() -> None:
    plain, balanced = traced(image_job()), traced(replace(image_job(), method=GRADNORM))
    passes = [
        Counter(node.op for node in each.methods["train_step"].nodes if "convolution" in node.op)
        for each in (plain, balanced)
    ]
    assert passes[0] == passes[1]
    outputs = [[value.name for value in each.methods["train_step"].outputs] for each in (plain, balanced)]
    assert outputs == [["weights", "momentum", "losses"], ["weights", "momentum", "losses", "norms"]]
