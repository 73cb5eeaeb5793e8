from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_runtime.engines.executorch_engine import ExecutorchEngine, inference_model
from device_runtime.engines.torch_engine import TorchEngine
from mas_edge.export.executorch import emit
from mas_edge.export.executorch.flat import Plan, TensorValue, write
from mas_edge.export.trace import trace_program
from mas_edge.protocol.errors import DeviceError, EdgeError, ProgramError
from mas_edge.protocol.program import Program, Value, dump, load
from tests.device_runtime.pte_files import ADDED, OUT, X, packed, plan, program
from tests.device_runtime.tiny_job import TASKS, tiny_job
from tests.export.executorch.xnnpack_models import TASKS as MODEL_TASKS
from tests.export.executorch.xnnpack_models import TOLERANCES, exported, off_by, samples
from tests.learning.jobs import feeds_of

ENGINE = ExecutorchEngine()
ONE = np.array([1, 2], np.float32)


@pytest.fixture(scope="module")
def traced() -> Program:
    return trace_program(tiny_job(), "g", TASKS, ["train_step", "evaluate"])


def test_a_file_runs_on_named_arrays_and_gives_named_arrays() -> None:
    assert ENGINE.load(program(packed())).run("m", {"x": ONE})["sum"].tolist() == [11, 22]


def test_what_is_read_only_reversed_or_of_another_byte_order_is_read_all_the_same() -> None:
    runner = ENGINE.load(program(packed()))
    frozen = ONE.copy()
    frozen.flags.writeable = False
    for given in (frozen, np.array([2, 1], np.float32)[::-1], np.array([1, 2], ">f4")):
        assert runner.run("m", {"x": given})["sum"].tolist() == [11, 22]


def test_results_stay_what_they_were_when_the_method_runs_again(traced: Program) -> None:
    runner = ENGINE.load(load(dump(emit(traced))))
    feeds = feeds_of(traced, "train_step")
    given = {name: array.copy() for name, array in feeds.items()}
    first = runner.run("train_step", feeds)
    kept = {name: array.copy() for name, array in first.items()}
    runner.run("train_step", feeds_of(traced, "train_step", seed=1))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not any(np.shares_memory(array, other) for key, other in first.items() if key != name)
        assert not any(np.shares_memory(array, other) for other in feeds.values())
    for name, array in feeds.items():
        np.testing.assert_array_equal(array, given[name])


