"""One model is made for all of these tests, run for real on tflite-micro."""

from __future__ import annotations

import importlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_runtime.engines.litert_engine import inference_model
from mas_edge.export.litert import conversion
from mas_edge.export.micro import MicroModel, export, export_micro
from mas_edge.export.micro.board import GRANULARITY, answers_of, arena_bytes
from mas_edge.export.micro.c_source import HEADER, SOURCE
from mas_edge.job import Job
from mas_edge.learning import build, vector_of
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.weights import Vector
from tests.export.litert.environment import needs_board
from tests.export.micro.test_board_interpreter import require_same
from tests.learning.jobs import KINDS, series_job

pytestmark = needs_board

TASKS = ["label", "next"]


def job() -> Job:
    return series_job([KINDS[0], KINDS[3]])


def weights() -> Vector:
    return vector_of(build(job(), TASKS))


def samples(count: int = 64) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((count, 2, 16), np.float32)


@pytest.fixture(scope="module")
def made() -> MicroModel:
    return export_micro(job(), TASKS, weights(), samples(), flash_bytes=512 << 10, ram_bytes=128 << 10)


@pytest.fixture
def converted(made: MicroModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the converter gave stands for what it would give again."""
    again = conversion.Converted(b"", made.model)
    monkeypatch.setattr(export, "converted_network", lambda *_: again)
    yield


def test_inputs_and_outputs_are_integers_of_one_sample(made: MicroModel) -> None:
    assert [(spec.name, spec.shape) for spec in made.inputs] == [("x", (1, 2, 16))]
    assert {spec.name: spec.shape for spec in made.outputs} == {"label": (1, 3), "next": (1, 2, 4)}
    assert all(spec.scale > 0 and -128 <= spec.zero_point <= 127 for spec in [*made.inputs, *made.outputs])


def test_a_board_answers_as_litert_does(made: MicroModel) -> None:
    arena, x = made.report.arena_bytes, samples(5)
    board = answers_of(made.model, made.inputs[0], made.outputs, arena, x)
    for task, answer in inference_model(made.model).run(x).items():
        scale = next(spec.scale for spec in made.outputs if spec.name == task)
        np.testing.assert_allclose(board[task], answer, atol=3.5 * scale)  # kernels may round the other way, in a row


def test_a_board_s_own_interpreter_answers_bit_by_bit_as_litert_s_reference(made: MicroModel, tmp_path: Path) -> None:
    path = tmp_path / "made.model"
    path.write_bytes(made.model)
    spec = made.inputs[0]
    require_same(path, [np.round(x / spec.scale).clip(-99, 99).astype(np.int8).ravel() for x in samples(4)])


def test_the_report_says_what_the_model_takes_and_loses(made: MicroModel) -> None:
    report = made.report
    assert report.flash_bytes == len(made.model)
    assert report.operators["CONV_2D"] >= 4
    assert report.operators["FULLY_CONNECTED"] == 2
    assert all(0 < loss < 0.1 for loss in report.losses.values()), report.losses


def test_the_arena_is_the_smallest_that_does(made: MicroModel) -> None:
    arena = made.report.arena_bytes
    assert arena % GRANULARITY == 0
    assert arena_bytes(made.model, made.inputs[0], len(made.outputs)) == arena
    with pytest.raises(ServerError, match="tflite-micro prepared the exported model and does not run it"):
        answers_of(made.model, made.inputs[0], made.outputs, arena - GRANULARITY, samples(1))


@pytest.mark.usefixtures("converted")
def test_what_does_not_fit_is_refused_with_what_it_needs(made: MicroModel) -> None:
    flash, ram = made.report.flash_bytes, made.report.arena_bytes
    with pytest.raises(
        JobError, match=rf"needs {flash} bytes of flash and the budget is {flash - 1} \(1 too many\): fewer"
    ):
        export_micro(job(), TASKS, weights(), samples(), flash_bytes=flash - 1)
    with pytest.raises(
        JobError, match=rf"needs {ram} bytes of RAM and the budget is 1024 .* smaller inputs.*nothing was"
    ):
        export_micro(job(), TASKS, weights(), samples(), flash_bytes=flash, ram_bytes=1024)
    assert export_micro(job(), TASKS, weights(), samples(), flash_bytes=flash, ram_bytes=ram) == made


def test_samples_are_needed() -> None:
    with pytest.raises(JobError, match="int8 needs real samples to set its ranges by"):
        export_micro(job(), TASKS, weights(), None)


def test_a_file_that_tflite_micro_does_not_run_is_refused_with_its_reason(made: MicroModel) -> None:
    schema: Any = importlib.import_module("ai_edge_litert.schema_py_generated")
    code = schema.BuiltinOperator.HASHTABLE_LOOKUP  # which it has not
    model = schema.ModelT.InitFromPackedBuf(made.model, 0)
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = code
    builder = importlib.import_module("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    with pytest.raises(
        JobError, match=r"tflite-micro does not run this model \(Didn't find op for builtin opcode 'HASH"
    ):
        arena_bytes(bytes(builder.Output()), made.inputs[0], len(made.outputs))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
@pytest.mark.parametrize("command", [["gcc", "-std=c11"], ["g++", "-std=c++17", "-x", "c++"]], ids=["C", "C++"])
def test_firmware_finds_the_model_in_the_c_source(made: MicroModel, command: list[str], tmp_path: Path) -> None:
    (tmp_path / HEADER).write_text(made.header)
    (tmp_path / SOURCE).write_text(made.source)
    (tmp_path / "main.c").write_text(
        f"""#include "{HEADER}"
#include <stdint.h>
#include <stdio.h>
int main(void) {{
  float scale = MAS_EDGE_OUTPUT_LABEL_SCALE;
  printf("%d %d %d %d ", MAS_EDGE_ARENA_BYTES, MAS_EDGE_INPUT_X_SIZE, MAS_EDGE_OUTPUT_NEXT_SIZE, scale > 0.0f);
  printf("%d %d ", MAS_EDGE_INPUTS + MAS_EDGE_OUTPUTS, (int)((uintptr_t)mas_edge_model % 16));
  unsigned long sum = 0;
  for (int i = 0; i < MAS_EDGE_MODEL_BYTES; i++) sum = sum * 31 + mas_edge_model[i];
  printf("%lu\\n", sum % 1000003);
  return 0;
}}
"""
    )
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run(["gcc", "-std=c11", *strict, "-c", SOURCE, "-o", "model.o"], cwd=tmp_path, check=True)
    subprocess.run([*command, *strict, "-c", "main.c", "-o", "main.o"], cwd=tmp_path, check=True)
    subprocess.run([command[0], "main.o", "model.o", "-o", "main"], cwd=tmp_path, check=True)
    said = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    total = 0
    for byte in made.model:
        total = (total * 31 + byte) % (1 << 64)
    assert said == f"{made.report.arena_bytes} 32 8 1 3 0 {total % 1000003}\n"
