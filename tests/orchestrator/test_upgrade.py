"""A directory that an earlier release of the kit wrote opens in this one, or is refused with what to do.

``upgrades/version-N.tar.xz`` holds a run as the first release with version N of the store left it: of a version that
is refused the database of a small part of a run, of the present one a simulation that was killed (``simulate job.toml
--data ... --state state``, data of ``tests.simulation.tiny``) and the state of a device that had deployed its models.
A change of ``SCHEMA_VERSION`` needs another one.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from device_runtime.data import open_data
from device_runtime.effects import Tell
from device_runtime.inference import open_model
from device_runtime.runtime import Runtime, Settings
from device_runtime.slots import models_in_use
from mas_edge.cli import main
from mas_edge.federation.flow import JobState
from mas_edge.orchestrator import view
from mas_edge.orchestrator.store import SCHEMA_VERSION, Store
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Birth
from mas_edge.reporting.page import page_of
from mas_edge.reporting.reading import read_numbers
from tests.simulation.tiny import write_data

UPGRADES = Path(__file__).parent / "upgrades"


def unpack(version: int, directory: Path) -> Path:
    with tarfile.open(UPGRADES / f"version-{version}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """What the first release with the present store left."""
    return unpack(SCHEMA_VERSION, tmp_path)


def test_every_version_of_the_store_has_a_directory_here() -> None:
    there = {path.name for path in UPGRADES.iterdir()}
    assert there == {f"version-{version}.tar.xz" for version in range(1, SCHEMA_VERSION + 1)}
    assert sum(path.stat().st_size for path in UPGRADES.iterdir()) < 200_000


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_store_is_refused_with_what_to_do_and_stays_as_it_was(
    version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = unpack(version, tmp_path) / "state"
    before = (state / "state.db").read_bytes()
    said = f"was written by version {version} of the store, this is version {SCHEMA_VERSION}: go on with the mas-edge"
    with pytest.raises(ServerError, match=said):
        Store(state)
    for command in (["status", "--state"], ["report"], ["devices"]):
        assert main([*command, str(state)]) == 6
        assert said in capsys.readouterr().err
    assert main(["runs", str(state)]) == 0
    assert said in capsys.readouterr().out
    assert (state / "state.db").read_bytes() == before
    assert not (state / "state.db-wal").exists()


def test_every_verb_that_looks_reads_a_run_of_the_first_release(
    first: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = first / "state"
    numbers = read_numbers(state)
    assert (numbers.phase, numbers.merged_rounds, numbers.split_rounds) == ("groups", 2, 2)
    assert "This run is not finished" in page_of(numbers)
    assert main(["status", "--state", str(state), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == numbers.run
    assert main(["runs", str(first), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)
    assert (found["phase"], found["rounds"], found["problem"]) == ("groups", 4, "")


def test_an_orchestrator_takes_up_a_run_of_the_first_release_with_its_own_job_file(first: Path) -> None:
    store = Store(first / "state")
    job = view.read(first / "state").job
    assert store.begin(job, JobState(run_id="another")).phase == "groups"
    store.close()


def test_a_run_of_the_first_release_goes_on_to_its_end(first: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(first / "data", 2)
    before = view.read(first / "state").rounds
    words = ["simulate", first / "job.toml", "--data", first / "data", "--state", first / "state", "--quiet"]
    assert main([str(word) for word in words]) == 0
    assert "groups: level, spread | side" in capsys.readouterr().out
    after = view.read(first / "state")
    assert after.phase == "export"
    assert after.rounds[: len(before)] == before, "what was done before is not done again"
    assert len(after.rounds) == 14


def test_a_device_of_the_first_release_comes_back_with_its_models_and_artifacts(first: Path) -> None:
    state = first / "device-0"
    deployed = {path.parent.name: path for path in state.glob("deployed/*/active.onnx")}
    held = {path.name for path in (state / "artifacts").iterdir()}
    assert sorted(deployed) == ["group-0", "group-1"]
    write_data(first / "data", 1)
    settings = Settings("device-0", "fleet", "mqtt://127.0.0.1:9", state, "torch")
    effects = Runtime(settings, open_data(first / "data" / "device-0")).agent.on_connected(0.0)
    assert [each for each in effects if isinstance(each, Tell) and isinstance(each.message, Birth)]
    assert models_in_use(state / "deployed") == {
        group: hashlib.sha256(path.read_bytes()).hexdigest() for group, path in deployed.items()
    }
    assert {path.name for path in (state / "artifacts").iterdir()} >= held
    answers = open_model(deployed["group-0"], ["level", "spread"]).run(np.zeros((3, 2, 16), np.float32))
    assert {task: answer.shape[0] for task, answer in answers.items()} == {"level": 3, "spread": 3}
