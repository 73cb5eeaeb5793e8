from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from device_runtime.engines import open_engine
from device_runtime.engines.base import Arrays
from device_runtime.engines.onnx_engine import OnnxEngine
from device_runtime.engines.torch_engine import TorchEngine
from device_runtime.session import evaluate, train
from mas_edge.export.onnx_training import emit
from mas_edge.export.trace import trace_program
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.messages import Training
from mas_edge.protocol.program import FORMAT, Method, Node, Program, Value, dump, load
from mas_edge.protocol.weights import Layout
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

FLOAT, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
A = helper.make_tensor_value_info("a", FLOAT, [2])
INDEX = helper.make_tensor_value_info("i", INT, [2])
OUT = helper.make_tensor_value_info("out.sum", FLOAT, [2])
CONSTANT = numpy_helper.from_array(np.array([10, 20], np.float32), "c")


def model(*nodes: Any, inputs: Any = (A, INDEX), outputs: Any = (OUT,), tensors: Any = (CONSTANT,), **more: Any) -> Any:
    """A model that adds a constant unless it is given other nodes."""
    made = nodes or (helper.make_node("Add", ["a", "c"], ["out.sum"]),)
    graph = helper.make_graph(made, "g", inputs, outputs, tensors)
    return helper.make_model(graph, **({"opset_imports": [helper.make_opsetid("", 18)], "ir_version": 9} | more))


def program(graph: bytes, **fields: Any) -> Program:
    inputs = [Value("a", [2], "float32"), Value("i", [2], "int64")]
    method = Method(inputs, [Value("sum", [2], "float32")], [], [], [], graph)
    made = Program(
        format=FORMAT, group="g", tasks=["t"], batch_size=1, input_shape=[1], targets={}, layout=Layout([]),
        methods={"train_step": method}, engine="onnxruntime",
    )  # fmt: skip
    return load(dump(msgspec.structs.replace(made, **fields)))


def run(made: Any, **feeds: Any) -> Arrays:
    given = {"a": np.array([1, 2], np.float32), "i": np.array([0, 1])}
    return OnnxEngine().load(program(made.SerializeToString())).run("train_step", given | feeds)


def test_a_model_runs_on_named_arrays_and_gives_named_arrays() -> None:
    assert run(model())["sum"].tolist() == [11, 22]


def test_what_is_read_only_reversed_or_of_another_byte_order_is_read_all_the_same() -> None:
    frozen = np.array([1, 2], np.float32)
    frozen.flags.writeable = False
    assert run(model(), a=frozen)["sum"].tolist() == [11, 22]
    assert run(model(), a=np.array([2, 1], np.float32)[::-1])["sum"].tolist() == [11, 22]
    assert run(model(), a=np.array([1, 2], ">f4"))["sum"].tolist() == [11, 22]


