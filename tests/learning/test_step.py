from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mas_edge.job import Job, Optimizer, Task
from mas_edge.learning import affinity, build, evaluate, objective_of, train_step, usable, vector_of
from mas_edge.protocol.errors import JobError
from tests.learning.bowls import BATCH, CENTRES, DECAY, RATE, SIZE, THETA, bowls
from tests.learning.jobs import OWN, own_job, series_job


def test_a_step_on_quadratic_losses_has_its_closed_form() -> None:
    made = bowls(Optimizer(proximal_mu=0.5))
    objective, feeds = made.objective, made.feeds
    feeds["hyper"] = torch.tensor([RATE, 0.9, DECAY, 0.5])
    feeds["anchor"] = torch.full((SIZE,), 0.25)
    feeds["momentum"] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    theta = THETA
    weights = zip(CENTRES, [1.0, 2.0, 0.5], strict=True)
    gradient = sum(w * 2 * (theta - CENTRES[name]) / SIZE for name, w in weights) / math.sqrt(3)
    velocity = 0.9 * np.array([1.0, 2.0, 3.0, 4.0]) + gradient + DECAY * theta + 0.5 * (theta - 0.25)
    after = train_step(objective, feeds)
    assert np.allclose(after["momentum"].numpy(), velocity, rtol=1e-5)
    assert np.allclose(after["weights"].numpy(), theta - RATE * velocity, rtol=1e-5)


def test_clipping_bounds_the_length_of_the_whole_gradient() -> None:
    tight = bowls(Optimizer(clip_norm=0.1))
    hyper = {"hyper": torch.tensor([RATE, 0.0, 0.0, 0.0])}
    assert float(train_step(tight.objective, tight.feeds | hyper)["momentum"].norm()) == pytest.approx(0.1, rel=1e-4)
    loose, free = bowls(Optimizer(clip_norm=1e6)), bowls()
    found = [train_step(each.objective, loose.feeds)["momentum"] for each in (loose, free)]
    assert torch.equal(*found)


def test_a_step_stays_finite_where_a_task_has_no_labels() -> None:
    made = bowls()
    after = train_step(made.objective, made.feeds | {"mask.b": torch.zeros(BATCH)})
    assert all(value.isfinite().all() for value in after.values())


def test_a_head_without_labels_only_decays() -> None:
    series = series_job()
    objective = objective_of(series, build(series, ["label", "amount"]))
    weights = torch.tensor(vector_of(objective.network))
    feeds = {
        "weights": weights, "momentum": torch.zeros_like(weights), "x": torch.randn(BATCH, 2, 16),
        "y.label": torch.zeros(BATCH, dtype=torch.int64), "mask.label": torch.ones(BATCH),
        "y.amount": torch.zeros(BATCH), "mask.amount": torch.zeros(BATCH),
        "task_weights": torch.ones(2), "hyper": torch.tensor([RATE, 0.9, DECAY, 0.0]),
    }  # fmt: skip
    after = train_step(objective, feeds)
    places = objective.layout.slices()
    for entry in objective.layout.entries:
        before, now = weights[places[entry.name]], after["weights"][places[entry.name]]
        decayed = torch.allclose(now, before * (1 - RATE * DECAY), atol=1e-7)
        assert decayed == (entry.part == "amount"), entry.name


def test_no_method_changes_its_arguments_or_the_network() -> None:
    norm = own_job("depthwise", [Task(name="t", kind="value", head=f"{OWN}:flat_head")], [3, 4, 4])
    objective = objective_of(norm, build(norm, ["t"]))
    weights = torch.tensor(vector_of(objective.network))
    feeds = {
        "weights": weights, "momentum": torch.zeros(objective.layout.trainable), "x": torch.randn(BATCH, 3, 4, 4),
        "y.t": torch.randn(BATCH), "mask.t": torch.ones(BATCH), "task_weights": torch.ones(1),
        "hyper": torch.tensor([RATE, 0.9, DECAY, 0.0]),
    }  # fmt: skip
    before = {name: tensor.clone() for name, tensor in feeds.items()}
    state = {name: tensor.clone() for name, tensor in objective.network.state_dict().items()}
    trained = train_step(objective, feeds)
    for method in (evaluate, affinity):
        method(objective, feeds)
    assert all(torch.equal(feeds[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(objective.network.state_dict()[name], tensor) for name, tensor in state.items())
    kept = objective.layout.trainable
    assert not torch.equal(trained["weights"][kept:], weights[kept:])  # the batch statistics have moved


def test_ignored_targets_are_masked_out_and_become_a_valid_class() -> None:
    task = Task(name="t", kind="dense_class", shape=[3], classes=2, ignore_index=9)
    target, mask = usable(task, torch.tensor([[1, 9, 0], [9, 1, 1]]), torch.tensor([1.0, 0.0]))
    assert target.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert mask.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_a_loss_that_is_not_one_number_is_refused_by_name() -> None:
    wrong: Job = series_job([Task(name="t", kind="value", loss=f"{OWN}:per_sample")])
    objective = objective_of(wrong, build(wrong, ["t"]))
    feeds = {
        "weights": torch.tensor(vector_of(objective.network)), "x": torch.zeros(BATCH, 2, 16),
        "y.t": torch.zeros(BATCH), "mask.t": torch.ones(BATCH),
    }  # fmt: skip
    with pytest.raises(JobError, match=r"tasks\[t\]: the loss or metric 'per_sample' returned shape \[6\]"):
        evaluate(objective, feeds)
