from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device_runtime.data import open_data, problems
from mas_edge.datasets.fashion_mnist import (
    CENTER,
    FILES,
    GARMENTS,
    MARGIN,
    PIXELS_UNIT,
    SIZE,
    SOURCE,
    SPREAD,
    SQUARE,
    FashionChoice,
    edges,
    load,
    make_fashion,
    partition,
    read_idx,
    samples_of,
    silhouette,
)
from mas_edge.job import load_job
from mas_edge.protocol.errors import DataError
from tests.docs.pages import ROOT

SMALL = FashionChoice(devices=3, samples=20, test_samples=10)
Bytes = NDArray[np.uint8]


def idx(array: Bytes) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def pictures(count: int, seed: int = 0) -> Bytes:
    """Grey rectangles, brighter to the right."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        top, left = rng.integers(1, 10, 2)
        image[top : top + 14, left : left + 12] = np.arange(100, 220, 10)
    return images


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files like those of the package: 200 pictures to train on, 100 to test on, every class equally often."""
    folder = tmp_path / "source"
    folder.mkdir()
    for split, count in (("train", 200), ("test", 100)):
        images, labels = FILES[split]
        (folder / f"{images}.gz").write_bytes(gzip.compress(idx(pictures(count)), mtime=0))
        (folder / f"{labels}.gz").write_bytes(gzip.compress(idx((np.arange(count) % 10).astype(np.uint8)), mtime=0))
    return folder


def digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_a_device_can_train_on_each_folder_and_the_job_fits(source: Path, tmp_path: Path) -> None:
    made = make_fashion(tmp_path / "fashion", SMALL, source)
    assert [folder.name for folder in made.folders] == ["device-01", "device-02", "device-03"]
    assert [problems(folder) for folder in made.folders] == [[]] * 3
    job = load_job(ROOT / "models" / "fashion.toml")
    data = open_data(made.folders[0])
    assert {(count.train, count.test) for count in data.counts().values()} == {(20, 10)}
    assert data.header.input_shape == job.data.input_shape
    assert {name: (t.kind, t.shape, t.classes) for name, t in data.header.tasks.items()} == {
        task.name: (task.kind, task.shape, task.classes) for task in job.tasks
    }


def test_the_same_bytes_come_out_each_time_and_a_device_does_not_depend_on_later_ones(
    source: Path, tmp_path: Path
) -> None:
    first = make_fashion(tmp_path / "first", SMALL, source)
    assert digests(make_fashion(tmp_path / "second", SMALL, source).directory) == digests(first.directory)
    more = make_fashion(tmp_path / "more", FashionChoice(devices=5, samples=20, test_samples=10), source)
    assert [digests(folder) for folder in more.folders[:3]] == [digests(folder) for folder in first.folders]
    assert not make_fashion(first.directory, SMALL, tmp_path / "nowhere").created


def test_a_file_reads_as_it_was_written_packed_or_not(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain").write_bytes(idx(array))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain"), array)
    np.testing.assert_array_equal(read_idx(tmp_path / "packed"), array)


WHOLE = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\0\0", WHOLE[:7], WHOLE[:-1], WHOLE + b"\0", b"\0\0\x0d" + WHOLE[3:], b"\x01" + WHOLE[1:], b"\0\0\x08\0"],
    ids=["empty", "short", "cut in the head", "cut", "longer", "floats", "other magic", "no axes"],
)
def test_a_damaged_file_is_named(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "images").write_bytes(damaged)
    with pytest.raises(DataError, match=r"images is not a whole idx file of bytes: apt install --reinstall"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize(
    "packed",
    [b"no gzip", gzip.compress(WHOLE)[:-4], gzip.compress(WHOLE)[:12] + b"\xff" * 20],
    ids=["no gzip", "cut", "damaged"],  # not the bytes: gzip writes the time into them
)
def test_a_file_that_cannot_be_unpacked_is_named(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "images.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"images\.gz cannot be read: .*apt install --reinstall dataset-fashion-mnist"):
        read_idx(tmp_path / "images")


def test_without_the_package_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"apt install dataset-fashion-mnist, or name the folder .* as --source"):
        make_fashion(tmp_path / "fashion", SMALL, tmp_path)
    assert not (tmp_path / "fashion").exists()


@pytest.mark.parametrize(("images", "labels"), [((4, 28, 27), 4), ((4, 28, 28), 5), ((4, 28, 28), -4)])
def test_other_pictures_are_refused(tmp_path: Path, images: tuple[int, ...], labels: int) -> None:
    (tmp_path / FILES["train"][0]).write_bytes(idx(np.zeros(images, np.uint8)))
    classes = np.zeros(labels, np.uint8) if labels > 0 else np.full(-labels, 10, np.uint8)
    (tmp_path / FILES["train"][1]).write_bytes(idx(classes))
    with pytest.raises(DataError, match=r"expected \[N, 28, 28\], \[N\] and 9"):
        load(tmp_path, "train")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 25), st.floats(0.01, 100), st.integers(0, 1000))
