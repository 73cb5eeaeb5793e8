from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mas_edge.export.quality import CALIBRATION_SAMPLES, losses_of, open_samples
from mas_edge.export.trace import trace_program
from mas_edge.protocol.errors import DataError
from tests.export.small_run import JOB, TASKS, write_folder


def test_calibration_takes_training_samples_spread_over_the_folders(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / "a", 600), write_folder(tmp_path / "b", 40)]
    samples = open_samples(folders, JOB.data.input_shape)
    assert samples is not None
    x = samples.calibration()
    assert x.shape == (CALIBRATION_SAMPLES // 2 + 30, 2, 16)
    large, small = (np.load(folder / "x.npy")[np.load(folder / "split.npy") == 0] for folder in folders)
    assert np.array_equal(x[0], large[0])
    assert np.array_equal(x[127], large[-1])
    assert np.array_equal(x[128:], small)


def test_tests_are_the_labelled_test_samples_each_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", 40)
    samples = open_samples([folder], JOB.data.input_shape)
    assert samples is not None
    tests = samples.tests(trace_program(JOB, "g", TASKS, ["evaluate"]))
    chosen = np.load(folder / "split.npy") == 1
    assert np.array_equal(tests["x"], np.load(folder / "x.npy")[chosen])
    assert np.array_equal(tests["y.label"], np.load(folder / "label.npy")[chosen])


def floats(numbers: list[Any]) -> NDArray[np.float32]:
    return np.array(numbers, np.float32)


def test_losses_are_the_distance_and_the_metric_of_labelled_tasks() -> None:
    exact = {"label": floats([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), "amount": floats([3, 4]), "down": floats([[1, 1, 1]])}
    rounded = exact | {"label": floats([[1, 0, 0], [1, 0, 0], [0, 0, 1]]), "amount": floats([3, 4.5])}
    tests: dict[str, NDArray[Any]] = {
        "y.label": np.arange(3), "mask.label": floats([1, 1, 1]),
        "y.amount": floats([3, 0]), "mask.amount": floats([1, 0]),
        "y.down": floats([[0, 0, 0]]), "mask.down": floats([0]),
    }  # fmt: skip
    label, amount, down = losses_of(JOB, tests, exact, rounded)
    assert (label.metric, label.fp32, label.labelled) == ("accuracy", 1.0, 3)
    assert label.int8 == pytest.approx(2 / 3)
    assert label.relative_l2 == pytest.approx(np.sqrt(2 / 3))
    assert (amount.fp32, amount.int8, amount.labelled) == (0.0, 0.0, 1)
    assert amount.relative_l2 == pytest.approx(0.1)
    assert (down.relative_l2, down.metric, down.fp32) == (0.0, "", None)


def test_a_folder_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", shape=(3, 16))
    with pytest.raises(DataError, match=r"shape \[3, 16\], the job's \[2, 16\]"):
        open_samples([folder], JOB.data.input_shape)


def test_no_folder_gives_no_samples() -> None:
    assert open_samples([], [2, 16]) is None
