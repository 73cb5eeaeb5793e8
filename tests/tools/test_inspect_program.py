from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.program import Constant, Method, Node, Program, Value
from mas_edge.protocol.weights import Entry, Layout
from tests.docs.pages import ROOT

LAYOUT = Layout(
    [Entry("encoder.w", [3, 2], "encoder"), Entry("a.b", [1], "a"), Entry("encoder.mean", [2], "encoder", False)]
)
METHOD = Method(
    inputs=[Value("weights", [9], "float32")],
    outputs=[Value("losses", [1], "float32")],
    results=["n2"],
    nodes=[
        Node("n0", "aten.mul.Tensor", [{"ref": "weights"}, {"ref": "c0"}]),
        Node("n1", "aten.mul.Tensor", [{"ref": "n0"}, 2.0]),
        Node("n2", "aten.sum.dim_IntList", [{"ref": "n1"}, [0]]),
    ],
    constants=[Constant("c0", [9], "float32", bytes(36))],
)
PROGRAM = Program(1, "group-0", ["a"], 16, [6, 64], {}, LAYOUT, {"evaluate": METHOD})


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script; its folder is no package."""
    spec = importlib.util.spec_from_file_location("inspect_program", ROOT / "tools" / "inspect_program.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_program_is_printed_with_everything_a_person_asks_about(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = program_format.dump(PROGRAM)
    (tmp_path / "program").write_bytes(data)
    assert tool.main([str(tmp_path / "program")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"program  group-0 for torch, format 1, {len(data)} bytes",
        f"sha256   {digest_of(data)}",
        "tasks    a",
        "batch    16 samples of shape [6, 64]",
        "weights  9 numbers, 7 of them trained: encoder 8, a 1",
        "",
        "evaluate: 3 calls of 2 operators, 36 bytes of constants",
        "  in   weights float32 [9]",
        "  out  losses float32 [1]",
        "     2 aten.mul.Tensor",
        "     1 aten.sum.dim_IntList",
    ]


def test_a_program_for_onnxruntime_is_printed_with_the_operators_of_its_models(tool: ModuleType) -> None:
    double = helper.make_node("Add", ["weights", "c"], ["out.losses"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [9]) for name in ("weights", "out.losses")]
    constant = numpy_helper.from_array(np.ones(9, np.float32), "c")
    model = helper.make_model(helper.make_graph([double], "g", values[:1], values[1:], [constant]))
    method = Method(METHOD.inputs, METHOD.outputs, [], [], [], model.SerializeToString())
    program = replace(PROGRAM, methods={"evaluate": method}, engine="onnxruntime")
    lines = tool.page(program, b"")
    assert lines[0] == "program  group-0 for onnxruntime, format 1, 0 bytes"
    assert lines[6] == "evaluate: 1 calls of 1 operators, 36 bytes of constants"
    assert lines[-1] == "     1 Add"


@pytest.mark.parametrize(("content", "reason"), [(b"PK\x03\x04", "not a program file"), (None, "No such file")])
def test_what_is_no_program_is_named_and_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    file = tmp_path / "thing"
    if content is not None:
        file.write_bytes(content)
    assert tool.main([str(file)]) == ProgramError.exit_code
    assert f"error: {file}: " in (said := capsys.readouterr().err)
    assert reason in said
