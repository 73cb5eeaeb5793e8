"""Every layer that issue and guide promise, output and gradients on ONNX Runtime against eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tests.export.emitted.against_eager import normal, require_module_same, require_same

IMAGE = (2, 4, 7, 6)
SERIES = (2, 4, 11)

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv 1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), SERIES),
    "conv 1d, stride 2, dilation 2": (lambda: nn.Conv1d(4, 6, 3, 2, padding=2, dilation=2), SERIES),
    "conv 1d, stride 3, kernel 2": (lambda: nn.Conv1d(4, 6, 2, 3), SERIES),
    "conv 1d, depthwise": (lambda: nn.Conv1d(4, 8, 5, padding=2, groups=4), SERIES),
    "conv 2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), IMAGE),
    "conv 2d, 1x1": (lambda: nn.Conv2d(4, 6, 1), IMAGE),
    "conv 2d, 1x1, stride 2": (lambda: nn.Conv2d(4, 6, 1, 2, bias=False), IMAGE),
    "conv 2d, stride 2": (lambda: nn.Conv2d(4, 6, 3, 2, padding=1), IMAGE),
    "conv 2d, 7x7, stride 2": (lambda: nn.Conv2d(4, 3, 7, 2, padding=3), IMAGE),
    "conv 2d, sizes that differ": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), padding=(0, 1), dilation=(1, 3)), IMAGE),
    "conv 2d, padding same": (lambda: nn.Conv2d(4, 6, (3, 5), padding="same"), IMAGE),
    "conv 2d, groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGE),
    "conv 2d, depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), IMAGE),
    "conv 2d, depthwise, stride 2": (lambda: nn.Conv2d(4, 4, 5, 2, padding=2, groups=4), IMAGE),
    "conv 2d, depthwise, dilated": (lambda: nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4), IMAGE),
    "transposed conv 1d": (lambda: nn.ConvTranspose1d(4, 3, 4, 2, padding=1), SERIES),
    "transposed conv 2d": (lambda: nn.ConvTranspose2d(4, 6, 3, padding=1), IMAGE),
    "transposed conv 2d, output padding": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1), IMAGE),
    "transposed conv 2d, groups": (lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2, bias=False), IMAGE),
    "linear": (lambda: nn.Linear(6, 3), IMAGE),
    "linear without bias": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(168, 3, bias=False)), IMAGE),
    "bilinear form": (lambda: nn.Sequential(nn.Linear(6, 4), nn.Unflatten(3, (2, 2))), IMAGE),
    "group norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "group norm, 1d, no weights": (lambda: nn.GroupNorm(4, 4, affine=False), SERIES),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "layer norm": (lambda: nn.LayerNorm(6), IMAGE),
    "layer norm over three axes": (lambda: nn.LayerNorm([4, 7, 6]), IMAGE),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), IMAGE),
    "layer norm without weights": (lambda: nn.LayerNorm(6, elementwise_affine=False), IMAGE),
    "batch norm": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch norm 1d": (lambda: nn.BatchNorm1d(4), SERIES),
    "batch norm, evaluating": (lambda: nn.BatchNorm2d(4).eval(), IMAGE),
    "batch norm, no weights": (lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    "batch norm, no statistics": (lambda: nn.BatchNorm2d(4, track_running_stats=False), IMAGE),
    "max pool 1d": (lambda: nn.MaxPool1d(3, 2), SERIES),
    "max pool 2d": (lambda: nn.MaxPool2d(2), IMAGE),
    "max pool 2d, overlapping": (lambda: nn.MaxPool2d(3, 2, padding=1), IMAGE),
    "max pool 2d, dilated, rounded up": (lambda: nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True), IMAGE),
    "mean pool 1d": (lambda: nn.AvgPool1d(3, 2, padding=1), SERIES),
    "mean pool 2d": (lambda: nn.AvgPool2d(2), IMAGE),
    "mean pool 2d, padding": (lambda: nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), IMAGE),
    "mean pool 2d, padding not counted": (lambda: nn.AvgPool2d(3, (2, 1), padding=1, count_include_pad=False), IMAGE),
    "adaptive mean pool to 1": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive mean pool": (lambda: nn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    "adaptive mean pool 1d": (lambda: nn.AdaptiveAvgPool1d(4), SERIES),
    "adaptive max pool": (lambda: nn.AdaptiveMaxPool2d((3, 4)), IMAGE),
    "adaptive max pool 1d": (lambda: nn.AdaptiveMaxPool1d(4), SERIES),
    "nearest upsampling": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "nearest upsampling to any size": (lambda: nn.Upsample(size=(10, 9)), IMAGE),
    "nearest upsampling by a fraction": (lambda: nn.Upsample(scale_factor=1.6), IMAGE),
    "nearest upsampling 1d": (lambda: nn.Upsample(scale_factor=3), SERIES),
    "bilinear upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear upsampling, corners": (lambda: nn.Upsample(size=(9, 8), mode="bilinear", align_corners=True), IMAGE),
    "linear upsampling 1d": (lambda: nn.Upsample(scale_factor=2, mode="linear"), SERIES),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), (2, 3, 4, 6)),
    "reflection padding": (lambda: nn.ReflectionPad2d(1), IMAGE),
    "zero padding": (lambda: nn.ZeroPad2d((1, 0, 2, -1)), IMAGE),
    "softmax": (lambda: nn.Softmax(1), IMAGE),
    "log softmax": (lambda: nn.LogSoftmax(-1), IMAGE),
    "prelu": (lambda: nn.PReLU(4), IMAGE),
    "gru cell": (lambda: nn.Sequential(nn.Flatten(), Cell(nn.GRUCell(168, 3))), IMAGE),
    "lstm": (lambda: First(nn.LSTM(11, 3, batch_first=True)), SERIES),
    "gru": (lambda: First(nn.GRU(11, 3, batch_first=True)), SERIES),
    "attention": (lambda: Attention(), (2, 5, 8)),
    "transformer layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True), (2, 5, 8)),
    "activation in place": (lambda: nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU(inplace=True)), IMAGE),
}  # fmt: skip
ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Hardtanh(), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh(), nn.Softplus(),
    nn.Softsign(), nn.Tanhshrink(), nn.Hardshrink(), nn.Softshrink(), nn.GLU(1), nn.Identity(),
]  # fmt: skip


class Cell(nn.Module):
    """A recurrent cell on one step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x)
        return output


