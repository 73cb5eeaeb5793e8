from __future__ import annotations

import pytest
import torch
from torch import nn

from mas_edge.job import Task
from mas_edge.protocol.errors import JobError
from mas_edge.zoo import series
from tests.learning.jobs import KINDS


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_encoder_shortens_time_by_eight_and_grows_with_its_width() -> None:
    encoder = series.encoder((6, 64))
    assert encoder(torch.zeros(2, 6, 64)).shape == (2, 64, 8)
    assert parameters(encoder) == 22000
    assert parameters(series.encoder((6, 64), width=32)) == 85984


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name)
def test_a_head_gives_the_shape_of_its_task(task: Task) -> None:
    classes = [task.classes] if task.target_dtype == "int64" else []
    assert series.head((8, 2), task)(torch.randn(5, 8, 2)).shape == (5, *classes, *task.shape)


def test_neighbouring_places_of_a_dense_head_come_from_the_same_place_of_the_features() -> None:
    head = series.head((1, 3), Task(name="t", kind="dense_class", classes=2, shape=[6]))
    features = torch.zeros(1, 1, 3)
    features[0, 0, 0] = 1.0
    moved = (head(features) - head(torch.zeros(1, 1, 3))).abs().sum((0, 1)) > 0
    assert moved.tolist() == [True, True, True, True, False, False]  # a kernel of 3 reaches one place further


@pytest.mark.parametrize("shape", [(64,), (6, 60), (3, 64, 64)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(JobError, match=r"\[signals, length\] with a length that is a multiple of 8, got"):
        series.encoder(shape)


def test_places_that_do_not_fit_the_features_are_refused() -> None:
    with pytest.raises(JobError, match=r"tasks\[t\].shape is \[7\]"):
        series.head((8, 2), Task(name="t", kind="dense_class", classes=2, shape=[7]))
    with pytest.raises(JobError, match="name a head of your own"):
        series.head((8,), Task(name="t", kind="value"))
