from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mas_edge.job import Job, Optimizer, Task
from mas_edge.learning import Objective, affinity, build, evaluate, objective_of, train_step, usable, vector_of
from mas_edge.protocol.errors import JobError
from tests.learning.jobs import OWN, job, own_job, series_job

SIZE, BATCH = 4, 6
RATE, DECAY = 0.1, 0.01
CENTRES = {"a": [0.5, 0.0, 0.0, -1.0], "b": [1.0, 1.0, 0.0, 0.0], "c": [-1.0, 0.2, 0.3, 2.0]}


def bowls(optimizer: Optimizer | None = None) -> tuple[Objective, dict[str, Tensor]]:
    """Three quadratic losses L_i = |theta - c_i|^2 / SIZE of one encoder vector theta."""
    tasks = [Task(name=name, kind="value", shape=[SIZE], loss="l2", head=f"{OWN}:nothing") for name in CENTRES]
    network = own_job("point", tasks, [SIZE]).network
    bowl_job = job(tasks, [SIZE], network, optimizer)
    objective = objective_of(bowl_job, build(bowl_job, list(CENTRES)))
    weights = torch.tensor(vector_of(objective.network))
    feeds = {"weights": weights, "momentum": torch.zeros_like(weights), "x": torch.zeros(BATCH, SIZE)}
    feeds |= {f"y.{name}": torch.tensor(centre).expand(BATCH, SIZE) for name, centre in CENTRES.items()}
    feeds |= {f"mask.{name}": torch.ones(BATCH) for name in CENTRES}
    feeds |= {"task_weights": torch.tensor([1.0, 2.0, 0.5]), "hyper": torch.tensor([RATE, 0.9, DECAY, 0.0])}
    return objective, feeds


def bowl(theta: np.ndarray[tuple[int], np.dtype[np.float64]], name: str) -> float:
    return float(np.sum((theta - CENTRES[name]) ** 2) / SIZE)


@pytest.mark.parametrize("scaled", [True, False])
def test_affinity_of_quadratic_losses_has_its_closed_form(scaled: bool) -> None:
    objective, feeds = bowls(Optimizer(scale_encoder_gradient=scaled))
    theta = np.linspace(-1, 1, SIZE)
    scale = 1 / math.sqrt(3) if scaled else 1.0
    expected = np.zeros((3, 3))
    for i, source in enumerate(CENTRES):
        ahead = theta - RATE * (scale * 2 * (theta - CENTRES[source]) / SIZE + DECAY * theta)
        for j, recipient in enumerate(CENTRES):
            expected[i, j] = (1 - bowl(ahead, recipient) / bowl(theta, recipient)) / RATE
    measured = affinity(objective, feeds)
    assert np.allclose(measured["affinity"].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.allclose(measured["losses"].numpy(), [bowl(theta, name) for name in CENTRES])
    assert not np.allclose(expected, expected.T, atol=1e-2)  # so that a transposed answer would not pass


def test_a_step_on_quadratic_losses_has_its_closed_form() -> None:
    objective, feeds = bowls(Optimizer(proximal_mu=0.5))
    feeds["hyper"] = torch.tensor([RATE, 0.9, DECAY, 0.5])
    feeds["anchor"] = torch.full((SIZE,), 0.25)
    feeds["momentum"] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    theta = np.linspace(-1, 1, SIZE)
    weights = zip(CENTRES, [1.0, 2.0, 0.5], strict=True)
    gradient = sum(w * 2 * (theta - CENTRES[name]) / SIZE for name, w in weights) / math.sqrt(3)
    velocity = 0.9 * np.array([1.0, 2.0, 3.0, 4.0]) + gradient + DECAY * theta + 0.5 * (theta - 0.25)
    after = train_step(objective, feeds)
    assert np.allclose(after["momentum"].numpy(), velocity, rtol=1e-5)
    assert np.allclose(after["weights"].numpy(), theta - RATE * velocity, rtol=1e-5)


def test_clipping_bounds_the_length_of_the_whole_gradient() -> None:
    objective, feeds = bowls(Optimizer(clip_norm=0.1))
    feeds["hyper"] = torch.tensor([RATE, 0.0, 0.0, 0.0])
    assert float(train_step(objective, feeds)["momentum"].norm()) == pytest.approx(0.1, rel=1e-4)
    loose, feeds_loose = bowls(Optimizer(clip_norm=1e6))
    free, _ = bowls()
    assert torch.equal(train_step(loose, feeds_loose)["momentum"], train_step(free, feeds_loose)["momentum"])


def test_a_task_without_labels_gives_zero_affinity_and_a_step_that_stays_finite() -> None:
    objective, feeds = bowls()
    feeds["mask.b"] = torch.zeros(BATCH)
    measured = affinity(objective, feeds)
    assert measured["losses"][1] == 0
    assert torch.equal(measured["affinity"][:, 1], torch.zeros(3))
    assert measured["affinity"].isfinite().all()
    assert all(value.isfinite().all() for value in train_step(objective, feeds).values())


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
