"""The smart-watch data set: ten people's recordings out of the pip package ``seglearn``, one data folder a person.

The recordings are those of D. M. Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the
inertial signals from a smartwatch", Physiological Measurement 39 (2018), arXiv:1802.01489: 140 recordings (10 people,
7 exercises, left and right arm) at 50 Hz of acceleration in g and angular velocity in rad/s.

A sample is a window of 64 steps (1.28 s). Class tasks ask what it shows; the others ask what happens in the 64 steps
that follow, which the network does not see. Three of each person's 14 recordings are for testing, and nothing of a
test recording is trained on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.folder_set import FolderSet, make_once
from mas_edge.protocol.errors import DataError

# The file of seglearn 1.2.5. It is a pickle, which can run code when it is read: it is opened only if it is this file.
RECORDINGS_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
RECIPE = 1  # of the folders; goes up when the same recordings give other folders
SUBJECTS, EXERCISES, SIDES = 10, 7, 2
WINDOW = FOLLOWING = 64  # steps of 20 ms; sets of 20 repetitions take 19 to 52 s
STRIDE = 32
FORECAST = 16  # steps

# Statistics of the training recordings, rounded; fixed here so that no person's data leaks into another's.
# Mean and standard deviation of ax ay az [g], wx wy wz [rad/s].
CENTER = np.array([0.0, 0.38, -0.15, 0.0, 0.0, 0.0], np.float32)
SPREAD = np.array([0.9, 0.5, 0.54, 1.0, 2.5, 1.1], np.float32)
# Mean absolute deviations from the median: dividing by them puts the L1 of the best constant near 1 for every task.
FORECAST_SPREAD = np.array([0.73, 0.41, 0.40], np.float32)
INTENSITY_CENTER, INTENSITY_SPREAD = -0.81, 0.58
ROTATION_SPREAD = np.array([0.21, 0.71, 0.27], np.float32)

DATA_TOML = f"""\
format = 1
input_shape = [6, {WINDOW}]  # ax ay az wx wy wz, standardised

[tasks.exercise]  # which of the seven exercises
kind = "class"
classes = {EXERCISES}

[tasks.side]  # which arm
kind = "class"
classes = {SIDES}

[tasks.forecast]  # the acceleration in the {FORECAST} steps after the window
kind = "value"
shape = [3, {FORECAST}]

[tasks.gravity]  # the direction of the mean acceleration in the {FOLLOWING} steps after the window
kind = "direction"
shape = [3]

[tasks.intensity]  # the log of the acceleration's root mean square deviation from its mean, in the same steps
kind = "value"

[tasks.rotation]  # the mean angular velocity in the same steps
kind = "value"
shape = [3]
"""

Array = NDArray[Any]


@dataclass(frozen=True)
class WatchFolders:
    """The device folders below ``directory``; ``created`` is False if they were there before."""

    directory: Path
    folders: list[Path]
    created: bool


def make_watch(directory: Path) -> WatchFolders:
    """Make the ten device folders ``watch-01`` to ``watch-10`` below ``directory``, or find that they are there.

    Raises:
        DataError: ``directory`` holds something else, or changed folders; the recordings are missing or others.
    """
    names = [f"watch-{subject:02d}" for subject in range(1, SUBJECTS + 1)]
    recipe = {"recipe": RECIPE, "recordings": RECORDINGS_SHA256}
    created = make_once(directory, FolderSet("watch", recipe, lambda made: _write(made, names)))
    return WatchFolders(directory, [directory / name for name in names], created)


def _load_recordings() -> dict[str, Any]:
    """The recordings of the installed package, which is found but not imported: it would pull in scikit-learn."""
    spec = importlib.util.find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        message = "the recordings ship in the pip package seglearn, which is missing: pip install 'mas-edge[watch]'"
        raise DataError(message)
    path = Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    try:
        data = path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}: pip install --force-reinstall seglearn==1.2.5"
        raise DataError(message) from None
    if hashlib.sha256(data).hexdigest() != RECORDINGS_SHA256:
        message = f"{path} is not the file of seglearn 1.2.5: pip install --force-reinstall seglearn==1.2.5"
        raise DataError(message)
    recordings: dict[str, Any] = np.load(io.BytesIO(data), allow_pickle=True).item()
    return recordings


def is_held_out(subject: int, exercise: int, side: int) -> bool:
    """Whether a recording is for testing: 3 of each subject's 14, of three exercises and of both arms.

    ``subject`` counts from 1. The codes 3 s + 5 j (mod 14) reach every pair (exercise, side) for 1 to 3 of the ten
    subjects, so that each stays in the training recordings of at least seven others.
    """
    return exercise * SIDES + side in {(3 * (subject - 1) + 5 * j) % (EXERCISES * SIDES) for j in range(3)}


def _write(directory: Path, names: list[str]) -> None:
    recordings = _load_recordings()
    for subject, name in enumerate(names, start=1):
        folder = directory / name
        folder.mkdir()
        (folder / "data.toml").write_text(DATA_TOML, encoding="utf-8", newline="\n")
        for array, values in _arrays_of(subject, recordings).items():
            # Row by row, as boards read them
            np.save(folder / f"{array}.npy", np.ascontiguousarray(values), allow_pickle=False)


def _arrays_of(subject: int, recordings: dict[str, Any]) -> dict[str, Array]:
    parts: list[dict[str, Array]] = []
    for i in np.flatnonzero(recordings["subject"] == subject):
        exercise, side = int(recordings["y"][i]), int(recordings["side"][i])
        samples = _samples(np.asarray(recordings["X"][i], np.float32))
        n = len(samples["x"])
        samples["exercise"], samples["side"] = np.full(n, exercise), np.full(n, side)
        samples["split"] = np.full(n, is_held_out(subject, exercise, side), np.uint8)
        parts.append(samples)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _samples(recording: NDArray[np.float32]) -> dict[str, Array]:
    """Inputs and targets of one recording [T, 6]: n = (T - WINDOW - FOLLOWING) // STRIDE + 1 samples."""
    pieces = np.lib.stride_tricks.sliding_window_view(recording, WINDOW + FOLLOWING, axis=0)[::STRIDE]
    seen, after = pieces[:, :, :WINDOW], pieces[:, :, WINDOW:]  # [n, 6, steps]
    acceleration, rotation = after[:, :3], after[:, 3:].mean(axis=2)
    mean = acceleration.mean(axis=2)
    deviation = acceleration - mean[:, :, None]
    energy = np.square(deviation).sum(axis=1).mean(axis=1)  # [n], in g^2; never 0 in these recordings
    return {
        "x": ((seen - CENTER[:, None]) / SPREAD[:, None]).astype(np.float32),
        "forecast": (acceleration[:, :, :FORECAST] - CENTER[:3, None]) / FORECAST_SPREAD[:, None],
        "gravity": mean / np.linalg.norm(mean, axis=1, keepdims=True),
        "intensity": ((0.5 * np.log(energy) - INTENSITY_CENTER) / INTENSITY_SPREAD).astype(np.float32),
        "rotation": rotation / ROTATION_SPREAD,
    }
