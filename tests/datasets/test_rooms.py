from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from device_runtime.data import open_data, problems
from mas_edge.datasets.constant import constant_losses
from mas_edge.datasets.rooms.folders import JOB, SHEET, RoomsChoice, RoomsFolders, arrays_of, make_rooms
from mas_edge.datasets.rooms.jobs import job_text
from mas_edge.datasets.rooms.scene import building
from mas_edge.datasets.rooms.targets import TASKS, targets_of, view
from mas_edge.datasets.rooms.units import SCALES, calibrate, scaled
from mas_edge.job import load_job, parse_job
from mas_edge.protocol.errors import DataError
from tests.docs.pages import ROOT

ALL = "sdnkterca"
SMALL = RoomsChoice(devices=3, samples=3, test_samples=2, tasks=ALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RoomsFolders:
    return make_rooms(tmp_path_factory.mktemp("sets") / "rooms", SMALL)


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_a_device_can_train_on_each_building(made: RoomsFolders) -> None:
    assert made.created
    assert [folder.name for folder in made.folders] == ["building-01", "building-02", "building-03"]
    assert [problems(folder) for folder in made.folders] == [[]] * 3
    counts = open_data(made.folders[0]).counts()
    assert {(count.train, count.test) for count in counts.values()} == {(3, 2)}


def test_the_folders_fit_the_job_that_lies_beside_them(made: RoomsFolders) -> None:
    job = load_job(made.directory / JOB)
    header = open_data(made.folders[0]).header
    assert header.input_shape == job.data.input_shape
    assert {name: (t.kind, t.shape, t.classes) for name, t in header.tasks.items()} == {
        task.name: (task.kind, task.shape, task.classes) for task in job.tasks
    }


def test_the_same_bytes_come_out_each_time(made: RoomsFolders, tmp_path: Path) -> None:
    assert digests(make_rooms(tmp_path / "again", SMALL).directory) == digests(made.directory)


def test_a_second_run_finds_the_folders_and_others_are_refused(made: RoomsFolders) -> None:
    before = digests(made.directory)
    assert not make_rooms(made.directory, SMALL).created
    with pytest.raises(DataError, match="holds rooms folders with devices 3, not 4; seed 0, not 1"):
        make_rooms(made.directory, replace(SMALL, devices=4, seed=1))
    assert digests(made.directory) == before


def test_a_building_depends_on_the_seed_and_its_number_only(made: RoomsFolders) -> None:
    alone = replace(SMALL, devices=1, first_building=3)
    third = open_data(made.folders[2]).arrays
    for name, array in arrays_of(alone.buildings[0], alone).items():
        np.testing.assert_array_equal(array, third[name])
    assert not np.array_equal(third["x"], open_data(made.folders[1]).arrays["x"])
    other = replace(SMALL, seed=1)
    assert not np.array_equal(arrays_of(other.buildings[2], other)["x"], third["x"])


def test_more_images_leave_the_first_ones_as_they_are(made: RoomsFolders) -> None:
    more = arrays_of(building(0, 2), replace(SMALL, samples=40, test_samples=30))
    few = open_data(made.folders[1]).arrays
    for name in few:
        np.testing.assert_array_equal(more[name][:3], few[name][:3])
        np.testing.assert_array_equal(more[name][40:42], few[name][3:])


def test_no_room_is_seen_twice() -> None:
    pictures = [view(building(0, 1), split, 0, 30, 32).picture.reshape(30, -1) for split in (0, 1)]
    assert len(np.unique(np.concatenate(pictures), axis=0)) == 60


def test_buildings_differ_more_than_their_rooms() -> None:
    """Non-IID: the mean share of walls and the mean depth of a building say which one it is."""
    means = []
    for number in range(1, 9):
        found = targets_of(view(building(0, number), 0, 0, 64, 32), "sd")
        walls, depths = (found["segmentation"] == 0).mean(axis=(1, 2)), found["depth"].mean(axis=(1, 2))
        means.append([(of.mean(), of.std() / 8) for of in (walls, depths)])
    for spread in np.swapaxes(means, 0, 1):  # [buildings, (mean, its error)]
        assert spread[:, 0].std() > 2 * spread[:, 1].mean()


@pytest.mark.parametrize(("size", "buildings", "near"), [(32, 400, 0.05), (64, 200, 0.08), (128, 80, 0.12)])
def test_the_scales_are_those_of_any_buildings(size: int, buildings: int, near: float) -> None:
    """Measured on others than those of the table, and on fewer: one image of each."""
    measured = calibrate(size, range(30_001, 30_001 + buildings), images=1)
    for kind in TASKS:
        known, found = SCALES[size][kind.name], measured[kind.name]
        assert found.unit == pytest.approx(known.unit, rel=near), kind.name
        np.testing.assert_allclose(found.centre, known.centre, atol=2 * near * known.unit)


def test_the_answer_zero_costs_about_one_in_every_task() -> None:
    stored: dict[str, list[float]] = {kind.name: [] for kind in TASKS if kind.letter != "s"}
    for number in range(101, 161):
        for name, target in targets_of(view(building(0, number), 1, 0, 4, 32), ALL[1:]).items():
            stored[name].append(float(np.abs(scaled(name, target, 32)).mean()))
    for name, losses in stored.items():
        assert np.mean(losses) == pytest.approx(1, abs=0.15), name


def test_a_constant_for_each_pixel_costs_about_one_too(tmp_path: Path) -> None:
    """The tables of a run compare with it. It knows where the floor is, so that it costs less in some of the tasks."""
    many = make_rooms(tmp_path / "rooms", RoomsChoice(devices=40, samples=1, test_samples=5, tasks=ALL))
    for name, loss in constant_losses(load_job(many.directory / JOB), many.folders).items():
        assert 0.6 < loss < 1.1, name


@pytest.mark.parametrize(("name", "letters"), [("rooms-5", "sdnkt"), ("rooms-9", ALL)])
def test_the_job_files_of_the_kit_are_what_is_written(name: str, letters: str) -> None:
    path = ROOT / "models" / f"{name}.toml"
    assert path.read_text(encoding="utf-8") == job_text(letters, 32, 8)
    assert load_job(path).name == name


def test_the_setting_is_the_one_in_which_the_claims_were_checked() -> None:
    job = parse_job(job_text("sdnkt", 32, 8))
    f, o = job.federation, job.optimizer
    assert (f.rounds, f.merge_rounds, f.groups, f.devices_per_round) == (48, 11, 2, 4)
    assert (f.local_epochs, f.batch_size, f.min_devices) == (6, 8, 8)
    assert (job.affinity.kind, job.affinity.period, o.after_split) == ("first_order", 12, "restart")
    assert (o.learning_rate, o.momentum, o.weight_decay, o.clip_norm) == (0.1, 0.9, 1e-4, 2.0)
    assert (o.scale_encoder_gradient, o.schedule, o.power) == (False, "polynomial", 0.9)
    assert RoomsChoice() == RoomsChoice(8, 32, 16, 64, 0, 1, "sdnkt")


@pytest.mark.parametrize("size", SCALES)
@pytest.mark.parametrize(("letters", "devices"), [("s", 1), ("sd", 2), ("erckt", 32), (ALL, 8)])
def test_every_choice_has_a_job(size: int, letters: str, devices: int) -> None:
    job = parse_job(job_text(letters, size, devices))
    assert [task.unit for task in job.tasks] == [SCALES[size][task.name].unit for task in job.tasks]
    assert job.data.input_shape == [3, size, size]
    assert job.federation.min_devices == devices


def test_the_contact_sheet_shows_every_task_of_every_building(made: RoomsFolders) -> None:
    image = matplotlib.image.imread(made.directory / SHEET)
    assert image.shape[0] > 3 * 2 * 128
    assert image.shape[1] > 10 * 128
    tiles = image[25 + 20 : 25 + 110, 40:, :3].reshape(90, -1, 131, 3)[:, :, 20:110]  # the first row
    assert (tiles.std(axis=(0, 2)).max(axis=1) > 0.01).all()  # no tile is empty


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (RoomsChoice(devices=0), "--devices is 0; allowed: 1 to 10000"),
        (RoomsChoice(size=66), "--size is 66; allowed: one of 32, 64, 128"),
        (RoomsChoice(samples=0), "--samples is 0"),
        (RoomsChoice(test_samples=-1), "--test-samples is -1"),
        (RoomsChoice(seed=-1), "--seed is -1; allowed: 0 or more"),
        (RoomsChoice(first_building=0), "--first-building is 0"),
        (RoomsChoice(tasks=""), "--tasks is ''; allowed: letters out of sdnkterca, each once"),
        (RoomsChoice(tasks="sdx"), "--tasks is 'sdx'"),
        (RoomsChoice(tasks="ss"), "--tasks is 'ss'"),
    ],
)
def test_a_choice_out_of_range_is_named(tmp_path: Path, wrong: RoomsChoice, words: str) -> None:
    with pytest.raises(DataError) as raised:
        make_rooms(tmp_path / "rooms", wrong)
    assert words in str(raised.value)
    assert not (tmp_path / "rooms").exists()
