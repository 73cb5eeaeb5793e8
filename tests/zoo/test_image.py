from __future__ import annotations

import pytest
import torch
from torch import nn

from mas_edge.job import Task
from mas_edge.protocol.errors import JobError
from mas_edge.zoo import image
from tests.learning.jobs import PIXELS


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_encoder_is_heavy_and_a_dense_head_is_light() -> None:
    encoder = image.encoder((3, 32, 32))
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, 24, 16, 16)
    assert parameters(encoder) == 65776
    assert parameters(image.head((24, 16, 16), Task(name="d", kind="value", shape=[32, 32]))) == 2668


@pytest.mark.parametrize(
    "task",
    [*PIXELS, Task(name="n", kind="value"), Task(name="v", kind="direction", shape=[3])],
    ids=lambda task: task.name,
)
def test_a_head_gives_the_shape_of_its_task(task: Task) -> None:
    classes = [task.classes] if task.target_dtype == "int64" else []
    assert image.head((6, 4, 4), task)(torch.randn(5, 6, 4, 4)).shape == (5, *classes, *task.shape)


@pytest.mark.parametrize("shape", [(3, 30, 32), (32, 32), (1,)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(JobError, match="multiples of 4, got"):
        image.encoder(shape)


def test_classes_per_pixel_of_another_size_are_refused() -> None:
    with pytest.raises(JobError, match=r"tasks\[t\].shape is \[16, 16\]; the image family gives classes for \[8, 8\]"):
        image.head((6, 4, 4), Task(name="t", kind="dense_class", classes=2, shape=[16, 16]))
    with pytest.raises(JobError, match="name a head of your own"):
        image.head((6, 4), Task(name="t", kind="value"))
