"""Norms, activations, look-ups and remainders against PyTorch's own, in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from mas_edge.export.lowering import indexing, norms, pointwise
from mas_edge.protocol.errors import JobError

ATEN = torch.ops.aten


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SHAPES = [(6, 4, 5, 3), (6, 4, 7), (6, 4)]
NAMED = list(itertools.product((True, False), (True, False)))  # a weight, a bias


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("weighted", "biased"), NAMED)
def test_batch_norm_its_statistics_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], training: bool, weighted: bool, biased: bool
) -> None:
    x, mean, variance = normal(*shape) * 3 + 1, normal(4, seed=1), normal(4, seed=2).square() + 0.1
    weight, bias = (normal(4, seed=3) if weighted else None), (normal(4, seed=4) if biased else None)
    options = (training, 0.1, 1e-3)
    wanted = ATEN._native_batch_norm_legit_functional(x, weight, bias, mean, variance, *options)
    found = norms.batch_norm(x, weight, bias, mean, variance, *options)
    for got, expected in zip((found[0], *found[3:]), (wanted[0], *wanted[3:]), strict=True):
        torch.testing.assert_close(got, expected)
    grad = normal(*shape, seed=5)
    arguments = (grad, x, weight, mean, variance, wanted[1], wanted[2], training, 1e-3)
    mask = [True, weighted, weighted]
    expected = ATEN.native_batch_norm_backward(*arguments, mask)
    found_gradients = norms.batch_norm_backward(*arguments, mask)
    for gradient, wanted_gradient, asked in zip(found_gradients, expected, mask, strict=True):
        assert (gradient is not None) == asked
        if asked:
            torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_without_statistics_is_that_of_the_batch(shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(*shape), normal(4, seed=1), normal(4, seed=2)
    wanted = ATEN._native_batch_norm_legit.no_stats(x, weight, bias, True, 0.1, 1e-5)
    for got, expected in zip(norms.batch_norm_of_batch(x, weight, bias, True, 0.1, 1e-5), wanted, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_single_number_a_channel_leaves_the_variance_finite() -> None:
    x, zero = normal(1, 4), torch.zeros(4, dtype=torch.float64)
    assert all(t.isfinite().all() for t in norms.batch_norm(x, None, None, zero, zero, True, 0.1, 1e-5))


def test_a_gradient_without_what_it_is_made_of_is_refused() -> None:
    with pytest.raises(JobError, match="batch norm without the statistics"):
        norms.batch_norm_backward(normal(2, 4), normal(2, 4), None, None, None, None, None, True, 1e-5, [True] * 3)


@pytest.mark.parametrize("padding", [-1, 0, 3])
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 2, 3)])
def test_gradients_of_rows_are_summed_and_that_of_padding_is_none(
    padding: int, scaled: bool, shape: tuple[int, ...]
) -> None:
    places = torch.randint(0, 5, shape, generator=torch.Generator().manual_seed(2))  # row 5 is never read
    grad = normal(*shape, 4)
    expected = ATEN.embedding_dense_backward(grad, places, 6, padding, scaled)
    torch.testing.assert_close(indexing.embedding_backward(grad, places, 6, padding, scaled), expected)


@pytest.mark.parametrize("order", [0, 1, 1.5, 2, 3, -1, math.inf, -math.inf])
@pytest.mark.parametrize("axes", [None, [1], [-1], [0, 2]])
@pytest.mark.parametrize("keepdim", [True, False])
def test_a_norm_of_any_order_is_that_of_pytorch(order: float, axes: list[int] | None, keepdim: bool) -> None:
    x = normal(2, 3, 4)
    expected = ATEN.linalg_vector_norm(x, order, axes, keepdim)
    torch.testing.assert_close(pointwise.vector_norm(x, order, axes, keepdim), expected)


@pytest.mark.parametrize("limit", [0.0, 0.5])
@pytest.mark.parametrize("operator", [ATEN.hardshrink_backward.default, ATEN.softshrink_backward.default])
def test_gradients_of_shrinking_are_those_of_pytorch(operator: Any, limit: float) -> None:
    grad, x = normal(50), normal(50, seed=1)
    torch.testing.assert_close(pointwise.DEFINITIONS[operator](grad, x, limit), operator(grad, x, limit))


DIVISORS = st.integers(-9, 9).filter(bool)


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=6), DIVISORS)
def test_the_remainder_of_whole_numbers_has_the_sign_of_the_divisor(numbers: list[int], divisor: int) -> None:
    found = pointwise.whole_remainder(torch.tensor(numbers), divisor)
    assert found.tolist() == [number % divisor for number in numbers]
    by_tensor = pointwise.whole_remainder(torch.tensor(numbers), torch.full((len(numbers),), divisor))
    assert by_tensor.tolist() == found.tolist()


def test_the_remainder_of_real_numbers_is_left_to_the_kernel() -> None:
    assert pointwise.whole_remainder(normal(3), 2.0) is NotImplemented
