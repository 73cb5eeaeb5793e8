"""Networks and losses as a user would write them, named in jobs as ``tests.learning.own_parts:function``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mas_edge.job import Task


class Depthwise(nn.Module):
    """BatchNorm, depthwise convolution, an index buffer, a plain tensor attribute, activations in place."""

    order: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.act = nn.ReLU(inplace=True)
        self.register_buffer("order", torch.arange(width - 1, -1, -1))
        self.gain = torch.tensor(1.5)

    def forward(self, x: Tensor) -> Tensor:
        features = self.act(self.norm(self.widen(x)))
        mixed: Tensor = self.depthwise(features[:, self.order]) * self.gain
        return mixed


def depthwise(input_shape: tuple[int, ...], width: int = 4) -> nn.Module:
    return Depthwise(input_shape[0], width)


def dropping(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(torch.Size(input_shape).numel(), 8))


def flat_head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    shape = [task.classes] if task.kind == "class" else task.shape
    linear = nn.Linear(torch.Size(feature_shape).numel(), torch.Size(shape).numel())
    return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, shape) if shape else nn.Flatten(0))


class Point(nn.Module):
    """An encoder that is one vector, whatever the input: losses on it are quadratic bowls."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(-1, 1, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(x.shape[0], -1)


def point(input_shape: tuple[int, ...]) -> nn.Module:
    return Point(input_shape[0])


def nothing(_feature_shape: tuple[int, ...], _task: Task) -> nn.Module:
    return nn.Identity()


class InPlace(nn.Module):
    """Changes the samples themselves."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


def in_place(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(InPlace(), dropping(input_shape))


class Branching(nn.Module):
    """Decides by a number that is only known when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


def branching(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(Branching(), dropping(input_shape))


@torch.library.custom_op("mas_edge_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


@twice.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """Calls an operator that PyTorch itself does not have."""

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = torch.ops.mas_edge_tests.twice(x)
        return doubled


def foreign(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(Foreign(), dropping(input_shape))


def log_cosh(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    values = F.softplus(-2 * (output - target)) + (output - target) - 0.6931471805599453
    return (values.flatten(1).mean(1) * mask).sum() / mask.sum().clamp(min=1)


def per_sample(output: Tensor, target: Tensor, _mask: Tensor) -> Tensor:
    return (output - target).abs()


def not_a_module(_input_shape: tuple[int, ...]) -> int:
    return 3


def fails(_input_shape: tuple[int, ...]) -> nn.Module:
    message = "the disk of weights is not mounted"
    raise OSError(message)


A_NUMBER = 3
