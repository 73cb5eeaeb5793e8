"""The three affinities: closed forms on quadratic losses, the limit of small steps, ordinary autograd on networks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from mas_edge.export.trace import trace_program
from mas_edge.job import Affinity, Job, Optimizer, Task
from mas_edge.learning import affinity, build, objective_of, vector_of
from tests.learning.bowls import BATCH, CENTRES, CURVATURE, DECAY, GRADIENTS, LOSSES, RATE, THETA, bowl, bowls
from tests.learning.jobs import KINDS, OWN, feeds_of, image_job, own_job, series_job
from tests.learning.ordinary import affinity_by_kind

Kind = Literal["lookahead", "first_order", "features"]
KINDS_OF_AFFINITY = get_args(Kind)


def measured(
    kind: Kind, optimizer: Optimizer | None = None, changed: Mapping[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    made = bowls(optimizer, Affinity(kind=kind))
    results = affinity(made.objective, {**made.feeds, **(changed or {})})
    return results["losses"], results["affinity"]


def moves(scale: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """d_i [n, SIZE], the direction in which the lookahead steps back on task i."""
    return scale * GRADIENTS + DECAY * THETA


@pytest.mark.parametrize("scaled", [True, False])
def test_the_lookahead_of_quadratic_losses_has_its_closed_form(scaled: bool) -> None:
    scale = 1 / math.sqrt(3) if scaled else 1.0
    after = [[bowl(THETA - RATE * move, name) for name in CENTRES] for move in moves(scale)]
    expected = (1 - np.array(after) / LOSSES) / RATE
    losses, found = measured("lookahead", Optimizer(scale_encoder_gradient=scaled))
    assert np.allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(losses.numpy(), LOSSES)
    assert not np.allclose(expected, expected.T, atol=1e-2)  # so that a transposed answer would not pass


@pytest.mark.parametrize("scaled", [True, False])
def test_the_first_order_affinity_of_quadratic_losses_lacks_nothing_but_the_curvature(scaled: bool) -> None:
    d = moves(1 / math.sqrt(3) if scaled else 1.0)
    expected = d @ GRADIENTS.T / LOSSES
    losses, found = measured("first_order", Optimizer(scale_encoder_gradient=scaled))
    assert np.allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert np.allclose(losses.numpy(), LOSSES)
    bend = RATE / 2 * CURVATURE * (d * d).sum(1, keepdims=True) / LOSSES
    _, ahead = measured("lookahead", Optimizer(scale_encoder_gradient=scaled))
    assert np.allclose(ahead.numpy(), expected - bend, rtol=1e-4, atol=1e-5)
    assert np.abs(bend).max() > 1e-3  # so that it would be missed


def test_the_feature_affinity_of_quadratic_losses_has_its_closed_form() -> None:
    # z repeats theta for every sample, so that f_i = g_i / BATCH in each of BATCH rows.
    expected = GRADIENTS @ GRADIENTS.T / BATCH / LOSSES
    for scaled in (True, False):
        losses, found = measured("features", Optimizer(scale_encoder_gradient=scaled))
        assert np.allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
        assert np.allclose(losses.numpy(), LOSSES)
    assert not np.allclose(expected, expected.T, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS_OF_AFFINITY)
def test_a_task_without_labels_has_zeros_in_its_row_and_column_and_leaves_the_others_as_they_are(kind: Kind) -> None:
    _, whole = measured(kind)
    losses, found = measured(kind, changed={"mask.b": torch.zeros(BATCH)})
    assert losses[1] == 0
    assert torch.equal(found[:, 1], torch.zeros(3))
    assert torch.equal(found[1], torch.zeros(3))
    others = torch.tensor([0, 2])
    assert torch.allclose(found[others][:, others], whole[others][:, others])


@pytest.mark.parametrize("kind", KINDS_OF_AFFINITY)
def test_a_loss_in_another_unit_leaves_the_affinity_of_its_column_as_it_is(kind: Kind) -> None:
    # S_ij is relative to L_j; the source's step grows with its loss, which is what the weight decay shows.
    def column(unit: float) -> Tensor:
        task = [Task(name="label", kind="class", classes=3, unit=unit), Task(name="amount", kind="value")]
        made = replace(series_job(task), affinity=Affinity(kind=kind))
        objective = objective_of(made, build(made, ["label", "amount"]))
        feeds = network_feeds(made)
        return affinity(objective, feeds)["affinity"][1, 0]

    assert float(column(4.0)) == pytest.approx(float(column(1.0)), rel=1e-4)


def network_feeds(job: Job) -> dict[str, Tensor]:
    names = [task.name for task in job.tasks]
    program = trace_program(job, "g", names, ["affinity"])
    feeds = {name: torch.tensor(array) for name, array in feeds_of(program, "affinity").items()}
    return feeds | {"weights": torch.tensor(vector_of(build(job, names)))}


TWO = [
    Task(name="label", kind="class", classes=3, unit=1.7, head=f"{OWN}:flat_head"),
    Task(name="pair", kind="value", shape=[2], head=f"{OWN}:flat_head"),
]
JOBS = {
    "series, every kind of task": series_job(),
    "series, unscaled": series_job(KINDS[:3], Optimizer(scale_encoder_gradient=False)),
    "image": image_job(),
    "batch statistics": own_job("depthwise", TWO, [3, 4, 4]),
}


@pytest.mark.parametrize("case", JOBS)
@pytest.mark.parametrize("kind", ["first_order", "features"])
def test_gram_matrices_are_those_of_ordinary_gradients(kind: Kind, case: str) -> None:
    job = replace(JOBS[case], affinity=Affinity(kind=kind))
    network, feeds = build(job, [task.name for task in job.tasks]), network_feeds(job)
    expected = affinity_by_kind(kind, network, job, feeds)
    found = affinity(objective_of(job, network), feeds)["affinity"]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_first_order_is_the_limit_of_the_lookahead_for_small_steps() -> None:
    job = series_job()
    names = [task.name for task in job.tasks]
    exact = {n: t.double() if t.is_floating_point() else t for n, t in network_feeds(job).items()}

    def found(kind: Kind, rate: float) -> Tensor:
        kinds = replace(job, affinity=Affinity(kind=kind))
        feeds = exact | {"hyper": torch.tensor([rate, 0.9, 0.01, 0.0], dtype=torch.float64)}
        return affinity(objective_of(kinds, build(kinds, names)), feeds)["affinity"]

    limit = found("first_order", 1.0)
    away = [float((found("lookahead", rate) - limit).abs().max() / limit.abs().max()) for rate in (1e-2, 1e-4, 1e-6)]
    assert away[0] > 10 * away[1] > 100 * away[2]
    assert away[2] < 1e-4


def test_an_encoder_that_is_frozen_as_a_whole_takes_no_affinity_in_its_weights_but_has_features() -> None:
    for kind in KINDS_OF_AFFINITY:
        job = replace(own_job("depthwise", TWO, [3, 4, 4]), affinity=Affinity(kind=kind))
        network = build(job, ["label", "pair"])
        network.encoder.requires_grad_(False)
        objective = objective_of(job, network)
        feeds = network_feeds(job) | {"weights": torch.tensor(vector_of(network))}
        found = affinity(objective, feeds)["affinity"]
        assert bool(found.any()) == (kind == "features"), kind


def test_no_pass_back_through_the_encoder_is_made_for_features() -> None:
    def passes_back(kind: Kind) -> int:
        job = replace(image_job(), affinity=Affinity(kind=kind))
        program = trace_program(job, "g", [task.name for task in job.tasks], ["affinity"])
        return sum(node.op == "aten.convolution_backward.default" for node in program.methods["affinity"].nodes)

    # Three dense heads of two convolutions; the encoder has eight, and is passed once for each of four tasks.
    assert passes_back("features") == 3 * 2
    assert passes_back("first_order") == passes_back("lookahead") == 3 * 2 + 4 * 8


@pytest.mark.parametrize("kind", ["first_order", "features"])
def test_the_sum_over_many_parameters_is_not_rounded_away(kind: Kind) -> None:
    """One product of matrices is 1e-5 off at this size, which the check before a release refuses."""
    size = 200_000
    task = Task(name="a", kind="value", shape=[size], loss="l2", head=f"{OWN}:nothing")
    job = replace(own_job("point", [task], [size]), affinity=Affinity(kind=kind))
    feeds = {
        "weights": torch.linspace(-1, 1, size), "x": torch.zeros(2, size), "y.a": torch.zeros(2, size),
        "mask.a": torch.ones(2), "hyper": torch.tensor([0.1, 0.9, 0.0, 0.0]),
    }  # fmt: skip
    single, double = (
        affinity(objective_of(job, build(job, ["a"])), {name: each.to(dtype) for name, each in feeds.items()})
        for dtype in (torch.float32, torch.float64)
    )
    assert float((single["affinity"] - double["affinity"]).abs() / double["affinity"].abs()) < 2e-6