class First(Cell):
    """The outputs of a recurrent layer, without its last state."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x)[0]
        return output


class Attention(nn.Module):
    """Self-attention through the fused operator, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_gradients_are_those_of_eager(engine: str, name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    require_module_same(engine, make(), normal(*shape))


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=str)
def test_an_activation_and_its_gradient_are_those_of_eager(engine: str, layer: nn.Module) -> None:
    require_module_same(engine, layer, 2 * normal(*IMAGE))


CLASSES = torch.tensor([[0, 2, 1], [1, -100, 2]])
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": lambda a, _b: F.cross_entropy(a, CLASSES),
    "cross-entropy, unreduced": lambda a, _b: F.cross_entropy(a, CLASSES, reduction="none"),
    "cross-entropy, weighted": lambda a, _b: F.cross_entropy(a, CLASSES, weight=torch.tensor([1, 2, 0.5]).to(a.dtype)),
    "cross-entropy, smooth": lambda a, _b: F.cross_entropy(a, CLASSES, label_smoothing=0.1),
    "cross-entropy, soft": lambda a, b: F.cross_entropy(a, b.softmax(1)),
    "binary cross-entropy": lambda a, b: F.binary_cross_entropy_with_logits(a, b.sigmoid()),
    "l1": F.l1_loss, "l2": F.mse_loss, "huber": F.huber_loss, "smooth l1": F.smooth_l1_loss,
    "cosine": lambda a, b: 1 - F.cosine_similarity(a, b, dim=1),
    "divergence": lambda a, b: F.kl_div(a.log_softmax(1), b.softmax(1), reduction="batchmean"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_and_its_gradients_are_those_of_eager(engine: str, name: str) -> None:
    require_same(engine, LOSSES[name], normal(2, 3, 3), normal(2, 3, 3, seed=1))


def test_an_embedding_learns_where_it_was_read_and_never_at_its_padding(engine: str) -> None:
    index = torch.tensor([[1, 4, 1], [0, 3, 1]])
    require_same(engine, lambda table: F.embedding(index, table, padding_idx=3), normal(5, 2))
    require_same(engine, lambda table: F.embedding(index, table), normal(5, 2))