def test_every_method_of_one_file_gives_what_pytorch_gives(traced: Program) -> None:
    runner, eager_runner = ENGINE.load(load(dump(emit(traced)))), TorchEngine().load(traced)
    for method in ("evaluate", "train_step", "evaluate"):
        feeds = feeds_of(traced, method)
        expected = eager_runner.run(method, feeds)
        for name, array in runner.run(method, feeds).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is not an ExecuTorch file: expected b'ET12' at byte 4, got b''"),
    "text": (b"<html>not found</html>", "is not an ExecuTorch file"),
    "another flatbuffer": (packed().replace(b"ET12", b"TFL3"), "is not an ExecuTorch file: .* got b'TFL3'"),
    "noise": (b"\xff\xff\xff\xffET12" + b"\xff" * 100, "holds a damaged ExecuTorch file"),
    "half a file": (packed()[: len(packed()) // 2], "holds a damaged ExecuTorch file"),
    "a file without its last byte": (packed()[:-1], "holds a damaged ExecuTorch file"),
    "another method": (packed(name="other"), "its .pte has no method 'm'; it has other"),
    "an input more": (packed(lambda p: p.inputs.append(OUT)), r"the inputs of 'm' are .*\)\] in its .pte, not"),
    "an output less": (packed(lambda p: p.outputs.clear()), r"the outputs of 'm' are \[\] in its .pte, not"),
    "another shape": (
        packed(lambda p: p.values.__setitem__(X, TensorValue((2, 1), "float32"))),
        r"the inputs of 'm' are \[\(\[2, 1\], 'float32'\)\] in its .pte, not \[\(\[2\], 'float32'\)\]",
    ),
    "another type": (
        packed(lambda p: p.values.__setitem__(X, TensorValue((2,), "int64"))),
        r"the inputs of 'm' are \[\(\[2\], 'int64'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_not_the_programs_is_refused(case: str) -> None:
    data, reason = REFUSED[case]
    with pytest.raises(ProgramError, match=rf"^program 'g':? .*{reason}"):
        ENGINE.load(program(data))


def test_a_program_for_another_engine_is_refused() -> None:
    with pytest.raises(ProgramError, match="was made for the engine 'litert', this is 'executorch'"):
        ENGINE.load(msgspec.structs.replace(program(packed()), engine="litert"))


def test_wrong_feeds_are_the_callers_mistake() -> None:
    runner = ENGINE.load(program(packed()))
    for feeds, reason in (
        ({}, "method 'm' needs the input 'x'"),
        ({"x": ONE.astype(np.float64)}, "is float64 of shape .2., expected float32"),
        ({"x": np.zeros(3, np.float32)}, r"of shape \[3\], expected float32 of shape \[2\]"),
    ):
        with pytest.raises(DeviceError, match=reason):
            runner.run("m", feeds)
    with pytest.raises(DeviceError, match="has no method 'n'; it has m"):
        runner.run("n", {"x": ONE})


def test_what_a_kernel_refuses_is_one_line_that_names_the_method() -> None:
    """Shapes that a kernel cannot add: only running it shows that."""

    def change(made: Plan) -> None:
        made.values[X] = TensorValue((3,), "float32")

    method = program(packed(change)).methods["m"]
    there = msgspec.structs.replace(method, inputs=[Value("x", [3], "float32")])
    runner = ENGINE.load(msgspec.structs.replace(program(packed(change)), methods={"m": there}))
    with pytest.raises(DeviceError, match=r"^method 'm' of program 'g' failed in ExecuTorch: ") as caught:
        runner.run("m", {"x": np.zeros(3, np.float32)})
    assert "\n" not in str(caught.value)


# --- inference models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), TOLERANCES.items())
@pytest.mark.parametrize("count", [1, 3])
def test_an_inference_model_answers_for_any_number_of_samples(precision: str, tolerance: float, count: int) -> None:
    x = samples(count, seed=9)
    got = inference_model(exported(precision), MODEL_TASKS).run(x)
    assert list(got) == MODEL_TASKS
    assert off_by(got, x) <= tolerance


@pytest.mark.parametrize("tasks", [[], ["label"], ["label", "amount", "next"]])
def test_a_model_of_other_tasks_is_refused(tasks: list[str]) -> None:
    with pytest.raises(ProgramError, match=f"takes 1 tensors and gives 2, not 1 and {len(tasks)}"):
        inference_model(exported("fp32"), tasks)


@pytest.mark.parametrize("x", [np.zeros((1, 2, 15), np.float32), np.zeros((0, 2, 16), np.float32), np.zeros(32)])
def test_samples_of_another_shape_are_refused(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    with pytest.raises(DeviceError, match=r"takes samples of shape \[2, 16\], got"):
        inference_model(exported("fp32"), MODEL_TASKS).run(x)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^the model is not an ExecuTorch file"),
        (packed()[:-1], "^the model holds a damaged ExecuTorch file"),
        (packed(), "has no method 'forward'; it has m"),
        (packed(lambda p: p.outputs.append(OUT), "forward"), "takes 1 tensors and gives 2, not 1 and 1"),
    ],
)
def test_a_file_that_is_no_such_model_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProgramError, match=reason):
        inference_model(data, ["t"])


def test_a_model_without_a_batch_is_refused() -> None:
    single = Plan("forward", [TensorValue((), "float32"), TensorValue((), "float32", 16)], [0], [1], [], [], 32)
    with pytest.raises(ProgramError, match="expected batches of one size, float32"):
        inference_model(write([single], []), ["t"])
    whole = Plan("forward", [TensorValue((2,), "int64"), TensorValue((2,), "float32", 16)], [0], [1], [], [], 32)
    with pytest.raises(ProgramError, match="expected batches of one size, float32"):
        inference_model(write([whole], []), ["t"])


# --- damage ----------------------------------------------------------------------------------------------------------

DAMAGE = """
import sys
import numpy as np
from tests.device_runtime.test_executorch_engine import damaged_runs
print(*damaged_runs(sys.argv[1], int(sys.argv[2])))
"""


def damaged_runs(kind: str, count: int) -> tuple[int, int]:
    """Load and run files with a few damaged bytes; how many ran, how many were refused."""
    made = write([plan()], [ADDED]) if kind == "emitted" else Path(kind).read_bytes()
    ran = refused = 0
    for seed in range(count):
        chance, data = random.Random(seed), bytearray(made)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
        try:
            if kind == "emitted":
                ENGINE.load(program(bytes(data))).run("m", {"x": ONE})
            else:
                inference_model(bytes(data), MODEL_TASKS).run(samples(1))
            ran += 1
        except EdgeError:
            refused += 1
    return ran, refused


@pytest.mark.parametrize("kind", ["emitted", "fp32", "int8"])
def test_a_damaged_file_does_not_end_the_process(kind: str, tmp_path: Path) -> None:
    what = kind
    if kind != "emitted":
        (tmp_path / "model.pte").write_bytes(exported(kind))
        what = str(tmp_path / "model.pte")
    child = subprocess.run(
        [sys.executable, "-c", DAMAGE, what, "200"], capture_output=True, text=True, timeout=200, check=False
    )
    assert child.returncode == 0, child.stderr[-500:]
    ran, refused = map(int, child.stdout.split())
    assert ran + refused == 200
    assert refused > 20