def test_every_device_gets_its_number_of_samples_and_none_is_shared(
    devices: int, count: int, alpha: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, 200).astype(np.uint8)
    shares = [np.random.default_rng([seed, i]).dirichlet([alpha] * 10) for i in range(devices)]
    chosen = partition(labels, shares, count, seed)
    assert [len(rows) for rows in chosen] == [count] * devices
    assert len(np.unique(np.concatenate(chosen))) == devices * count


def test_the_last_picture_is_given_away_and_no_more() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 4)
    shares = [np.eye(10)[0]] * 4  # everybody wants the same class
    chosen = partition(labels, shares, 10, 0)
    assert sorted(np.concatenate(chosen).tolist()) == list(range(40))
    with pytest.raises(DataError, match="4 devices with 11 samples each need more than the 40 pictures there are"):
        partition(labels, shares, 11, 0)


def test_a_small_alpha_gives_few_classes_and_a_large_one_all() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 500)
    most = []
    for alpha in (0.1, 1.0, 100.0):
        shares = [np.random.default_rng(i).dirichlet([alpha] * 10) for i in range(10)]
        chosen = partition(labels, shares, 100, 0)
        most.append(np.mean([np.bincount(labels[rows], minlength=10).max() for rows in chosen]))
    assert most[0] > 50 > most[1] > 20 > most[2]


def test_a_picture_is_turned_and_a_square_of_it_hidden() -> None:
    images = pictures(40)
    made = samples_of(images, np.random.default_rng(0))
    seen = made["x"][:, 0] * SPREAD + CENTER
    whole = made["inpainting"] * PIXELS_UNIT
    assert set(made["rotation"].tolist()) == {0, 1, 2, 3}
    for image, turned, turns in zip(images, whole, made["rotation"], strict=True):
        upright = np.rot90(turned, -int(turns))
        np.testing.assert_allclose(upright[MARGIN:-MARGIN, MARGIN:-MARGIN], image / 255, atol=1e-6)
    hidden = np.abs(seen - whole) > 1e-3
    assert hidden.any(axis=(1, 2)).sum() > 30  # the others hide a black square
    for places in hidden[hidden.any(axis=(1, 2))]:
        for axis in (0, 1):
            assert np.ptp(np.flatnonzero(places.any(axis=axis))) < SQUARE


def test_a_silhouette_has_no_holes_and_is_not_what_is_round_it() -> None:
    whole = np.full((1, 8, 8), 0.05, np.float32)
    whole[0, 2:6, 2:6] = 0.9
    whole[0, 3:5, 3:5] = 0  # a dark logo
    expected = np.zeros((8, 8), np.uint8)
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(silhouette(whole)[0], expected)
    whole[0, 3, 2] = 0  # now open to the left
    assert silhouette(whole)[0].sum() == 16 - 5


def test_edges_are_the_gradient() -> None:
    ramp = np.tile(np.arange(8) / 10, (1, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(edges(ramp)[0, 1:-1, 1:-1], 0.1, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (FashionChoice(devices=0), "--devices is 0; allowed: 1 to 10000"),
        (FashionChoice(alpha=0), "--alpha is 0; allowed: more than 0"),
        (FashionChoice(alpha=float("nan")), "--alpha is nan"),
        (FashionChoice(samples=0), "--samples is 0"),
        (FashionChoice(test_samples=10_001), "--test-samples is 10001; allowed: 1 to 10000"),
        (FashionChoice(seed=-1), "--seed is -1"),
    ],
)
def test_a_choice_out_of_range_is_named(tmp_path: Path, wrong: FashionChoice, words: str) -> None:
    with pytest.raises(DataError) as raised:
        make_fashion(tmp_path / "fashion", wrong)
    assert words in str(raised.value)


REAL = Path(os.environ.get("MAS_EDGE_FASHION_MNIST", SOURCE))  # where the package was only unpacked, say


@pytest.mark.skipif(not REAL.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed")
def test_the_real_pictures_are_there_and_the_scales_are_theirs() -> None:
    images, labels = load(REAL, "train")
    assert np.bincount(labels).tolist() == [6000] * len(GARMENTS)
    made = samples_of(images[:10_000], np.random.default_rng(0))
    assert made["x"].shape == (10_000, 1, SIZE, SIZE)
    assert abs(made["x"].mean()) < 0.05
    assert abs(made["x"].std() - 1) < 0.05
    for name in ("edges", "inpainting"):
        assert np.median(made[name]) == 0
        assert made[name].mean() == pytest.approx(1, abs=0.05)
    job, share = load_job(ROOT / "models" / "fashion.toml"), made["silhouette"].mean()
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert entropy == pytest.approx(job.task("silhouette").unit, abs=0.02)
