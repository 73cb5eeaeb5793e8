"""Whole exports to the engines whose packages are not everywhere; what is missing here is exported in its own room."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.export.card import TrainingCard, from_toml
from mas_edge.export.contents import read_contents
from mas_edge.export.describe import Trained
from mas_edge.export.quality import Samples, open_samples
from mas_edge.export.release import Options, export
from mas_edge.export.targets import TARGETS
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import unpack
from tests.export.small_run import JOB, weights_of, write_folder

TASKS = ["label", "amount"]
TRAINED = Trained(JOB, "group-0", tuple(TASKS), weights_of(JOB, TASKS), TrainingCard(run="the run small-1"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    samples = open_samples([write_folder(tmp_path_factory.mktemp("data") / "a", 80)], JOB.data.input_shape)
    assert samples is not None
    return samples


def need(target: str) -> None:
    for package in TARGETS[target].packages:
        pytest.importorskip(package)


@pytest.mark.parametrize(
    ("target", "precision"), [("executorch", "fp32"), ("executorch", "int8"), ("litert", "fp32"), ("litert", "int8")]
)
def test_a_model_is_exported_run_and_described(target: str, precision: str, folder: Samples, tmp_path: Path) -> None:
    need(target)
    options = Options(precision, folder, training=False)
    done = export(TRAINED, TARGETS[target], options, tmp_path)
    assert done.directory == tmp_path / "group-0" / f"{target}-{precision}"
    model = read_contents(done.directory / f"model.{TARGETS[target].suffix}")
    assert model.engine == done.card.engine == TARGETS[target].engine
    assert set(unpack((done.directory / "golden.safetensors").read_bytes())) == {"x", "out.label", "out.amount"}
    assert [loss.task for loss in done.card.quantization] == (TASKS if precision == "int8" else [])


def test_a_training_program_for_executorch_is_one_file_with_all_methods(tmp_path: Path) -> None:
    need("executorch")
    done = export(TRAINED, TARGETS["executorch"], Options(), tmp_path)
    methods = ["affinity", "evaluate", "infer", "train_step"]
    assert [method.name for method in read_contents(done.directory / "train.program").methods] == methods
    assert sorted(method.name for method in read_contents(done.directory / "train.pte").methods) == methods
    assert {row.method for row in done.report.program} == set(methods)


def test_a_microboard_gets_c_sources_and_a_card_with_what_it_needs(folder: Samples, tmp_path: Path) -> None:
    need("micro")
    options = Options("int8", folder, flash_bytes=64 * 1024, ram_bytes=64 * 1024)
    done = export(TRAINED, TARGETS["micro"], options, tmp_path)
    assert {path.suffix for path in done.directory.iterdir()} >= {".c", ".h", ".tflite"}
    board = from_toml((done.directory / "card.toml").read_text()).board
    assert board is not None
    assert board.flash == (done.directory / "model.tflite").stat().st_size
    assert 0 < board.arena <= 64 * 1024
    with pytest.raises(JobError, match="does not fit"):
        export(TRAINED, TARGETS["micro"], Options("int8", folder, flash_bytes=1024), tmp_path / "small")
    assert not (tmp_path / "small").exists()
