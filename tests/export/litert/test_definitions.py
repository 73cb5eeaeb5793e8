"""The operators that are rewritten for LiteRT, as PyTorch runs them: no converter is needed for that."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mas_edge.export.litert.convolution import convolution, convolution_backward, fitted, spread
from mas_edge.export.litert.indexing import embedding_backward, index_put, scatter_add, scatter_value
from mas_edge.export.litert.normalizing import group_norm
from mas_edge.export.litert.pooling import max_pool, max_pool_backward

ATEN = torch.ops.aten


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Numbers of one decimal: some are equal, so that the first of several largest ones matters."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made.round(decimals=1)


# x, weight, stride, padding, dilation, transposed, output padding, groups
CONVOLUTIONS: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 4, 7, 6), (6, 4, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
    "strides that leave places over": ((2, 4, 8, 7), (6, 4, 3, 2), [2, 3], [1, 0], [1, 1], False, [0, 0], 1),
    "dilated": ((2, 4, 9, 9), (6, 4, 3, 3), [1, 2], [2, 0], [2, 3], False, [0, 0], 1),
    "1x1 with a stride": ((2, 4, 7, 6), (6, 4, 1, 1), [2, 2], [0, 0], [1, 1], False, [0, 0], 1),
    "padding beyond the kernel": ((2, 4, 5, 5), (6, 4, 2, 2), [1, 1], [3, 2], [1, 1], False, [0, 0], 1),
    "groups": ((2, 4, 7, 6), (6, 2, 3, 3), [2, 1], [1, 1], [1, 1], False, [0, 0], 2),
    "depthwise": ((2, 4, 7, 6), (8, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 4),
    "one dimension": ((2, 4, 11), (6, 4, 5), [2], [2], [1], False, [0], 1),
    "transposed": ((2, 4, 5, 5), (4, 6, 3, 3), [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
    "transposed, groups": ((2, 4, 5, 5), (4, 3, 3, 2), [2, 3], [1, 0], [1, 1], True, [0, 1], 2),
    "transposed, dilated": ((2, 4, 6), (4, 3, 3), [3], [1], [2], True, [2], 1),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_and_its_gradients_are_those_of_pytorch(case: str) -> None:
    x, weight, *options = CONVOLUTIONS[case]
    transposed, groups = options[3], options[5]
    x, weight = normal(*x), normal(*weight, seed=1)
    bias = normal(weight.shape[1] * groups if transposed else weight.shape[0], seed=2)
    expected = ATEN.convolution(x, weight, bias, *options)
    if transposed:
        torch.testing.assert_close(convolution(x, weight, bias, *options), expected)
    else:
        assert convolution(x, weight, bias, *options) is NotImplemented
    grad = normal(*expected.shape, seed=3)
    arguments: tuple[Any, ...] = (grad, x, weight, [len(bias)], *options, [True, True, True])
    for found, wanted in zip(convolution_backward(*arguments), ATEN.convolution_backward(*arguments), strict=True):
        torch.testing.assert_close(found, wanted)


def test_gradients_that_nobody_asked_for_are_left_out() -> None:
    x, weight, *options = CONVOLUTIONS["plain"]
    asked = [False, True, False]
    arguments: tuple[Any, ...] = (normal(2, 6, 7, 6), normal(*x), normal(*weight), None, *options, asked)
    found = convolution_backward(*arguments)
    assert [gradient is None for gradient in found] == [True, False, True]


def test_zeros_come_between_the_places_of_an_axis() -> None:
    assert spread(torch.tensor([[1, 2, 3]]), 1, 3).tolist() == [[1, 0, 0, 2, 0, 0, 3]]
    assert spread(torch.tensor([[1], [2]]), 0, 2).tolist() == [[1], [0], [2]]


@pytest.mark.parametrize(
    ("before", "size", "expected"),
    [(2, 7, [0, 0, 1, 2, 3, 0, 0]), (-1, 2, [2, 3]), (-1, 4, [2, 3, 0, 0]), (1, 2, [0, 1]), (0, 3, [1, 2, 3])],
)
def test_an_axis_is_moved_and_cut_or_filled(before: int, size: int, expected: list[int]) -> None:
    assert fitted(torch.tensor([1, 2, 3]), 0, before, size).tolist() == expected


# kernel, stride, padding, dilation, rounded up
POOLS: dict[str, tuple[Any, ...]] = {
    "apart": ([2, 2], [2, 2], [0, 0], [1, 1], False),
    "overlapping, padded": ([3, 3], [2, 2], [1, 1], [1, 1], False),
    "overlapping by all but one": ([3, 3], [1, 1], [1, 1], [1, 1], False),
    "rounded up": ([3, 3], [2, 2], [1, 1], [1, 1], True),
    "rounded up, the last begins beyond": ([2, 2], [2, 2], [1, 1], [1, 1], True),
    "dilated": ([2, 2], [3, 3], [0, 0], [2, 2], True),
    "sizes that differ": ([3, 2], [1, 2], [1, 0], [1, 1], False),
    "the stride of the kernel": ([2, 3], [], [0, 0], [1, 1], False),
}


@pytest.mark.parametrize("case", POOLS)
def test_a_pooled_maximum_its_place_and_its_gradient_are_those_of_pytorch(case: str) -> None:
    options: tuple[Any, ...] = POOLS[case]
    x = normal(2, 3, 9, 7)
    expected, places = ATEN.max_pool2d_with_indices(x, *options)
    found = max_pool(x, *options)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], places)
    grad = normal(*expected.shape, seed=4)
    wanted = ATEN.max_pool2d_with_indices_backward(grad, x, *options, places)
    arguments: tuple[Any, ...] = (grad, x, *options, places)
    torch.testing.assert_close(max_pool_backward(*arguments), wanted)


@pytest.mark.parametrize(("padding", "scaled"), list(itertools.product([-1, 1], [False, True])))
def test_the_gradient_of_an_embedding_is_that_of_pytorch(padding: int, scaled: bool) -> None:
    grad, places = normal(2, 3, 5), torch.tensor([[0, 1, 1], [6, 2, 0]])
    found = embedding_backward(grad, places, 8, padding, scaled)
    torch.testing.assert_close(found, ATEN.embedding_dense_backward(grad, places, 8, padding, scaled))


PUT: dict[str, tuple[list[Any], tuple[int, ...]]] = {
    "channels": ([None, [2, 0, 2]], (4, 3, 5)),
    "rows": ([[3, -1, 0]], (3, 3, 5)),
    "the last axis": ([None, None, [4, 4]], (4, 3, 2)),
    "pairs": ([[0, 1, 1], [2, 2, 0]], (3, 5)),
    "pairs of another shape": ([[[0], [1]], [2, 0]], (2, 2, 5)),
    "one value for all": ([None, [0, 1]], ()),
}


@pytest.mark.parametrize("case", PUT)
def test_adding_at_places_is_that_of_pytorch(case: str) -> None:
    places, shape = PUT[case]
    indices = [None if place is None else torch.tensor(place) for place in places]
    x, values = normal(4, 3, 5), normal(*shape, seed=1)
    torch.testing.assert_close(index_put(x, indices, values, True), ATEN.index_put(x, indices, values, True))


def test_writing_and_scattered_axes_stay_as_they_are() -> None:
    x, place = normal(4, 3, 5), torch.tensor([1, 2])
    assert index_put(x, [place], normal(2, 3, 5)) is NotImplemented
    assert index_put(x, [place, None, place], normal(2, 3), True) is NotImplemented
    assert scatter_add(x, 1, torch.zeros(2, 3, 5, dtype=torch.int64), normal(2, 3, 5)) is NotImplemented
    assert scatter_value(x, 1, torch.zeros(2, 3, 5, dtype=torch.int64), 1.0) is NotImplemented


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_gradient_of_a_gather_is_that_of_pytorch(axis: int) -> None:
    x = normal(4, 3, 5)
    shape = [2 if i == axis % 3 else size for i, size in enumerate(x.shape)]
    places = torch.randint(0, x.shape[axis], shape, generator=torch.Generator().manual_seed(2))
    source = normal(*shape, seed=1)
    torch.testing.assert_close(scatter_add(x, axis, places, source), ATEN.scatter_add(x, axis, places, source))
    torch.testing.assert_close(scatter_value(x, axis, places, -2.5), ATEN.scatter.value(x, axis, places, -2.5))


@pytest.mark.parametrize("given", [True, False])
def test_group_norm_by_means_is_that_of_pytorch(given: bool) -> None:
    x = normal(2, 6, 3, 5)
    scale, shift = (normal(6, seed=seed) if given else None for seed in (1, 2))
    options = (scale, shift, 2, 6, 15, 3, 1e-5)
    for got, expected in zip(group_norm(x, *options), ATEN.native_group_norm(x, *options), strict=True):
        torch.testing.assert_close(got, expected)
