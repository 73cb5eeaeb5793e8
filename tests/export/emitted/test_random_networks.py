"""Random small networks of the supported layers: gradients on every engine against eager."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

from tests.export.emitted.against_eager import normal, require_module_same

CHANNELS = 4


class Residual(nn.Module):
    """x + f(x), f without a change of shape."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return torch.cat([x[:, :2], x[:, 2:] + y[:, 2:]], 1)


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    transposed = draw(st.booleans())
    kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    groups, bias = draw(st.sampled_from([1, 2, CHANNELS])), draw(st.booleans())
    padding = dilation * (kernel - 1) // 2
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    return make(CHANNELS, CHANNELS, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias)


# Smooth ones: at the corner of a ReLU the last bit of a sum decides which gradient is right.
ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus]
NORMS: list[Callable[[], nn.Module]] = [
    lambda: nn.GroupNorm(2, CHANNELS), lambda: nn.BatchNorm2d(CHANNELS), lambda: nn.GroupNorm(1, CHANNELS),
]  # fmt: skip
SCALES: list[Callable[[], nn.Module]] = [
    lambda: nn.AvgPool2d(2, ceil_mode=True), lambda: nn.Upsample(scale_factor=2), lambda: nn.AdaptiveAvgPool2d((3, 5)),
    lambda: nn.Upsample(size=(5, 6), mode="bilinear"), lambda: nn.Softmax(1),
    lambda: nn.Sequential(nn.Conv2d(CHANNELS, 16, 1), nn.PixelShuffle(2)),
    lambda: Residual(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.Tanh())),
]  # fmt: skip
LAYERS = st.one_of(
    convolutions(), *(st.sampled_from(rows).map(lambda make: make()) for rows in (ACTIVATIONS, NORMS, SCALES))
)


NOT_CHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # an engine is the same for every network


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=NOT_CHECKED)
@given(st.lists(LAYERS, min_size=2, max_size=5))
def test_gradients_of_any_network_are_those_of_eager(engine: str, layers: list[nn.Module]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Conv2d(CHANNELS, 2, 1))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    require_module_same(engine, network, normal(3, CHANNELS, 6, 5))
