from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from mas_edge.export.litert.scaling import scale_before_expanding

X = torch.arange(3.0).reshape(3, 1)


def traced(function: Callable[[Tensor], Tensor]) -> fx.GraphModule:
    module = make_fx(function)(X)
    for node in module.graph.nodes:
        node.meta["module"] = ""
    return module


def calls(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("function", "operator"),
    [(lambda x: x.expand(3, 4) / 4, "aten.div.Tensor"), (lambda x: x.expand(3, 4) * 0.5, "aten.mul.Tensor")],
)
def test_a_tensor_is_scaled_before_it_is_expanded(function: Callable[[Tensor], Tensor], operator: str) -> None:
    module = traced(function)
    assert calls(module) == ["aten.expand.default", operator]
    scale_before_expanding(module.graph)
    module.recompile()
    assert calls(module) == [operator, "aten.expand.default"]
    torch.testing.assert_close(module(X), function(X))


def test_what_is_used_elsewhere_or_scaled_by_a_tensor_stays() -> None:
    def function(x: Tensor) -> Tensor:
        spread = x.expand(3, 4)
        return spread / 4 + spread * x

    module = traced(function)
    scale_before_expanding(module.graph)
    module.recompile()
    assert calls(module).count("aten.expand.default") == 2
    assert "aten.mul.Tensor" in calls(module)
    torch.testing.assert_close(module(X), function(X))


def test_what_is_scaled_first_may_still_be_viewed_in_another_shape() -> None:
    def function(x: Tensor) -> Tensor:
        return (x.expand(3, 4) / 4).view(12)

    module = traced(function)
    scale_before_expanding(module.graph)
    module.recompile()
    torch.testing.assert_close(module(X), function(X))
