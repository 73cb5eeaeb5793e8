from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from device_runtime.engines import litert_engine
from device_runtime.engines.litert_engine import LiteRTEngine, inference_model
from device_runtime.engines.selftest import DATA, feeds_of
from mas_edge.protocol.errors import DeviceError, ProgramError
from mas_edge.protocol.program import Program, Value, load
from tests.device_runtime.tflite_files import Change, in_integers, packed, tensor

STORED = DATA / "litert.program"


@pytest.fixture(scope="module")
def program() -> Program:
    return load(STORED.read_bytes())


def test_a_program_runs_on_named_arrays_and_gives_named_arrays(program: Program) -> None:
    method = program.methods["train_step"]
    feeds = feeds_of(program)
    results = LiteRTEngine().load(program).run("train_step", feeds)
    assert list(results) == [value.name for value in method.outputs]
    assert np.abs(results["weights"] - feeds["weights"]).max() > 0
    assert all(np.isfinite(array).all() for array in results.values())


def test_a_run_leaves_nothing_behind(program: Program) -> None:
    feeds = feeds_of(program)
    given = {name: array.copy() for name, array in feeds.items()}
    runner = LiteRTEngine().load(program)
    first = runner.run("train_step", feeds)
    kept = {name: array.copy() for name, array in first.items()}
    runner.run("train_step", feeds | {"weights": feeds["weights"] * 2})
    again = runner.run("train_step", feeds)
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)  # not memory that the next run writes to
        np.testing.assert_array_equal(again[name], array)
    for name, array in given.items():
        np.testing.assert_array_equal(feeds[name], array)


