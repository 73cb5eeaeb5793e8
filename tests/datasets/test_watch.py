from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from device_runtime.data import open_data, problems
from mas_edge.datasets import watch
from mas_edge.datasets.constant import constant_losses
from mas_edge.datasets.watch import WatchFolders, is_held_out, make_watch
from mas_edge.job import load_job
from mas_edge.protocol.errors import DataError

JOB = Path(__file__).parents[2] / "models" / "watch.toml"
PAIRS = {(exercise, side) for exercise in range(7) for side in range(2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> WatchFolders:
    return make_watch(tmp_path_factory.mktemp("sets") / "watch")


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_ten_folders_are_made_and_a_device_can_train_on_each(made: WatchFolders) -> None:
    assert made.created
    assert [folder.name for folder in made.folders] == [f"watch-{i:02d}" for i in range(1, 11)]
    assert [problems(folder) for folder in made.folders] == [[]] * 10


def test_samples_lie_row_by_row_as_a_microboard_reads_them(made: WatchFolders) -> None:
    for path in made.folders[0].glob("*.npy"):
        assert np.load(path, mmap_mode="r").flags.c_contiguous, path.name


def test_the_folders_hold_what_the_job_file_asks_for(made: WatchFolders) -> None:
    job = load_job(JOB)
    for folder in made.folders:
        header = open_data(folder).header
        assert header.input_shape == job.data.input_shape
        assert {name: (t.kind, t.shape, t.classes) for name, t in header.tasks.items()} == {
            task.name: (task.kind, task.shape, task.classes) for task in job.tasks
        }


def test_every_person_keeps_three_recordings_of_three_exercises_and_both_arms_for_testing() -> None:
    for subject in range(1, 11):
        held = {pair for pair in PAIRS if is_held_out(subject, *pair)}
        assert len(held) == len({exercise for exercise, _ in held}) == 3
        assert {side for _, side in held} == {0, 1}


def test_every_exercise_of_either_arm_is_tested_on_someone_and_trained_on_seven() -> None:
    for pair in PAIRS:
        assert 1 <= sum(is_held_out(subject, *pair) for subject in range(1, 11)) <= 3


def test_no_window_of_a_test_recording_is_trained_on(made: WatchFolders) -> None:
    for subject, folder in enumerate(made.folders, start=1):
        data = open_data(folder).arrays
        pairs = {
            split: set(zip(data["exercise"][chosen].tolist(), data["side"][chosen].tolist(), strict=True))
            for split in (0, 1) if (chosen := data["split"] == split).any()
        }  # fmt: skip
        assert pairs[0] | pairs[1] == PAIRS  # each pair is one recording
        assert not pairs[0] & pairs[1]
        assert pairs[1] == {pair for pair in PAIRS if is_held_out(subject, *pair)}


def test_forecast_and_gravity_are_those_of_the_steps_after_the_window(made: WatchFolders) -> None:
    data = open_data(made.folders[0]).arrays
    same = (data["exercise"][:-2] == data["exercise"][2:]) & (data["side"][:-2] == data["side"][2:])
    # Two samples further, 64 steps have passed: what was to be forecast is the beginning of that window.
    later = data["x"][2:][same][:, :3] * watch.SPREAD[:3, None] + watch.CENTER[:3, None]
    forecast = data["forecast"][:-2][same] * watch.FORECAST_SPREAD[:, None] + watch.CENTER[:3, None]
    np.testing.assert_allclose(later[:, :, :16], forecast, atol=1e-5)
    mean = later.mean(axis=2)
    gravity = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(gravity, data["gravity"][:-2][same], atol=1e-4)


def test_inputs_are_standardised_and_a_constants_l1_is_near_one(made: WatchFolders) -> None:
    x = np.concatenate([open_data(folder).arrays["x"] for folder in made.folders])
    assert np.abs(x.mean(axis=(0, 2))).max() < 0.1
    assert np.abs(x.std(axis=(0, 2)) - 1).max() < 0.1
    losses = constant_losses(load_job(JOB), made.folders)
    assert all(0.9 < losses[task] < 1.1 for task in ("forecast", "intensity", "rotation"))


def test_the_same_bytes_come_out_each_time(made: WatchFolders, tmp_path: Path) -> None:
    assert digests(make_watch(tmp_path / "again").directory) == digests(made.directory)


def test_a_second_run_finds_the_folders_and_changes_nothing(made: WatchFolders) -> None:
    before = digests(made.directory)
    again = make_watch(made.directory)
    assert not again.created
    assert again.folders == made.folders
    assert digests(made.directory) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert make_watch(tmp_path).created


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="holds something else"):
        make_watch(tmp_path)
    with pytest.raises(DataError, match="holds something else"):
        make_watch(tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.fixture
def copied(made: WatchFolders, tmp_path: Path) -> Path:
    return shutil.copytree(made.directory, tmp_path / "watch")


@pytest.mark.parametrize("harm", ["changed", "older recipe", "marker is no JSON"])
def test_changed_folders_are_not_taken_for_whole_ones(copied: Path, harm: str) -> None:
    marker = copied / "watch.json"
    if harm == "changed":
        (copied / "watch-03" / "side.npy").write_bytes(b"")
    else:
        marker.write_text("{" if harm == "marker is no JSON" else marker.read_text().replace(": 1,", ": 0,", 1))
    with pytest.raises(DataError, match="changed or made by another version"):
        make_watch(copied)


def test_a_missing_file_is_not_taken_for_a_whole_set(copied: Path) -> None:
    (copied / "watch-10" / "x.npy").unlink()
    with pytest.raises(DataError, match="holds something else than whole watch folders"):
        make_watch(copied)


def test_a_run_that_dies_half_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk)
        with pytest.raises(DataError, match="No space left on device"):
            make_watch(tmp_path / "watch")
    assert list(tmp_path.iterdir()) == []
    assert make_watch(tmp_path / "watch").created


def test_another_file_than_the_known_one_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "seglearn"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        make_watch(tmp_path / "watch")
    (package / "data" / "watch_dataset.npy").write_bytes(b"\x80\x04 a pickle that runs code")
    with pytest.raises(DataError, match=r"is not the file of seglearn 1\.2\.5"):
        make_watch(tmp_path / "watch")
