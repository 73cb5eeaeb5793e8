from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F  # noqa: N812

from mas_edge.export.functional import functional
from mas_edge.export.graph import method_of
from mas_edge.export.onnx_training.emitter import CONVERTERS
from mas_edge.export.trace import trace_program
from mas_edge.protocol.program import Value
from tests.learning.jobs import KINDS, series_job


def calls(function: Callable[[Tensor], Tensor]) -> list[fx.Node]:
    traced = make_fx(lambda x: (function(x),), tracing_mode="fake", _allow_non_fake_inputs=True)(
        torch.zeros(2, 4, 3, 3)
    )
    method = method_of(traced, [Value("x", [2, 4, 3, 3], "float32")], ["y"])
    return [node for node in functional(method, "here", CONVERTERS).nodes if node.op == "call_function"]


def names(function: Callable[[Tensor], Tensor]) -> list[str]:
    return [str(node.target) for node in calls(function)]


def written(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0].add_(1)
    return y.relu_()


def test_nothing_is_changed_in_place_afterwards() -> None:
    found = names(written)
    assert not any(name.split(".")[1].endswith("_") for name in found)
    assert found[-1] == "aten.relu.default"


def test_running_statistics_come_out_of_a_batch_norm() -> None:
    def norm(x: Tensor) -> Tensor:
        mean, var = torch.zeros(4) + x[0, 0, 0, 0] * 0, torch.ones(4) + x[0, 0, 0, 0] * 0
        return F.batch_norm(x, mean, var, training=True).sum() + mean.sum() + var.sum()

    assert "aten._native_batch_norm_legit_functional.default" in names(norm)


def test_what_has_a_converter_stays_and_the_rest_is_replaced_by_its_definition() -> None:
    assert names(F.gelu) == ["aten.gelu.default"]
    assert "aten.hardswish.default" not in names(F.hardswish)


def test_random_numbers_keep_their_name() -> None:
    assert any("bernoulli" in name for name in names(lambda x: F.dropout(x, 0.5)))


def test_shapes_and_modules_are_known() -> None:
    method = trace_program(series_job(KINDS[:1]), "g", ["label"], ["evaluate"]).methods["evaluate"]
    graph = functional(method, "here", CONVERTERS)
    convolution = next(node for node in graph.nodes if str(node.target) == "aten.convolution.default")
    assert convolution.meta["module"] == "encoder.0.0"
    assert convolution.meta["val"].shape == (6, 4, 16)
