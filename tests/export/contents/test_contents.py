"""What is read out of each kind of file. Those in ``data`` were written by litert-torch 0.10 and executorch 1.5.1."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from mas_edge.export.contents import Contents, Tensor, contents_of, read_contents
from mas_edge.export.contents.listing import lines_of
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import EdgeError, ProgramError
from mas_edge.protocol.program import Constant, Method, Node, Program, Value
from mas_edge.protocol.weights import Entry, Layout, pack

DATA = Path(__file__).parent / "data"
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


def onnx_model() -> bytes:
    """y = x + c, and a branch that adds once more."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["y", "c"], ["z"])], "inner", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    nodes = [
        helper.make_node("Add", ["x", "c"], ["y"]),
        helper.make_node("If", ["flag"], ["out.losses"], then_branch=inner, else_branch=inner),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 9]),
              helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]  # fmt: skip
    outputs = [helper.make_tensor_value_info("out.losses", TensorProto.FLOAT, ["batch", 9])]
    constant = numpy_helper.from_array(np.ones(9, np.float32), "c")
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [constant]))
    data: bytes = model.SerializeToString()
    return data


FILES = {
    "program": program_format.dump(PROGRAM),
    "onnx": onnx_model(),
    "safetensors": pack(LAYOUT, np.ones(9, np.float32)),
    **{
        name: (DATA / f"{name}.bytes").read_bytes()
        for name in ("tflite_two_signatures", "pte_two_methods", "pte_xnnpack")
    },
}


def test_a_program_is_shown_with_everything_a_person_asks_about() -> None:
    data = FILES["program"]
    assert lines_of(contents_of(data)) == [
        "kind     program group-0 (format 1) for torch",
        f"size     {len(data)} bytes",
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


@pytest.mark.parametrize(
    ("engine", "fields", "operators", "constants"),
    [
        ("onnxruntime", {}, {"Add": 3, "If": 1}, 36),
        ("executorch", {"file": FILES["pte_two_methods"]},
         {"aten::permute_copy.out": 1, "aten::addmm.out": 1, "aten::relu.out": 1}, 32),
        ("litert", {"file": FILES["tflite_two_signatures"]}, {"FULLY_CONNECTED": 1, "SUM": 1}, 36),
    ],
)  # fmt: skip
def test_the_operators_of_a_program_are_those_of_the_engines_file_in_it(
    engine: str, fields: dict[str, bytes], operators: dict[str, int], constants: int
) -> None:
    graph = FILES["onnx"] if engine == "onnxruntime" else b""
    name = {"executorch": "forward", "litert": "infer"}.get(engine, "evaluate")
    method = Method(METHOD.inputs, METHOD.outputs, [], [], [], graph)
    program = replace(PROGRAM, methods={name: method}, engine=engine, **fields)
    found = contents_of(program_format.dump(program))
    assert found.engine == engine
    [shown] = found.methods
    assert (shown.name, shown.operators, shown.constants_bytes) == (name, operators, constants)
    assert shown.inputs == [Tensor("weights", "float32", [9])]


def test_an_onnx_model_is_shown_with_free_sizes_and_the_operators_of_its_branches() -> None:
    found = contents_of(FILES["onnx"])
    [graph] = found.methods
    assert graph.inputs == [Tensor("x", "float32", ["batch", 9]), Tensor("flag", "bool", [])]
    assert graph.operators == {"Add": 3, "If": 1}
    assert found.facts["opset"].startswith("onnx ")


def test_an_executorch_file_is_shown_with_methods_and_delegates() -> None:
    found = contents_of(FILES["pte_two_methods"])
    assert [method.name for method in found.methods] == ["again", "forward"]
    for method in found.methods:
        assert method.inputs == [Tensor("input 0", "float32", [4, 3])]
        assert method.outputs == [Tensor("output 0", "float32", [4, 2])]
    [delegated] = contents_of(FILES["pte_xnnpack"]).methods
    assert delegated.operators == {"delegate XnnpackBackend": 1}


def test_a_litert_file_is_shown_by_its_signatures() -> None:
    found = contents_of(FILES["tflite_two_signatures"])
    assert {method.name: method.inputs[0].shape for method in found.methods} == {"infer": [4, 3], "one": [1, 3]}
    for method in found.methods:
        assert [tensor.name for tensor in method.outputs] == ["a", "b"]


def test_weights_are_shown_tensor_by_tensor() -> None:
    found = contents_of(FILES["safetensors"])
    assert found.tensors == [Tensor(entry.name, "float32", list(entry.shape)) for entry in LAYOUT.entries]
    assert found.facts == {"tensors": "3 with 9 numbers"}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_says_its_size_and_digest_and_reads_back_from_json(name: str) -> None:
    found = contents_of(FILES[name])
    assert (found.size, found.sha256) == (len(FILES[name]), digest_of(FILES[name]))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Contents) == found


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_truncated_or_damaged_file_ends_in_an_error_of_ours_or_is_shown(name: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[name])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(damaged)))
    try:
        found = contents_of(bytes(damaged[:end]))
    except EdgeError:
        return
    assert found.size == end
    assert all(line.isprintable() for line in lines_of(found))


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_refused(name: str) -> None:
    with pytest.raises(ProgramError, match=r"truncated|damaged"):
        contents_of(FILES[name][: len(FILES[name]) // 2])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", b"\x00" * 40, b"\x80\x04\x95 a pickle", b"\x08"])
def test_a_foreign_file_is_refused_with_what_is_known(data: bytes) -> None:
    with pytest.raises(ProgramError, match=r"no known kind|no ONNX model"):
        contents_of(data)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"none: cannot be read: No such file"):
        read_contents(tmp_path / "none")
    (tmp_path / "thing").write_bytes(b"MASEDGE1")
    with pytest.raises(ProgramError, match=r"thing: program file"):
        read_contents(tmp_path / "thing")


def test_a_name_in_a_file_cannot_steer_a_terminal() -> None:
    model = onnx.load_model_from_string(FILES["onnx"])
    model.graph.name = "\x1b[31mred\x07"
    page = "\n".join(lines_of(contents_of(model.SerializeToString())))
    assert "\x1b" not in page
    assert "?[31mred?" in page