def test_what_is_read_only_reversed_or_of_another_byte_order_is_read_all_the_same(program: Program) -> None:
    runner, feeds = LiteRTEngine().load(program), feeds_of(program)
    expected = runner.run("train_step", feeds)["losses"]
    frozen = feeds["x"].copy()
    frozen.flags.writeable = False
    for x in (frozen, feeds["x"][::-1].copy()[::-1], feeds["x"].astype(">f4")):
        np.testing.assert_array_equal(runner.run("train_step", feeds | {"x": x})["losses"], expected)


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        (
            {"x": np.zeros((1, 1), np.float32)},
            r"'x' of method 'train_step' is float32 of shape \[1, 1\], expected float",
        ),
        ({"weights": np.zeros(3)}, "is float64 of shape"),
    ],
)
def test_wrong_feeds_are_named(program: Program, feeds: dict[str, Any], reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        LiteRTEngine().load(program).run("train_step", feeds_of(program) | feeds)


def test_a_missing_feed_or_method_is_named(program: Program) -> None:
    runner = LiteRTEngine().load(program)
    with pytest.raises(DeviceError, match="method 'train_step' needs the input 'weights'; the feeds hold nothing"):
        runner.run("train_step", {})
    with pytest.raises(DeviceError, match="has no method 'affinity'; it has train_step"):
        runner.run("affinity", {})


def test_the_engine_refuses_the_program_of_another(program: Program) -> None:
    with pytest.raises(ProgramError, match="made for the engine 'torch', this is 'litert'"):
        LiteRTEngine().load(msgspec.structs.replace(program, engine="torch"))


def test_a_program_whose_file_does_something_else_is_refused(program: Program) -> None:
    method = program.methods["train_step"]
    wrong = [Value("weights", [1], "float32"), *method.inputs[1:]]
    cases = {
        r"has no signature for evaluate; its file has train_step": program.methods | {"evaluate": method},
        r"inputs of 'train_step': 'weights' is \('float32', \[1\]\) in the program, .* in its file": {
            "train_step": msgspec.structs.replace(method, inputs=wrong)
        },
        r"inputs of 'train_step': 'weights' is None in the program": {
            "train_step": msgspec.structs.replace(method, inputs=method.inputs[1:])
        },
        r"outputs of 'train_step': 'out.more' is .* in the program, None in its file": {
            "train_step": msgspec.structs.replace(method, outputs=[*method.outputs, Value("more", [1], "float32")])
        },
    }
    for reason, methods in cases.items():
        with pytest.raises(ProgramError, match=reason):
            LiteRTEngine().load(msgspec.structs.replace(program, methods=methods))


def test_a_damaged_file_is_refused(program: Program) -> None:
    for file in (b"", program.file[: len(program.file) // 2], b"\x08\x09" + program.file[2:], b"ET12" * 4):
        with pytest.raises(ProgramError, match=r"^program 'selftest' (holds|is) "):
            LiteRTEngine().load(msgspec.structs.replace(program, file=file))


def test_training_needs_no_torch() -> None:
    code = f"""
import sys, pathlib
sys.modules.update(torch=None, onnx=None, onnxruntime=None)
from device_runtime.engines.litert_engine import engine
from device_runtime.engines.selftest import feeds_of
from mas_edge.protocol.program import load
program = load(pathlib.Path({str(STORED)!r}).read_bytes())
print(list(engine().load(program).run("train_step", feeds_of(program))))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "['weights', 'momentum', 'losses']"


def without_current_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_engine, "CURRENT", "no_such_litert")


def test_tflite_runtime_is_refused_where_numpy_is_too_new_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_current_library(monkeypatch)
    for use in (litert_engine.engine, lambda: inference_model(packed())):
        with pytest.raises(DeviceError, match=r"tflite-runtime cannot use NumPy 2.*: pip install 'numpy<2'"):
            use()


@pytest.mark.parametrize("count", [1, 3])
def test_a_model_answers_for_any_number_of_samples(count: int) -> None:
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    answers = inference_model(packed()).run(x)
    assert list(answers) == ["sum"]
    np.testing.assert_array_equal(answers["sum"], x + np.array([10, 20], np.float32))


def test_a_model_of_integers_takes_and_gives_real_numbers() -> None:
    answers = inference_model(packed(in_integers)).run(np.array([[1.5, -2], [200, 0]], np.float32))
    np.testing.assert_allclose(answers["sum"], [[11.5, 18], [73.5, 20]], atol=0.5)  # 63.5 is the largest that x can be
    assert answers["sum"].dtype == np.float32


@pytest.mark.parametrize("x", [np.zeros((1, 3), np.float32), np.zeros((1, 2)), np.zeros((0, 2), np.float32)])
def test_samples_of_another_shape_or_dtype_are_refused(x: np.ndarray[Any, Any]) -> None:
    with pytest.raises(DeviceError, match=r"the model takes float32 samples of shape \[2\], got"):
        inference_model(packed()).run(x)


def custom(_tables: Any, model: Any) -> None:
    model.operatorCodes[0].customCode = "Mine"


def control_flow(tables: Any, model: Any) -> None:
    model.operatorCodes[0].builtinCode = tables.BuiltinOperator.WHILE
    model.operatorCodes[0].deprecatedBuiltinCode = tables.BuiltinOperator.WHILE


def outside(_tables: Any, model: Any) -> None:
    model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, 4096, 8


def short_constant(_tables: Any, model: Any) -> None:
    model.buffers[1].data = np.zeros(4, np.uint8)


def too_large(_tables: Any, model: Any) -> None:
    model.subgraphs[0].tensors[2].shape = [1, 1 << 30]


def text(_tables: Any, model: Any) -> None:
    model.subgraphs[0].tensors[0].type = 5


def nothing_computed(_tables: Any, model: Any) -> None:
    model.subgraphs[0].operators = []


def from_nowhere(_tables: Any, model: Any) -> None:
    model.subgraphs[0].tensors.append(tensor("never", [1, 2], 0))
    model.subgraphs[0].operators[0].inputs = [0, 3]


def twice(_tables: Any, model: Any) -> None:
    model.subgraphs[0].operators *= 2


def no_such_tensor(_tables: Any, model: Any) -> None:
    model.subgraphs[0].operators[0].inputs = [0, 7]


def no_such_buffer(_tables: Any, model: Any) -> None:
    model.subgraphs[0].tensors[1].buffer = 9


def no_such_code(_tables: Any, model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 5


def uneven_scales(_tables: Any, model: Any) -> None:
    in_integers(_tables, model)
    model.subgraphs[0].tensors[1].quantization.scale = [1.0, 1.0, 1.0]
    model.subgraphs[0].tensors[1].quantization.zeroPoint = [0, 0, 0]


def other_version(_tables: Any, model: Any) -> None:
    model.version = 9


def other_input(_tables: Any, model: Any) -> None:
    model.signatureDefs[0].inputs[0].name = "image"


def two_at_once(_tables: Any, model: Any) -> None:
    for place in (0, 2):
        model.subgraphs[0].tensors[place].shape = [2, 2]


REFUSED: dict[str, tuple[Change, str]] = {
    "a custom operator": (custom, "the custom operator 'Mine'; expected builtin ones"),
    "control flow": (control_flow, r"control flow \(WHILE\); expected plain graphs"),
    "a constant outside": (outside, "a constant outside of the tables"),
    "a constant too short": (short_constant, r"a constant of shape \[1, 2\] has 4 bytes"),
    "a tensor larger than any memory": (too_large, r"a tensor of shape \[1, 1073741824\]"),
    "a tensor of text": (text, "a tensor of the type 5"),
    "an output that nothing computes": (nothing_computed, "nothing computes the output 2"),
    "an operand that nothing computes": (from_nowhere, "an operator reads tensor 3 before it is computed"),
    "a result that is written twice": (twice, "an operator writes to tensor 2, which has a value"),
    "no such tensor": (no_such_tensor, "input of an operator 7 of 3"),
    "no such buffer": (no_such_buffer, "buffer of a tensor 9 of 2"),
    "no such operator code": (no_such_code, "operator code 5 of 1"),
    "scales that do not fit": (uneven_scales, "3 scales along an axis of 1"),
    "another version": (other_version, "schema version 9, expected 3"),
    "another input": (other_input, r"has the signatures \{'infer': \['image'\]\}.*expected infer of \['x'\]"),
    "more samples than one": (two_at_once, r"'x' is float32 of shape \[2, 2\]; expected one sample|cannot prepare"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_is_not_sound_is_refused(case: str) -> None:
    change, reason = REFUSED[case]
    with pytest.raises(ProgramError, match=rf"^the model file.*({reason})"):
        inference_model(packed(change))


def test_a_model_without_the_signature_is_refused() -> None:
    with pytest.raises(ProgramError, match=r"has the signatures {'serve': .*expected infer"):
        inference_model(packed(signature="serve"))
