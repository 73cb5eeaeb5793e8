"""Convolution by gathers and products, against PyTorch's own, in float64."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mas_edge.export.lowering import convolution as definitions
from mas_edge.export.lowering.convolution import convolution, convolution_backward
from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten
Case = tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...]]  # x, weight, options


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_case() -> Iterator[Case]:
    """Of one and two dimensions, all combinations of small options that PyTorch accepts."""
    options = itertools.product((1, 2), (1, 2, 3), (0, 1, 2), (1, 2), (1, 2, 4), (False, True), (1, 2, 3), (0, 1))
    for dims, stride, padding, dilation, groups, transposed, kernel, extra in options:
        size = (11, 8)[:dims]
        reach = dilation * (kernel - 1)
        if (extra and not transposed) or extra >= max(stride, dilation):
            continue
        if transposed and min((n - 1) * stride - 2 * padding + reach + extra + 1 for n in size) < 1:
            continue
        weight = (4, 8 // groups) if transposed else (8, 4 // groups)
        each = ([stride] * dims, [padding] * dims, [dilation] * dims, transposed, [extra] * dims, groups)
        yield (2, 4, *size), (*weight, *[kernel] * dims), each


SAMPLE = random.Random(3).sample(list(every_case()), 120)
CORNERS: dict[str, Case] = {
    "depthwise": ((2, 4, 7, 6), (4, 1, 3, 3), ([1, 1], [1, 1], [1, 1], False, [0, 0], 4)),
    "depthwise, two a channel": ((2, 4, 7, 6), (8, 1, 5, 3), ([2, 1], [2, 0], [1, 2], False, [0, 0], 4)),
    "options that differ": ((1, 4, 9, 7), (6, 2, 3, 2), ([2, 3], [0, 1], [1, 3], False, [0, 0], 2)),
    "places left over": ((2, 3, 8, 9), (5, 3, 3, 3), ([3, 2], [0, 0], [1, 1], False, [0, 0], 1)),
    "a stride beyond the kernel": ((2, 3, 9, 9), (5, 3, 2, 2), ([4, 3], [0, 0], [1, 1], False, [0, 0], 1)),
    "padding beyond the kernel": ((2, 3, 4, 4), (5, 3, 2, 2), ([1, 1], [3, 2], [1, 1], False, [0, 0], 1)),
    "a kernel of the whole plane": ((2, 3, 4, 5), (5, 3, 4, 5), ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    "one place, one sample": ((1, 1, 1, 1), (1, 1, 1, 1), ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    "transposed, differing, groups": ((2, 4, 4, 5), (4, 3, 3, 2), ([3, 2], [1, 0], [1, 2], True, [2, 1], 2)),
    "transposed, depthwise": ((2, 4, 4, 5), (4, 1, 4, 4), ([2, 2], [1, 1], [1, 1], True, [0, 0], 4)),
    "transposed, gaps between": ((2, 2, 3, 3), (2, 3, 2, 2), ([4, 3], [0, 0], [1, 1], True, [1, 0], 1)),
    "transposed, cut by padding": ((2, 2, 5, 5), (2, 3, 3, 3), ([1, 1], [2, 2], [1, 1], True, [0, 0], 1)),
    "one dimension": ((2, 4, 12), (6, 2, 5), ([2], [2], [2], False, [0], 2)),
    "one dimension, transposed": ((2, 4, 6), (4, 3, 3), ([3], [1], [2], True, [2], 1)),
}


def hold(case: Case) -> None:
    x, weight, options = normal(*case[0]), normal(*case[1], seed=1), case[2]
    transposed, groups = options[3], options[5]
    bias = normal(weight.shape[1] * groups if transposed else weight.shape[0], seed=2)
    expected = ATEN.convolution(x, weight, bias, *options)
    torch.testing.assert_close(convolution(x, weight, bias, *options), expected)
    grad = normal(*expected.shape, seed=3)
    arguments = (grad, x, weight, [len(bias)], *options, [True] * 3)
    for got, wanted in zip(convolution_backward(*arguments), ATEN.convolution_backward(*arguments), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("case", CORNERS)
def test_a_convolution_and_its_gradients_are_those_of_pytorch(case: str) -> None:
    hold(CORNERS[case])


def test_so_is_any_combination_of_options() -> None:
    for case in SAMPLE:
        try:
            hold(case)
        except AssertionError as error:
            raise AssertionError(case) from error


@pytest.mark.parametrize("limit", [1, 500])
@pytest.mark.parametrize("case", ["depthwise", "options that differ", "transposed, differing, groups", "one dimension"])
def test_a_batch_that_is_gathered_in_parts_gives_the_same(
    case: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "LIMIT", limit)
    x, *rest = CORNERS[case]
    hold(((5, *x[1:]), *rest))  # type: ignore[arg-type]


def test_only_the_gradients_that_are_asked_for_are_computed() -> None:
    x, weight, grad = normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(2, 4, 3, 3)
    options = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    for mask in itertools.product((True, False), repeat=3):
        found = convolution_backward(grad, x, weight, [4], *options, mask)
        assert tuple(each is not None for each in found) == mask


def test_three_dimensions_are_refused() -> None:
    options = ([1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1)
    with pytest.raises(JobError, match="a convolution over 3 dimensions; this engine has those over one and two"):
        convolution(normal(1, 1, 3, 3, 3), normal(1, 1, 1, 1, 1), None, *options)
