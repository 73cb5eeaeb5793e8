"""The command as a stranger types it: what comes out, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mas_edge.cli import main
from mas_edge.cli.export import _size
from mas_edge.export.card import from_toml
from mas_edge.export.report import from_json
from mas_edge.learning.network import build, layout_of
from mas_edge.protocol.errors import DataError, JobError, ServerError, WeightsError
from mas_edge.protocol.weights import Layout, pack
from tests.docs.pages import ROOT
from tests.export.small_run import GROUPS, JOB, TASKS, weights_of, write_folder, write_run

PATIENCE_S = 120
JOB_TOML = """\
name = "small"
[data]
input_shape = [2, 16]
[network]
encoder_args = { width = 4 }
[federation]
rounds = 2
merge_rounds = 1
batch_size = 6
[card]
licence = "CC-BY"
[[tasks]]
name = "label"
kind = "class"
classes = 3
[[tasks]]
name = "amount"
kind = "value"
[[tasks]]
name = "down"
kind = "direction"
shape = [3]
"""


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache for these tests alone, the same for all of them."""
    place = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    write_run(directory / "state")
    return directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "a")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text(JOB_TOML)
    return tmp_path / "job.toml"


def export(*arguments: str | Path) -> int:
    return main(["export", *map(str, arguments)])


def test_every_group_of_a_run_is_exported_with_its_measurements(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(run, "--target", "onnx", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    for group, tasks in GROUPS.items():
        assert f"{group} ({', '.join(tasks)}) to onnx, fp32" in said
        card = from_toml((tmp_path / "out" / group / "onnx-fp32" / "card.toml").read_text())
        assert [task.name for task in card.tasks] == tasks
        assert [found.stage for found in card.tasks[0].measured] == ["untrained", "merged", "split"]
    assert said.count("training program for onnxruntime: verify every method against eager") == 2
    assert "train_step" in said
    assert export(run, "--target", "onnx", "--out", tmp_path / "again", "--json") == 0
    printed, progress = capsys.readouterr()
    assert progress.count("kept from before, verified then") == 2
    [first, second] = json.loads(printed)["exports"]
    assert (first["card"]["group"], second["card"]["group"]) == tuple(GROUPS)
    report = from_json((tmp_path / "again" / "group-0" / "onnx-fp32" / "verification.json").read_bytes())
    assert first["verification"]["program"][0]["method"] == report.program[0].method


def test_a_checkpoint_is_exported_with_its_job_in_int8(
    run: Path, job: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(pack(layout_of(build(JOB, TASKS)), weights_of(JOB, TASKS)))
    given: list[str | Path] = [file, "--job", job, "--tasks", "label,amount", "--group", "mine", "--training", "none"]
    assert export(*given, "--target", "onnx", "--precision", "int8", "--data", folder, "--out", tmp_path / "out") == 0
    card = from_toml((tmp_path / "out" / "mine" / "onnx-int8" / "card.toml").read_text())
    assert [loss.task for loss in card.quantization] == ["label", "amount"]
    assert (card.data.licence, card.training.run) == ("CC-BY", "the file weights.safetensors")
    assert "int8, label: " in capsys.readouterr().out


def test_words_for_the_card_may_be_written_after_the_training(run: Path, job: Path, tmp_path: Path) -> None:
    job.write_text(JOB_TOML.replace('name = "small"', 'name = "small"\n'))
    given: list[str | Path] = [run, "--group", "group-1", "--target", "onnx", "--training", "none", "--job", job]
    assert export(*given, "--out", tmp_path / "out") == 0
    card = from_toml((tmp_path / "out" / "group-1" / "onnx-fp32" / "card.toml").read_text())
    assert card.data.licence == "CC-BY"
    job.write_text(JOB_TOML.replace("rounds = 2", "rounds = 9"))
    assert export(*given, "--out", tmp_path / "other") == JobError.exit_code


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{tmp}"], ServerError.exit_code, "no state in"),
        (["{tmp}/none"], ServerError.exit_code, "no state in"),
        (["{run}", "--group", "group-9"], JobError.exit_code, "it has merged, group-0, group-1"),
        (["{run}", "--tasks", "label"], JobError.exit_code, "--tasks is for a file of weights"),
        (["{run}", "--precision", "int8"], JobError.exit_code, "--data DEVICE_FOLDER"),
        (["{run}", "--precision", "int8", "--data", "{tmp}"], DataError.exit_code, "missing file data.toml"),
        (["{tmp}/job.toml"], JobError.exit_code, "add --job FILE"),
        (["{tmp}/job.toml", "--job", "{tmp}/job.toml"], WeightsError.exit_code, "no safetensors file of weights"),
        (["{tmp}/other.safetensors", "--job", "{tmp}/job.toml"], WeightsError.exit_code, "not those of the job"),
        (["{run}", "--out", "{tmp}/job.toml"], ServerError.exit_code, "Not a directory"),
        (["{run}", "--out", "{tmp}/full"], ServerError.exit_code, "exists: choose another --out, or --force"),
    ],
)
def test_nonsense_ends_in_one_line_and_leaves_nothing(
    run: Path,
    job: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    _, *others = layout_of(build(JOB, TASKS)).entries
    short = Layout(others)
    (tmp_path / "other.safetensors").write_bytes(pack(short, np.ones(short.size, np.float32)))
    (tmp_path / "full" / "group-0" / "onnx-fp32").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(tmp=tmp_path, run=run) for argument in arguments]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    assert export(*given, "--target", "onnx", *out) == code
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["--target", "tpu"], ["--target", "micro", "--flash", "lots"], [], ["--ram", "0"]]
)
def test_a_wrong_command_line_is_a_usage_error(run: Path, tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        export(run, "--out", tmp_path / "out", *arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    ("text", "size"), [("512K", 524288), ("1M", 1048576), ("2m", 2097152), ("700", 700), ("64kB", 65536)]
)
def test_sizes_are_bytes_or_k_or_m_of_1024(text: str, size: int) -> None:
    assert _size(text) == size


def test_force_replaces_an_export_and_only_then(run: Path, tmp_path: Path) -> None:
    given: list[str | Path] = [run, "--group", "group-1", "--target", "onnx", "--training", "none", "--out", tmp_path]
    assert export(*given) == 0
    model = tmp_path / "group-1" / "onnx-fp32" / "model.onnx"
    written = model.stat().st_ino
    assert export(*given) == ServerError.exit_code
    assert model.stat().st_ino == written
    assert export(*given, "--force") == 0
    assert model.stat().st_ino != written


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(run: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "tools" / "export_model.py"), str(run), "--target", "onnx", "--no-cache"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout
    for line in process.stdout:
        if "trace the network" in line:  # the folder for the export has been tried, the model is being made
            break
    time.sleep(0.5)
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert said == "interrupted\n"
    assert not (tmp_path / "out").exists()
