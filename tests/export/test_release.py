"""Whole exports of a small group, and those that must not happen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import numpy_helper

from device_runtime.inference import open_model
from mas_edge.export import gate, inference
from mas_edge.export.cache import ExportCache
from mas_edge.export.card import TrainingCard, from_toml
from mas_edge.export.card_page import to_markdown
from mas_edge.export.describe import Trained
from mas_edge.export.onnx_training import emit
from mas_edge.export.quality import Samples, open_samples
from mas_edge.export.quantized_onnx import quantized
from mas_edge.export.release import Export, Options, check_options, export, place_of
from mas_edge.export.report import from_json
from mas_edge.export.targets import TARGETS
from mas_edge.export.trained import trained_network
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Vector, gather, unpack
from tests.export.small_run import JOB, weights_of, write_folder

ONNX = TARGETS["onnx"]
TASKS = ["label", "amount"]
TRAINED = Trained(JOB, "group-0", tuple(TASKS), weights_of(JOB, TASKS), TrainingCard(run="the run small-1"))
METHODS = ["affinity", "evaluate", "infer", "train_step"]


def changed(model: bytes, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """The ONNX ``model`` with its largest constant of numbers changed."""
    proto = onnx.load_model_from_string(model)
    floats = [tensor for tensor in proto.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    largest = max(floats, key=lambda tensor: len(tensor.raw_data))
    largest.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(largest).copy()), largest.name))
    data: bytes = proto.SerializeToString()
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    samples = open_samples([write_folder(tmp_path_factory.mktemp("data") / "a", 80)], JOB.data.input_shape)
    assert samples is not None
    return samples


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(TRAINED, ONNX, Options(), tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory, folder: Samples) -> Export:
    options = Options("int8", folder, training=False)
    return export(TRAINED, ONNX, options, tmp_path_factory.mktemp("out"))


def test_an_export_is_a_folder_of_model_golden_weights_programs_verification_and_card(done: Export) -> None:
    assert done.directory.parts[-2:] == ("group-0", "onnx-fp32")
    files = {str(path.relative_to(done.directory)) for path in done.directory.rglob("*") if path.is_file()}
    assert files == {
        "model.onnx", "golden.safetensors", "weights.safetensors", "train.program", "verification.json", "card.toml",
        "card.md", *(f"train/{method}.onnx" for method in METHODS),
    }  # fmt: skip


def test_the_card_names_every_file_with_its_size_and_digest(done: Export) -> None:
    card = from_toml((done.directory / "card.toml").read_text())
    assert card == done.card
    assert (done.directory / "card.md").read_text() == to_markdown(card)
    named = {file.name: (file.size, file.sha256) for file in card.files}
    for name, (size, digest) in named.items():
        data = (done.directory / name).read_bytes()
        assert (len(data), digest_of(data)) == (size, digest), name
    there = {str(path.relative_to(done.directory)) for path in done.directory.rglob("*") if path.is_file()}
    assert there - named.keys() == {"card.toml", "card.md"}


def test_the_card_says_what_the_job_says(done: Export) -> None:
    label, amount = done.card.tasks
    assert (label.kind, label.output, label.classes, label.metric) == ("class", [3], 3, "accuracy")
    assert (amount.output, amount.unit) == ([], "m/s")
    assert done.card.data.description == "Made | up."
    assert done.card.input.shape == [2, 16]
    assert done.card.network.weights == len(TRAINED.vector) == sum(done.card.network.parts.values())


def test_model_and_golden_samples_and_weights_belong_together(done: Export) -> None:
    golden = unpack((done.directory / "golden.safetensors").read_bytes())
    answers = open_model(done.directory / "model.onnx", TASKS).run(golden["x"])
    for task in TASKS:
        assert np.allclose(answers[task], golden[f"out.{task}"], atol=1e-5)
    program = program_format.load((done.directory / "train.program").read_bytes())
    tensors = unpack((done.directory / "weights.safetensors").read_bytes())
    assert np.array_equal(gather(program.layout, tensors), TRAINED.vector)
    for method in METHODS:
        assert (done.directory / "train" / f"{method}.onnx").read_bytes() == program.methods[method].graph


def test_the_verification_names_every_output_of_every_method(done: Export) -> None:
    report = from_json((done.directory / "verification.json").read_bytes())
    program = program_format.load((done.directory / "train.program").read_bytes())
    compared = {(row.method, row.output) for row in [*report.model, *report.program]}
    outputs = {(name, value.name) for name, method in program.methods.items() for value in method.outputs}
    assert compared == outputs | {("train_step", "weights after 10 steps")} | {("model", task) for task in TASKS}
    assert all(row.max_rel <= row.tolerance for row in [*report.model, *report.program])


def test_int8_says_what_it_costs_on_test_samples(rounded: Export) -> None:
    label, amount = rounded.card.quantization
    assert (label.metric, label.labelled, label.samples) == ("accuracy", 20, 20)
    for loss in (label, amount):
        assert 0 < loss.relative_l2 < 0.2
        assert loss.fp32 is not None
        assert loss.int8 is not None
    assert rounded.card.quantization == rounded.report.quantization
    assert [row.output for row in rounded.report.model] == TASKS


def test_the_golden_outputs_of_int8_are_the_models_own(rounded: Export) -> None:
    golden = unpack((rounded.directory / "golden.safetensors").read_bytes())
    answers = open_model(rounded.directory / "model.onnx", TASKS).run(golden["x"])
    for task in TASKS:
        assert np.array_equal(answers[task], golden[f"out.{task}"])


def test_without_training_there_is_no_program(rounded: Export) -> None:
    assert not list(rounded.directory.glob("train*"))
    assert [checked.what for checked in rounded.card.verification] == ["inference model"]


def broken_emit(program: Program) -> Program:
    """One number in the graph of ``infer`` is another: the emitter has a bug."""
    made = emit(program)
    methods = {
        name: replace(method, graph=changed(method.graph, lambda array: array * 1.001))
        for name, method in made.methods.items()
    }
    return replace(made, methods=methods)


def test_a_training_program_with_one_wrong_constant_is_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "emitter_of", lambda engine: broken_emit)
    cache = ExportCache(tmp_path / "cache")
    with pytest.raises(ServerError, match=r"program 'group-0' does not do what its network does.*not released"):
        export(TRAINED, ONNX, Options(), tmp_path / "out", cache)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


def wrong(job: object, tasks: object, vector: Vector, precision: str, calibration: object) -> bytes:
    """The exporter without its own look at the result, and with a bug."""
    model = inference._convert(trained_network(JOB, TASKS, vector), JOB, TASKS)
    model = changed(model, lambda array: array if precision == "int8" else array * 1.01)
    return changed(quantized(model, np.ones((8, 2, 16), np.float32)), np.zeros_like) if precision == "int8" else model


@pytest.mark.parametrize(
    ("precision", "reason"),
    [
        ("fp32", "the fp32 model of 'group-0' does not do"),
        ("int8", "the int8 model of 'group-0' (does not do|loses too)"),
    ],
)
def test_a_model_with_one_wrong_constant_is_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Samples, precision: str, reason: str
) -> None:
    monkeypatch.setattr(inference, "export_inference", wrong)
    with pytest.raises(ServerError, match=reason):
        export(TRAINED, ONNX, Options(precision, folder, training=False), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_second_export_takes_the_program_out_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ExportCache(tmp_path / "cache")
    first = export(TRAINED, ONNX, Options(), tmp_path / "first", cache)
    monkeypatch.setattr(gate, "emitter_of", lambda engine: pytest.fail("emitted again"))
    other = dataclasses.replace(TRAINED, group="group-7")
    second = export(other, ONNX, Options(), tmp_path / "second", cache)
    assert second.report.program == first.report.program
    assert program_format.load((second.directory / "train.program").read_bytes()).group == "group-7"


def test_options_that_do_not_fit_are_refused_with_the_way_out(folder: Samples) -> None:
    with pytest.raises(JobError, match="--data DEVICE_FOLDER"):
        check_options(ONNX, Options("int8"))
    with pytest.raises(JobError, match="micro is exported in int8, not in fp32: --precision int8"):
        check_options(TARGETS["micro"], Options())
    check_options(ONNX, Options("int8", folder))


def test_an_export_lies_in_a_folder_of_its_group_target_and_precision() -> None:
    assert place_of(Path("out"), "group-1", TARGETS["litert"], "int8") == Path("out/group-1/litert-int8")
