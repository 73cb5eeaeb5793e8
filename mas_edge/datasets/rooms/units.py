"""Scaling of the targets, so that a constant answer costs 1 in every task.

A stored target is (y - centre) / unit. The centre is the median of a channel and the unit the mean distance from it:
the L1 of the best constant of each channel. Scaling targets and not losses keeps the learning rate right for every
task. Classes cannot be scaled: their unit is the entropy of the classes' shares, by which the loss is divided.

The numbers are those of many other buildings, and the same for every set of rooms of a size: they do not depend on
which devices or how many images were drawn. ``calibrate`` made them: ``python tools/bench_rooms.py --units``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.scene import building
from mas_edge.datasets.rooms.targets import TASKS, Array, targets_of, view

BUILDINGS = range(10_001, 10_401)  # of seed 0: far from those that anybody trains on
IMAGES = 4  # of each
GRID = 32  # pixels along a side that count; larger images are thinned out


class Scale(NamedTuple):
    """How the targets of one task are scaled."""

    centre: tuple[float, ...]  # one for each channel; empty for classes
    unit: float


def scaled(name: str, target: Array, size: int) -> Array:
    """Targets [N, H, W] or [N, channels, H, W] in their own units as they are stored; classes stay as they are."""
    scale = SCALES[size][name]
    if not scale.centre:
        return target
    centre = np.array(scale.centre, np.float32)
    shape = (len(centre), 1, 1) if target.ndim == 4 else (1, 1)
    return np.asarray((target - centre.reshape(shape)) / np.float32(scale.unit), np.float32)


def calibrate(size: int, buildings: range = BUILDINGS, images: int = IMAGES) -> dict[str, Scale]:
    """Measure centres and units on ``images`` images of each of ``buildings``, to three digits."""
    letters = "".join(kind.letter for kind in TASKS)
    thin = size // GRID
    found: dict[str, list[Array]] = {kind.name: [] for kind in TASKS}
    for number in buildings:
        for name, target in targets_of(view(building(0, number), 0, 0, images, size), letters).items():
            found[name].append(target[..., thin // 2 :: thin, thin // 2 :: thin])
    return {name: _scale(np.concatenate(parts)) for name, parts in found.items()}


def _scale(target: Array) -> Scale:
    if target.dtype == np.uint8:
        return Scale((), _rounded(_entropy(target)))
    channels = target.reshape(len(target), -1, GRID, GRID).swapaxes(0, 1).reshape(-1, target.shape[0] * GRID * GRID)
    centre = tuple(round(float(np.median(channel)), 3) + 0.0 for channel in channels)  # no -0.0
    apart = [np.abs(channel - middle).mean(dtype=np.float64) for channel, middle in zip(channels, centre, strict=True)]
    return Scale(centre, _rounded(float(np.mean(apart))))


def _entropy(classes: NDArray[np.uint8]) -> float:
    shares = np.bincount(classes.reshape(-1)) / classes.size
    return float(-(shares * np.log(np.maximum(shares, 1e-30))).sum())


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


SCALES: dict[int, dict[str, Scale]] = {
    32: {
        "segmentation": Scale((), 1.66),
        "depth": Scale((0.9,), 0.39),
        "normals": Scale((0.0, -0.114, 0.556), 0.362),
        "keypoints": Scale((0.154,), 0.14),
        "edges": Scale((0.18,), 0.107),
        "occlusion": Scale((0.0,), 0.0744),
        "reshading": Scale((0.376,), 0.14),
        "curvature": Scale((0.002, 0.0), 0.0566),
        "autoencoder": Scale((0.37, 0.365, 0.354), 0.15),
    },
    64: {
        "segmentation": Scale((), 1.66),
        "depth": Scale((0.895,), 0.392),
        "normals": Scale((0.0, -0.11, 0.551), 0.363),
        "keypoints": Scale((0.134,), 0.154),
        "edges": Scale((0.176,), 0.117),
        "occlusion": Scale((0.0,), 0.0455),
        "reshading": Scale((0.378,), 0.14),
        "curvature": Scale((0.003, 0.0), 0.0566),
        "autoencoder": Scale((0.369, 0.364, 0.353), 0.15),
    },
    128: {
        "segmentation": Scale((), 1.66),
        "depth": Scale((0.897,), 0.391),
        "normals": Scale((0.0, -0.112, 0.553), 0.363),
        "keypoints": Scale((0.058,), 0.127),
        "edges": Scale((0.134,), 0.121),
        "occlusion": Scale((0.0,), 0.0251),
        "reshading": Scale((0.377,), 0.14),
        "curvature": Scale((0.002, 0.0), 0.0567),
        "autoencoder": Scale((0.37, 0.364, 0.353), 0.15),
    },
}
