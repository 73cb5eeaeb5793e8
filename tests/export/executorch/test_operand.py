"""A chain of views on an operand means what the same chain means in PyTorch."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from mas_edge.export.executorch.operand import Operand, cut, expanded, fresh, merged, permuted, reshaped, without
from mas_edge.export.executorch.views import VIEWS

ATEN = torch.ops.aten
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def read(base: Tensor, operand: Operand) -> Tensor:
    return torch.as_strided(base, operand.shape, operand.strides, operand.offset)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Tensor, Tensor, Operand]:
    """Memory, a view of it by PyTorch, and the same view as an operand."""
    shape = draw(SHAPES)
    base = torch.arange(torch.Size(shape).numel())
    view, operand = base.view(shape), fresh(shape, "int64")
    for _ in range(draw(st.integers(1, 5))):
        view, operand = draw(st.sampled_from(STEPS))(draw, view, operand)
    return base, view, operand


Step = tuple[Tensor, Operand]


def permute(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    axes = draw(st.permutations(range(view.dim())))
    signed = [axis - view.dim() if draw(st.booleans()) else axis for axis in axes]
    return view.permute(signed), permuted(operand, signed)


def slice_(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    assume(view.dim())
    axis = draw(st.integers(-view.dim(), view.dim() - 1))
    start, end = draw(st.none() | st.integers(-6, 6)), draw(st.none() | st.integers(-6, 6))
    step = draw(st.integers(1, 3))
    taken = ATEN.slice.Tensor(view, axis, start, end, step)
    return taken, VIEWS[ATEN.slice.Tensor](operand, [tuple(taken.shape)], axis, start, end, step)


def select(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    assume(view.dim())
    axis = draw(st.integers(-view.dim(), view.dim() - 1))
    size = view.shape[axis]
    assume(size)
    place = draw(st.integers(-size, size - 1))
    return view.select(axis, place), VIEWS[ATEN.select.int](operand, [], axis, place)


def expand(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    front = draw(st.lists(st.integers(1, 3), max_size=1))
    sizes = [draw(st.integers(1, 3)) if size == 1 else size for size in view.shape]
    wanted = (*front, *sizes)
    return view.expand(wanted), expanded(operand, wanted)


def reshape(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    """Only where no copy is needed."""
    ones = draw(st.booleans())
    wanted = (1, *(size for size in view.shape if size != 1), 1) if ones else (view.numel(),)
    made = reshaped(operand, wanted)
    return (view, operand) if made is None else (view.reshape(wanted), made)


def pieces(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    assume(view.dim())
    axis = draw(st.integers(-view.dim(), view.dim() - 1))
    parts = view.split(2, axis)
    made = VIEWS[ATEN.split.Tensor](operand, [tuple(part.shape) for part in parts], 2, axis)
    place = draw(st.integers(0, len(parts) - 1))
    return parts[place], made[place]


def turn(draw: st.DrawFn, view: Tensor, operand: Operand) -> Step:
    assume(view.dim())
    first, second = (draw(st.integers(-view.dim(), view.dim() - 1)) for _ in range(2))
    return view.transpose(first, second), VIEWS[ATEN.transpose.int](operand, [], first, second)


STEPS = [permute, slice_, select, expand, reshape, pieces, turn]


@settings(deadline=None, max_examples=400)
@given(chains())
def test_any_chain_of_views_means_what_pytorch_says(chain: tuple[Tensor, Tensor, Operand]) -> None:
    base, view, operand = chain
    assert operand.shape == tuple(view.shape)
    assert operand.size == view.numel()
    torch.testing.assert_close(read(base, operand), view, rtol=0, atol=0)
    if operand.contiguous:
        assert view.is_contiguous()
    short = merged(operand)
    assert len(short.shape) <= len([size for size in operand.shape if size != 1])
    torch.testing.assert_close(read(base, short).flatten(), view.flatten(), rtol=0, atol=0)


def test_a_constant_is_contiguous_only_from_its_first_number() -> None:
    """A kernel is given a constant by its number: it cannot begin in the middle."""
    constant = fresh((4,), "float32", constant=3)
    assert constant.contiguous
    assert not cut(constant, 0, 1, 2).contiguous
    assert cut(fresh((4,), "float32", 0), 0, 1, 2).contiguous


def test_what_does_not_lie_in_order_takes_no_other_shape() -> None:
    assert reshaped(permuted(fresh((2, 3), "float32"), [1, 0]), (6,)) is None
    assert without(fresh((2, 1, 3), "float32"), -2).shape == (2, 3)
