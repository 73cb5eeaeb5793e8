"""Pooling and resampling, forward and gradient, against PyTorch's own in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mas_edge.export.lowering import pooling, resampling
from mas_edge.export.lowering.pooling import windows
from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten
DEFINITIONS = pooling.DEFINITIONS | resampling.DEFINITIONS


def require_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)  # the matrices are made in float32


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGE, SERIES = (2, 3, 8, 7), (2, 3, 11)
# The operator, the gradient's, the shape, the options of both.
LINEAR: dict[str, tuple[Any, Any, tuple[int, ...], list[Any]]] = {
    name: (ATEN.avg_pool2d.default, ATEN.avg_pool2d_backward.default, IMAGE, options)
    for name, options in {
        "mean": [[2, 2], [2, 2], [0, 0], False, True, None],
        "mean, one number for both": [[3], [2], [1], False, True, None],
        "mean, overlapping": [[3, 3], [1, 2], [1, 1], False, True, None],
        "mean, rounded up": [[3, 2], [2, 2], [1, 0], True, True, None],
        "mean, rounded up, padding not counted": [[3, 3], [2, 2], [1, 1], True, False, None],
        "mean, gaps": [[2, 1], [3, 3], [0, 0], False, True, None],
        "mean, stride of the kernel": [[3, 2], [], [0, 0], False, True, None],
        "mean of the whole plane": [[8, 7], [1, 1], [0, 0], False, True, None],
    }.items()
}
RESIZED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "nearest, doubled": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "nearest, factors that differ": (lambda x: F.interpolate(x, scale_factor=(3, 1)), IMAGE),
    "nearest, any size": (lambda x: F.interpolate(x, size=(13, 5)), IMAGE),
    "nearest, a fraction": (lambda x: F.interpolate(x, scale_factor=1.7), IMAGE),
    "nearest, one dimension": (lambda x: F.interpolate(x, scale_factor=3), SERIES),
    "nearest, one dimension, smaller": (lambda x: F.interpolate(x, size=4), SERIES),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear, corners": (lambda x: F.interpolate(x, size=(5, 13), mode="bilinear", align_corners=True), IMAGE),
    "bilinear, a fraction": (lambda x: F.interpolate(x, scale_factor=(1.3, 0.6), mode="bilinear"), IMAGE),
    "linear": (lambda x: F.interpolate(x, size=17, mode="linear"), SERIES),
    "linear, corners": (lambda x: F.interpolate(x, scale_factor=2, mode="linear", align_corners=True), SERIES),
    "adaptive mean": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), IMAGE),
    "adaptive mean, larger": (lambda x: F.adaptive_avg_pool2d(x, (10, 9)), IMAGE),
    "maximum": (lambda x: F.max_pool2d(x, 2), IMAGE),
    "maximum, overlapping": (lambda x: F.max_pool2d(x, 3, 1, 1), IMAGE),
    "maximum, rounded up, dilated": (lambda x: F.max_pool2d(x, 2, 2, 1, 2, ceil_mode=True), IMAGE),
    "adaptive maximum": (lambda x: F.adaptive_max_pool2d(x, (3, 4)), IMAGE),
    "adaptive maximum to one": (lambda x: F.adaptive_max_pool2d(x, 1), IMAGE),
    "adaptive maximum, larger": (lambda x: F.adaptive_max_pool2d(x, (9, 9)), IMAGE),
}


@pytest.mark.parametrize("case", LINEAR)
def test_a_mean_of_windows_and_its_gradient_are_those_of_pytorch(case: str) -> None:
    forward, backward, shape, options = LINEAR[case]
    x = normal(*shape)
    expected = forward(x, *options)
    require_close(DEFINITIONS[forward](x.float(), *options), expected)
    grad = normal(*expected.shape, seed=1)
    require_close(DEFINITIONS[backward](grad.float(), x.float(), *options), backward(grad, x, *options))


class Defined(torch.utils._python_dispatch.TorchDispatchMode):
    """Runs what has a definition by it, the gradients' operators too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        definition = DEFINITIONS.get(func)
        if definition is None:
            return func(*args, **(kwargs or {}))
        self.used.add(str(func))
        return definition(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", RESIZED)
def test_an_operator_on_planes_and_its_gradient_are_those_of_pytorch(case: str) -> None:
    function, shape = RESIZED[case]
    exact = normal(*shape).requires_grad_()
    y = function(exact)
    grad = normal(*y.shape, seed=1)
    (wanted,) = torch.autograd.grad(y, exact, grad)
    x = exact.detach().float().requires_grad_()
    with Defined() as defined:
        got = function(x)
        (found,) = torch.autograd.grad(got, x, grad.float())
    assert any("backward" in name for name in defined.used), defined.used
    require_close(got.detach(), y.detach())
    require_close(found, wanted)


def test_of_several_largest_values_the_first_gets_the_gradient() -> None:
    x = torch.zeros(1, 1, 4, 4)
    y, places = ATEN.adaptive_max_pool2d(x, [2, 2])
    got, found = pooling.adaptive_max_pool(x, [2, 2])
    assert found.tolist() == places.tolist()
    assert got.tolist() == y.tolist()


def test_a_divisor_of_its_own_is_refused_with_a_way_out() -> None:
    with pytest.raises(JobError, match="divisor_override cannot train on this engine: leave it out and scale"):
        pooling.mean_pool(normal(*IMAGE), [2, 2], [2, 2], [0, 0], False, True, 3)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30))
def test_windows_share_out_all_places_in_order(size: int, count: int) -> None:
    found = windows(size, count)
    assert len(found) == count
    assert len({len(places) for places in found}) == 1
    assert {place for places in found for place in places} == set(range(size))
    expected = F.adaptive_max_pool1d(torch.arange(float(size)).view(1, 1, -1), count).flatten()
    assert [max(places) for places in found] == expected.long().tolist()
    assert all(places == sorted(places) for places in found)


SIZES = st.integers(1, 9)


@settings(deadline=None, max_examples=60)
@given(SIZES, SIZES, st.booleans())
def test_a_gradient_is_the_transpose_of_its_map(size: int, result: int, align: bool) -> None:
    """<grad, A x> = <A^T grad, x>, for every size of every map."""
    x, grad = normal(2, 1, size).float(), normal(2, 1, result, seed=1).float()
    pairs = [
        (resampling.nearest(x, [result]), resampling.nearest_backward(grad, [result], [2, 1, size])),
        (resampling.linear(x, [result], align), resampling.linear_backward(grad, [result], [2, 1, size], align)),
    ]
    for forward, backward in pairs:
        torch.testing.assert_close((grad * forward).sum(), (backward * x).sum(), rtol=1e-4, atol=1e-4)
