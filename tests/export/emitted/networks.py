"""Encoders as people write them, in small widths: ResNet-18, MobileNetV3-small, a transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mas_edge.job import Task


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, arXiv 1512.03385)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and channels == width
        shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.downsample = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.downsample(x)
        activated: Tensor = self.relu(out)
        return activated


def resnet18(input_shape: tuple[int, ...], width: int = 4) -> nn.Module:
    stem = nn.Sequential(
        nn.Conv2d(input_shape[0], width, 7, 2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
    )  # fmt: skip
    blocks: list[nn.Module] = []
    for i, stride in enumerate((1, 2, 2, 2)):
        wide = width * 2**i
        blocks += [BasicBlock(wide if i == 0 else wide // 2, wide, stride), BasicBlock(wide, wide, 1)]
    return nn.Sequential(stem, *blocks)


class SqueezeExcitation(nn.Module):
    """Channels weighted by the whole image."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        scaled: Tensor = scale * x
        return scaled


class InvertedResidual(nn.Module):
    """Widen, filter by depth, weigh, narrow (Howard et al. 2019, arXiv 1905.02244)."""

    def __init__(self, channels: int, kernel: int, wide: int, out: int, excite: bool, hard: bool, stride: int) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        layers: list[nn.Module] = []
        if wide != channels:
            layers += [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide, 0.001, 0.01), act(inplace=True)]
        depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False)
        layers += [depthwise, nn.BatchNorm2d(wide, 0.001, 0.01), act(inplace=True)]
        if excite:
            layers.append(SqueezeExcitation(wide, max(wide // 4, 2)))
        layers += [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out, 0.001, 0.01)]
        self.block, self.residual = nn.Sequential(*layers), stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.block(x)
        return result + x if self.residual else result


# kernel, widened, out, squeeze-and-excitation, hard-swish, stride: the published table divided by four
MOBILE = [
    (3, 4, 4, True, False, 2), (3, 18, 6, False, False, 2), (3, 22, 6, False, False, 1), (5, 24, 10, True, True, 2),
    (5, 60, 10, True, True, 1), (5, 60, 10, True, True, 1), (5, 30, 12, True, True, 1), (5, 36, 12, True, True, 1),
    (5, 72, 24, True, True, 2), (5, 144, 24, True, True, 1), (5, 144, 24, True, True, 1),
]  # fmt: skip


def mobilenet_v3_small(input_shape: tuple[int, ...]) -> nn.Module:
    def ends(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False)
        return [convolution, nn.BatchNorm2d(out, 0.001, 0.01), nn.Hardswish(inplace=True)]

    layers, channels = ends(input_shape[0], 4, 3, 2), 4
    for kernel, wide, out, excite, hard, stride in MOBILE:
        layers.append(InvertedResidual(channels, kernel, wide, out, excite, hard, stride))
        channels = out
    return nn.Sequential(*layers, *ends(channels, 144, 1, 1))


class Transformer(nn.Module):
    """A vision transformer in small: patches, positions, two layers before the mean."""

    def __init__(self, channels: int, places: int, width: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, 4, 4)
        self.position = nn.Parameter(torch.zeros(1, places, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.layers(self.patch(x).flatten(2).transpose(1, 2) + self.position)
        return tokens.transpose(1, 2)


def transformer(input_shape: tuple[int, ...], width: int = 8) -> nn.Module:
    return Transformer(input_shape[0], input_shape[1] * input_shape[2] // 16, width)


def pooled_head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    numbers = task.classes or torch.Size(task.shape).numel()
    layers = [nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(1), nn.Linear(feature_shape[0], numbers)]
    return nn.Sequential(*layers, *([] if task.classes else [nn.Unflatten(1, task.shape)]))


def drop(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(input_shape[0], 4, 1), nn.Dropout(0.5))


def sorting(input_shape: tuple[int, ...]) -> nn.Module:
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(1).values

    return nn.Sequential(nn.Conv2d(input_shape[0], 4, 1), Sorting())
