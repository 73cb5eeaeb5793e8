from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from device_runtime.engines import open_engine, selftest
from device_runtime.engines.base import Arrays
from device_runtime.engines.torch_engine import TorchEngine, find_operator, graph_module
from mas_edge.export.trace import trace_program
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import FORMAT, Constant, Method, Node, Program, Value, dump, load
from mas_edge.protocol.weights import Layout
from tests.device_runtime.tiny_job import TASKS, tiny_job
from tests.e2e.fleet import tiny_job as series_job

PAIR = [{"ref": "a"}, {"ref": "b"}]
OUT = [Value("out", [2], "float32")]


def method(*nodes: Node, results: list[str] | None = None, constants: list[Constant] | None = None) -> Method:
    """A method with the inputs a and b, two numbers each, whose result is the last node."""
    inputs = [Value("a", [2], "float32"), Value("b", [2], "float32")]
    names = [nodes[-1].name] if results is None and nodes else results or []
    return Method(inputs, OUT, names, list(nodes), constants or [])


def program(made: Method) -> Program:
    made_program = Program(
        format=FORMAT, group="g", tasks=["t"], batch_size=1, input_shape=[1], targets={}, layout=Layout([]),
        methods={"m": made},
    )  # fmt: skip
    return load(dump(made_program))


def run(made: Method, **feeds: np.ndarray[Any, Any]) -> Arrays:
    two = {"a": np.array([1, 2], np.float32), "b": np.array([10, 20], np.float32)}
    return TorchEngine().load(program(made)).run("m", two | feeds)


def add(name: str = "n", **fields: Any) -> Node:
    return msgspec.structs.replace(Node(name, "aten.add.Tensor", list(PAIR)), **fields)


def test_calls_run_in_order_and_results_come_back_by_name() -> None:
    twice = Node("twice", "aten.mul.Tensor", [{"ref": "n"}, 2])
    assert run(method(add(), twice))["out"].tolist() == [22, 44]


def test_every_kind_of_argument_is_understood() -> None:
    full = Node("full", "aten.full.default", [[2], {"float": "-inf"}], {
        "dtype": {"dtype": "float32"}, "layout": {"layout": "strided"}, "device": {"device": "any"}})  # fmt: skip
    largest = Node("largest", "aten.maximum.default", [{"ref": "full"}, {"ref": "c"}])
    copied = Node("copied", "aten.clone.default", [{"ref": "largest"}], {
        "memory_format": {"memory_format": "contiguous_format"}})  # fmt: skip
    parts = Node("parts", "aten.split_with_sizes.default", [{"ref": "copied"}, [1, 1]])
    second = Node("second", "getitem", [{"ref": "parts"}, 1])
    joined = Node("joined", "aten.cat.default", [[{"ref": "second"}, {"ref": "second"}]])
    constant = Constant("c", [2], "float32", np.array([3, 4], "<f4").tobytes())
    made = method(full, largest, copied, parts, second, joined, constants=[constant])
    assert run(made)["out"].tolist() == [4, 4]


def test_a_mode_may_be_text() -> None:
    gelu = Node("n", "aten.gelu.default", [{"ref": "a"}], {"approximate": "tanh"})
    assert run(method(gelu))["out"] == pytest.approx([0.8412, 1.9546], abs=1e-3)


def test_what_is_read_only_reversed_or_of_another_byte_order_is_read_all_the_same() -> None:
    frozen = np.array([1, 2], np.float32)
    frozen.flags.writeable = False
    assert run(method(add()), a=frozen, b=np.array([2, 1], np.float32)[::-1])["out"].tolist() == [2, 4]
    assert run(method(add()), a=np.array([1, 2], ">f4"))["out"].tolist() == [11, 22]


def test_what_the_feeds_hold_beside_the_inputs_is_not_looked_at() -> None:
    assert run(method(add()), c=np.zeros(9))["out"].tolist() == [11, 22]


