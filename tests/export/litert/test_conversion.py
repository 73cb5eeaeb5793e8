from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mas_edge.export.litert import conversion
from mas_edge.export.litert.conversion import Signature, convert, reason
from mas_edge.export.litert.inference import export_inference
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import JobError, ServerError
from tests.export.litert.environment import needs_converter
from tests.learning.jobs import KINDS, series_job

X = torch.zeros(1, 3, 4)
SAID = {
    "Lowering not found: aten.cummax.default\n\nWhile executing %cummax": "no form of the operator aten.cummax.default",
    "MLIRError: failed to legalize operation 'mhlo.convolution' that was": "no form of the operator mhlo.convolution",
    "Unsupported ir element type: complex<f32>\n\nWhile executing [target=torch.ops.aten.view_as_real.default](args":
        "no form of the operator aten.view_as_real.default",
    "ValueError: something else\nin two lines": "ValueError: something else",
}  # fmt: skip


@pytest.mark.parametrize("text", SAID)
def test_the_operator_is_found_in_what_the_converter_says(text: str) -> None:
    assert SAID[text] in reason(text)
    assert "\n" not in reason(text)


def test_without_the_build_environment_one_line_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(conversion, "find_spec", lambda name: None if name == "litert_torch" else find("json"))
    job = series_job(KINDS[:1])
    with pytest.raises(
        ServerError,
        match=r"^exporting to LiteRT needs litert_torch: make an environment .*'mas-edge\[litert-export\]'$",
    ):
        export_inference(job, ["label"], vector_of(build(job, ["label"])))


class Cumulative(nn.Module):
    """An operator that LiteRT has not."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x.cummax(1).values,)


class Branching(nn.Module):
    """A branch on a value, which no exported graph can hold."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x if x.sum() > 0 else -x,)


@needs_converter
@pytest.mark.parametrize(
    ("module", "text"),
    [(Cumulative(), "has no form of the operator aten.cummax.default"), (Branching(), "GuardOnDataDependentSymNode")],
)
def test_a_module_that_cannot_be_converted_is_the_authors_to_change(
    module: nn.Module, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(JobError, match=f"^the network cannot be written for LiteRT: .*{text}") as caught:
        convert([Signature("infer", module.eval(), (X,), ["x"], ["y"])], "the network")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_converter_that_crashes_becomes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "require_converter", lambda: None)
    monkeypatch.setattr(conversion, "CHILD", "tests.export.litert.crashing")
    with pytest.raises(
        JobError, match=r"^the network cannot .*: its converter crashed with status -11; .* mhlo\.scatter"
    ):
        convert([Signature("infer", nn.Identity(), (X,), ["x"], ["y"])], "the network")
