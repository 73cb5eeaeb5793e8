"""Single operators, each with its gradient where it has one: arithmetic, views, reductions, indexing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mas_edge.protocol.errors import JobError
from tests.export.emitted.against_eager import normal, require_same

INDEX = torch.tensor([2, 0, 2])
Case = Callable[[Tensor], Tensor]

POINTWISE: dict[str, Case] = {
    "powers": lambda a: a**2 + a**3 + a.abs() ** 0.5 + a.abs() ** 1.5 + (a.abs() + 1) ** -1 + 2**a,
    "alpha": lambda a: torch.add(a, a.flip(0), alpha=3) - torch.sub(a, 2, alpha=0.5) + (1 - a),
    "quotients": lambda a: a / (a.abs() + 2) + a / 3 + 1 / (a.square() + 1),
    "functions": lambda a: a.exp() + (a.abs() + 1).log() + a.sin() * a.cos() + a.tan().tanh() + a.atan() + a.erf(),
    "more functions": lambda a: a.sinh() + a.cosh() + (a / 9).asin() + (a / 9).acos() + (a.abs() + 1).rsqrt(),
    "small differences": lambda a: torch.log1p(a.abs()) + torch.expm1(a),
    "clamped": lambda a: a.clamp(-0.5, 0.5) + a.clamp(min=0.1) + a.clamp(max=0.2) + a.clamp_min(a.mean()),
    "larger and smaller": lambda a: torch.maximum(a, a.flip(1)) + torch.minimum(a, torch.tensor(0.3)),
    "choices": lambda a: torch.where(a > 0, a, 0.5) + torch.where((a < 1) & ~(a <= -1) | (a >= 2), a * 2, a),
    "masked": lambda a: a.masked_fill(a > 0.5, -1.0) * (a != 0) * (a.bool() == True),  # noqa: E712
    "rounded": lambda a: a.floor() + a.ceil() + a.round() + a.sign() + a.trunc(),
    "divided and rounded": lambda a: torch.div(a, 0.3, rounding_mode="floor") + (a / 0.3).trunc(),
    "left over": lambda a: a % 0.3 + a % -0.7 + torch.fmod(a, 0.4),
    "whole numbers": lambda a: (a * 9).long() // 2 + (a * 9).long() % 4 + (a > 0).long() * 2 - (a > 0).sum(),
    "whole numbers towards zero": lambda a: torch.div((a * 9).long(), 2, rounding_mode="trunc") + (a * 9).long() // -4,
    "questions": lambda a: (a.isnan() | (a / 0).isinf() | a.logical_not()).float(),
    "in place": lambda a: (a * 1).mul_(2).add_(1).relu_(),
    "a slice in place": lambda a: _write(a),
}  # fmt: skip
VIEWS: dict[str, Case] = {
    "axes": lambda a: a.permute(2, 0, 1).transpose(0, 2) + a.movedim(0, -1).mT,
    "pieces": lambda a: torch.cat([a[:, 1:], a[:, :1].expand(-1, 2, -1), a[:, ::2]], 1),
    "chosen": lambda a: a[1] + a[:1, -1, :] + a.select(2, 0).unsqueeze(-1).squeeze()[:, :3].sum(),
    "split": lambda a: torch.cat([x * (i + 1) for i, x in enumerate(a.split(2, 2))], 2) + torch.stack(a.unbind(1), 1),
    "chunks": lambda a: a.chunk(2, 2)[0] * a.chunk(2, 2)[1],
    "repeated": lambda a: a.repeat(2, 1, 2).reshape(-1)[:20] + a.repeat_interleave(2, 1).flatten()[:20],
    "turned": lambda a: a.flip(0, 2) + a.roll(1, 2) + a.rot90(2, (0, 1)),
    "padded": lambda a: F.pad(a, (1, -1, 0, 2), value=3.0),
    "filled": lambda a: a + torch.zeros_like(a) + a.new_full((3,), 2.0).sum() + torch.ones(4) + torch.arange(0, 2, 0.5),
    "triangles": lambda a: a.tril() + a.triu(1),
    "unfolded by slices": lambda a: torch.stack([a[..., i : i + 2] for i in range(3)], -1),
    "empty pieces": lambda a: torch.cat([torch.zeros(0), a.flatten()]),
}  # fmt: skip
REDUCTIONS: dict[str, Case] = {
    "sums": lambda a: a.sum() + a.sum(1).mean() + a.sum((0, 2), keepdim=True).squeeze().max() + a.mean(),
    "product": lambda a: a.detach().prod() + a.detach().prod(1),
    "extremes": lambda a: a.amax(1) + a.amin((1,)) + a.max() * a.min() + a.max(1).values + a.min(1).values,
    "places": lambda a: a.argmax(1) + a.argmin(1) + a.argmax() + a.max(1).indices,
    "spread": lambda a: a.var(1) + a.std((1,), correction=0) + a.var((0, 2), keepdim=True).sum(),
    "norms": lambda a: a.norm() + a.norm(dim=1) + a.norm(1, 1) + a.norm(float("inf"), 1) + a.norm(3, 1),
    "truths": lambda a: ((a > 5).any() | (a < 9).all()).float() + (a > 0).any(1) + (a > -9).all(1),
    "running sum": lambda a: a.cumsum(1) + a.logsumexp(1, keepdim=True),
    "products": lambda a: a @ a.mT + torch.bmm(a, a.transpose(1, 2)) + torch.einsum("bij,bkj->bik", a, a),
    "vectors": lambda a: a[0, 0].dot(a[1, 1]) + a[0] @ a[1, 0],
    "scaled products": lambda a: torch.addmm(a[0] @ a[0].T, a[0], a[1].T, beta=2, alpha=3),
}  # fmt: skip
INDEXING: dict[str, Case] = {
    "rows": lambda a: a[:, INDEX] + a.index_select(1, INDEX),
    "pairs": lambda a: a[:, INDEX, INDEX] + a[torch.tensor([1, 0, 0]), INDEX].mean(),
    "gathered": lambda a: a.gather(1, INDEX.expand(2, 3)[..., None].expand(2, 3, 4)),
    "scattered": lambda a: torch.zeros_like(a).scatter_add(2, INDEX.expand(2, 3, 3), a[..., :3]),
    "scattered number": lambda a: a.scatter(1, INDEX[None, :1, None], 7.0),
    "written": lambda a: a.clone().index_put((torch.tensor([1, 0]), INDEX[:2]), a[0, 0]),
    "added": lambda a: a.index_add(1, INDEX, a),
}  # fmt: skip


def _write(a: Tensor) -> Tensor:
    b = a.clone()
    b[:, 1] *= 2
    b[:, ::2, 1:3] = 0
    b[0].add_(1)
    return b


TABLES = {"pointwise": POINTWISE, "views": VIEWS, "reductions": REDUCTIONS, "indexing": INDEXING}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, rows in TABLES.items() for name in rows])
def test_an_operator_does_what_eager_does(engine: str, table: str, name: str) -> None:
    case = TABLES[table][name]
    require_same(engine, lambda a: case(a.to(a.dtype)), normal(2, 3, 4))


ONNX_HAS_NOT: dict[str, Case] = {
    "on axes that are not neighbours": lambda a: a[torch.tensor([1, 0, 0]), :, INDEX],
    "leave scale_grad_by_freq out": lambda a: F.embedding(INDEX, a[0], scale_grad_by_freq=True),
}


@pytest.mark.parametrize("reason", ONNX_HAS_NOT)
def test_what_one_engine_has_not_another_may_have(reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        require_same("onnxruntime", ONNX_HAS_NOT[reason], normal(2, 3, 4))
    require_same("executorch", ONNX_HAS_NOT[reason], normal(2, 3, 4))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lambda a: F.avg_pool2d(a, 2, divisor_override=3), "with divisor_override cannot train"),
        (lambda a: a.sort(1).values, "uses aten.sort.default, which cannot train on .*: use max"),
        (lambda a: torch.linalg.inv(a @ a.mT), "uses aten.linalg_inv_ex.default, which cannot train on"),
        (lambda a: a + torch.rand_like(a), "drawn anew in every step; set the rate to 0"),
        (lambda a: a.half() * 2, "computes in float16; on .*: float32"),
    ],
)  # fmt: skip
def test_what_cannot_be_emitted_is_refused_with_a_way_out(engine: str, case: Case, reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        require_same(engine, case, normal(2, 3, 4))