FILE = Node("n", "aten.from_file.default", ["/etc/hostname", False, 2])
REFUSED = {
    "another namespace": (method(add(op="prims.add.default")), "operator 'prims.add.default' is not allowed"),
    "a Python function": (method(add(op="os.system.default")), "operator 'os.system.default' is not allowed"),
    "an attribute of Python": (method(add(op="aten.__class__.__name__")), "is not allowed"),
    "an unknown operator": (method(add(op="aten.no_such.default")), "'aten.no_such.default' is not allowed"),
    "an unknown overload": (method(add(op="aten.add.no_such_one")), "'aten.add.no_such_one' is not allowed"),
    "an operator without overload": (method(add(op="aten.add")), "operator 'aten.add' is not allowed"),
    "saving a file": (method(add(op="aten.save.default", args=[{"ref": "a"}, "f"])), "'aten.save.default' is not"),
    "reading a file": (method(FILE), "argument 'filename' may not be text"),
    "text in a list": (method(add(args=[["a"], {"ref": "b"}])), r"argument \['a'\] is of no known kind"),
    "an undefined name": (method(add(args=[{"ref": "a"}, {"ref": "z"}])), "uses 'z', which is not defined before it"),
    "a name from the future": (
        method(add("first", args=[{"ref": "a"}, {"ref": "last"}]), add("last")),
        r"node 'first' \(aten.add.Tensor\) uses 'last'",
    ),
    "a name twice": (method(add(), add()), "the name 'n' is defined twice"),
    "the name of an input": (method(add("a")), "the name 'a' is defined twice"),
    "a name that is code": (method(add("n; import os")), "node name 'n; import os' is not an identifier"),
    "an undefined result": (method(add(), results=["z"]), "the results uses 'z'"),
    "too many results": (method(add(), results=["n", "n"]), "2 results for 1 outputs"),
    "no result": (method(add(), results=[]), "0 results for 1 outputs"),
    "an unknown dtype": (method(add(args=[*PAIR, {"dtype": "complex64"}])), "dtype 'complex64' is not known"),
    "an unknown device": (method(add(args=[*PAIR, {"device": "cuda:9"}])), "is of no known kind"),
    "two keys in one argument": (method(add(args=[{"ref": "a", "dtype": "b"}, 1])), "is of no known kind"),
    "lists without end": (method(add(args=[[[[[[1]]]]], 1])), "is of no known kind"),
    "a missing argument": (method(add(args=[{"ref": "a"}])), "does not have the arguments of aten::add.Tensor"),
    "too many arguments": (method(add(args=[*PAIR, 1, 2])), "does not have the arguments of"),
    "an unknown keyword": (method(add(kwargs={"x=os": 1})), "does not have the arguments of"),
    "an argument twice": (method(add(kwargs={"self": 1})), "does not have the arguments of"),
    "a keyword of Python": (
        method(Node("n", "aten.random_.from", [{"ref": "a"}], {"from": 0, "to": 2})), "does not have the arguments of",
    ),
    "getitem of a text": (method(Node("n", "getitem", [{"ref": "a"}, "shape"])), "getitem takes a value and a number"),
    "a constant of the wrong size": (
        method(add(), constants=[Constant("c", [3], "float32", b"1234")]), "constant 'c': 4 bytes are no float32 of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_program_that_is_not_plain_computation_is_refused_before_it_runs(case: str) -> None:
    made, reason = REFUSED[case]
    with pytest.raises(ProgramError, match=f"^method 'm' of program 'g': .*{reason}"):
        TorchEngine().load(program(made))


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        (
            {"a": np.zeros(3, np.float32)},
            r"'a' of method 'm' is float32 of shape \[3\], expected float32 of shape \[2\]",
        ),
        ({"a": np.zeros(2)}, r"is float64 of shape \[2\], expected float32"),
    ],
)
def test_wrong_feeds_are_named(feeds: dict[str, np.ndarray[Any, Any]], reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        run(method(add()), **feeds)


def test_a_missing_feed_or_method_is_named() -> None:
    runner = TorchEngine().load(program(method(add())))
    with pytest.raises(DeviceError, match="method 'm' needs the input 'b'; the feeds hold a"):
        runner.run("m", {"a": np.zeros(2, np.float32)})
    with pytest.raises(DeviceError, match="program 'g' has no method 'affinity'; it has m"):
        runner.run("affinity", {})


def test_an_output_that_is_not_as_declared_is_the_programs_fault() -> None:
    total = Node("total", "aten.sum.default", [{"ref": "a"}])
    with pytest.raises(
        ProgramError, match=r"output 'out' of method 'm' is torch.float32 of shape \[\], declared float32"
    ):
        run(method(total))


def test_an_error_inside_torch_becomes_one_of_ours() -> None:
    impossible = Node("n", "aten.view.default", [{"ref": "a"}, [7]])
    with pytest.raises(DeviceError, match="method 'm' of program 'g' failed in the torch engine: shape"):
        run(method(impossible))


def test_an_operator_is_found_by_its_full_name() -> None:
    assert str(find_operator("aten.add.Tensor")) == "aten.add.Tensor"
    assert str(find_operator("aten.relu.default")) == "aten.relu.default"


FULL = Node("full", "aten.full.default", [[2], 1.0], {"device": {"device": "any"}})
MADE = method(FULL, Node("n", "aten.add.Tensor", [{"ref": "a"}, {"ref": "full"}]))


def made_on(device: str, declared: Method) -> set[str]:
    """Where the results are, of inputs on ``cuda``, when the engine runs on ``device``.

    With tensors without numbers, which know their device: an operator refuses arguments of two.
    """
    with FakeTensorMode():
        module = graph_module("m", declared, torch.device(device))
        dtypes = [(value, torch.int64 if value.dtype == "int64" else torch.float32) for value in declared.inputs]
        results = module(*(torch.empty(value.shape, dtype=dtype, device="cuda") for value, dtype in dtypes))
        return {result.device.type for result in results}


def test_what_a_program_makes_is_made_where_the_engine_runs() -> None:
    assert made_on("cuda", MADE) == {"cuda"}
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        made_on("cpu", MADE)


def test_a_traced_job_stays_on_the_device_of_its_inputs() -> None:
    images, _ = selftest.read("torch")
    series = trace_program(series_job(), "merged", [task.name for task in series_job().tasks])
    for declared in (*images.methods.values(), *series.methods.values()):
        assert made_on("cuda", declared) == {"cuda"}


def test_a_graphics_processor_that_is_not_there_is_said_with_what_to_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(DeviceError, match=r"finds no CUDA graphics processor here: .* --engine torch:cpu"):
        open_engine("torch:cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA graphics processor")
class TestOnAGraphicsProcessor:
    def test_every_method_gives_what_it_gives_on_the_processor(self) -> None:
        traced, feeds = trace_program(tiny_job(), "merged", TASKS), feeds_of_job()
        runners = [open_engine(name).load(traced) for name in ("torch:cpu", "torch:cuda")]
        for name in traced.methods:
            here, there = (runner.run(name, feeds) for runner in runners)
            for output, expected in here.items():
                # S = (1 - after/before) / lr: the last bit of a loss is eps/lr of an affinity
                allowed = 1e-3 if output == "affinity" else 1e-5
                assert there[output] == pytest.approx(expected, rel=allowed, abs=allowed * np.abs(expected).max())

    def test_ten_steps_end_where_they_end_on_the_processor(self) -> None:
        traced = trace_program(tiny_job(), "merged", TASKS, ["train_step"])
        ends = []
        for name in ("torch:cpu", "torch:cuda"):
            runner, feeds = open_engine(name).load(traced), feeds_of_job()
            for _ in range(10):
                got = runner.run("train_step", feeds)
                feeds |= {"weights": got["weights"], "momentum": got["momentum"]}
            ends.append(feeds["weights"])
        assert ends[1] == pytest.approx(ends[0], rel=1e-3, abs=1e-3 * np.abs(ends[0]).max())

    def test_the_same_step_gives_the_same_bits_twice(self) -> None:
        program_, answer = selftest.read("torch")
        feeds, runner = selftest.feeds_of(program_), open_engine("torch:cuda").load(program_)
        one, two = (runner.run("train_step", feeds) for _ in range(2))
        assert all(np.array_equal(one[name], two[name]) for name in answer)

    def test_the_convolutions_of_the_self_test_are_exact(self) -> None:
        program_, answer = selftest.read("torch")
        selftest.require_equal(
            open_engine("torch:cuda").load(program_).run("train_step", selftest.feeds_of(program_)), answer
        )


def feeds_of_job() -> Arrays:
    """Inputs of every method of the tiny job."""
    traced, network = trace_program(tiny_job(), "merged", TASKS, ["train_step"]), build(tiny_job(), TASKS)
    random = np.random.default_rng(0)
    feeds: Arrays = {}
    for value in traced.methods["train_step"].inputs:
        whole = value.dtype == "int64"
        feeds[value.name] = random.integers(0, 2, value.shape) if whole else random.normal(size=value.shape)
        feeds[value.name] = feeds[value.name].astype(value.dtype)
    masks = {name: np.ones_like(array) for name, array in feeds.items() if name.startswith(("mask", "task_weights"))}
    momentum = np.zeros_like(feeds["momentum"])
    hyper = np.array([0.01, 0.9, 1e-2, 0.0], np.float32)
    return feeds | masks | {"weights": vector_of(network), "momentum": momentum, "hyper": hyper}