def external() -> Any:
    tensor = onnx.TensorProto(name="c", data_type=FLOAT, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def hidden() -> Any:
    """A constant in another file, in a graph that is an attribute."""
    body = helper.make_graph([helper.make_node("Constant", [], ["k"], value=external())], "body", [], [OUT])
    return helper.make_node("If", ["a"], ["out.sum"], then_branch=body, else_branch=body)


FUNCTION = helper.make_function("", "Mine", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [])
OTHER = helper.make_opsetid("com.example", 1)
REFUSED: dict[str, tuple[bytes, str]] = {
    "no model": (b"", "holds no ONNX model"),
    "noise": (b"\xff" * 100, "holds a damaged ONNX model"),
    "text": (b"<html>not found</html>", "holds a damaged ONNX model|is no model that ONNX Runtime"),
    "a truncated model": (model().SerializeToString()[:-20], "holds a damaged ONNX model: a field of"),
    "a number for a graph": (b"\x38\x01", "damaged ONNX model: a number where a message belongs"),
    "constants in a file": (model(tensors=[external()]).SerializeToString(), "keeps tensors in another file"),
    "a file in an inner graph": (model(hidden()).SerializeToString(), "keeps tensors in another file"),
    "another domain": (
        model(helper.make_node("Add", ["a", "c"], ["out.sum"], domain="com.example")).SerializeToString(),
        "operators of the domain 'com.example'",
    ),
    "the opset of another domain": (
        model(opset_imports=[helper.make_opsetid("", 18), OTHER]).SerializeToString(), "the domain 'com.example'",
    ),
    "a function": (model(functions=[FUNCTION]).SerializeToString(), "has functions"),
    "an unknown operator": (
        model(helper.make_node("Nonsense", ["a"], ["out.sum"])).SerializeToString(), "is no model that ONNX Runtime",
    ),
    "an undefined name": (
        model(helper.make_node("Relu", ["z"], ["out.sum"])).SerializeToString(), "is no model that ONNX Runtime",
    ),
    "another input": (
        model(inputs=[helper.make_tensor_value_info("a", FLOAT, [3]), INDEX]).SerializeToString(),
        r"Value\(name='a', shape=\[2\].* is declared, the model has Value\(name='a', shape=\[3\]|is no model that",
    ),
    "another type": (
        model(inputs=[A, helper.make_tensor_value_info("i", FLOAT, [2])]).SerializeToString(), "the model has Value",
    ),
    "a missing input": (
        model(inputs=[A]).SerializeToString(), "inputs of the program and of its model differ: .* the model has None",
    ),
    "another output": (
        model(
            helper.make_node("Add", ["a", "c"], ["sum"]), outputs=[helper.make_tensor_value_info("sum", FLOAT, [2])]
        ).SerializeToString(),
        "Value.name='out.sum'.* is declared, the model has Value.name='sum'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_is_not_sound_or_reaches_outside_itself_is_refused(case: str) -> None:
    graph, reason = REFUSED[case]
    with pytest.raises(ProgramError, match=rf"^method 'train_step' of program 'g'.*({reason})"):
        OnnxEngine().load(program(graph))


def test_every_prefix_of_a_model_is_refused_or_a_model() -> None:
    data = model().SerializeToString()
    for length in range(0, len(data), 3):
        with pytest.raises(ProgramError):
            OnnxEngine().load(program(data[:length]))


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({"a": np.zeros(3, np.float32)}, r"'a' of method 'train_step' is float32 of shape \[3\], expected float32 of"),
        ({"a": np.zeros(2)}, r"is float64 of shape \[2\], expected float32"),
        ({"i": np.zeros(2, np.float32)}, r"is float32 of shape \[2\], expected int64"),
    ],
)
def test_wrong_feeds_are_named(feeds: Arrays, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        run(model(), **feeds)


def test_a_missing_feed_or_method_is_named() -> None:
    runner = OnnxEngine().load(program(model().SerializeToString()))
    with pytest.raises(DeviceError, match="method 'train_step' needs the input 'i'; the feeds hold a"):
        runner.run("train_step", {"a": np.zeros(2, np.float32)})
    with pytest.raises(DeviceError, match="program 'g' has no method 'affinity'; it has train_step"):
        runner.run("affinity", {})


def test_an_error_while_running_becomes_one_of_ours() -> None:
    far = model(helper.make_node("Gather", ["a", "i"], ["out.sum"]))
    with pytest.raises(DeviceError, match=r"method 'train_step' of program 'g' failed in ONNX Runtime: .*out of"):
        run(far, i=np.array([0, 7]))


def test_an_engine_refuses_the_program_of_another() -> None:
    ours = program(model().SerializeToString())
    with pytest.raises(ProgramError, match="made for the engine 'onnxruntime', this is 'torch': start the device"):
        TorchEngine().load(ours)
    with pytest.raises(ProgramError, match="made for the engine 'torch', this is 'onnxruntime'"):
        OnnxEngine().load(msgspec.structs.replace(ours, engine="torch"))
    method = Method([Value("a", [2], "float32")], [], [], [Node("n", "aten.relu.default", [{"ref": "a"}])])
    with pytest.raises(ProgramError, match="holds no ONNX model"):
        OnnxEngine().load(msgspec.structs.replace(ours, methods={"m": method}))


def test_a_device_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(dump(program(model().SerializeToString())))
    code = f"""
import sys, pathlib, numpy as np
sys.modules.update(torch=None, onnx=None)
from device_runtime.engines import open_engine
from mas_edge.protocol.program import load
runner = open_engine("onnxruntime").load(load(pathlib.Path({str(tmp_path / "p")!r}).read_bytes()))
print(runner.run("train_step", dict(a=np.ones(2, np.float32), i=np.zeros(2, np.int64)))["sum"])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[11. 21.]", "")


def test_a_session_ends_where_it_ends_on_torch(tmp_path: Path) -> None:
    traced = trace_program(tiny_job(), "merged", TASKS)
    data, weights = tiny_data(tmp_path), vector_of(build(tiny_job(), TASKS))
    training = Training(
        learning_rate=0.05, momentum=0.9, weight_decay=0.01, local_epochs=2, seed=7,
        task_weights=dict.fromkeys(TASKS, 1.0), affinity_period=2,
    )  # fmt: skip
    ends = []
    for made in (traced, emit(traced)):
        runner = open_engine(made.engine).load(made)
        trained, report = train(runner, made, weights, data, training, stop=lambda: False)
        ends.append((trained, report, evaluate(runner, made, trained, data)))
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4, atol=1e-5)
    for one, other in zip(ends[0][1:], ends[1][1:], strict=True):
        assert (one.steps, one.losses.keys()) == (other.steps, other.losses.keys())
        for task, loss in one.losses.items():
            assert other.losses[task] == pytest.approx(loss, rel=1e-4)
