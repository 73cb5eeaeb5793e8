"""Rooms that are put together by hand, so that what a camera sees in them is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.rays import camera_rays, first_hits
from mas_edge.datasets.rooms.scene import (
    BALLS,
    BOXES,
    COLUMNS,
    F32,
    PICTURES,
    SURFACES,
    Objects,
    Paint,
    Patches,
    Rooms,
    building,
)
from mas_edge.datasets.rooms.surface import surface_at
from mas_edge.datasets.rooms.targets import View

SIZE = (6.0, 5.0, 3.0)
CAMERA = (1.0, 2.5, 1.5)  # in the middle between two walls and between floor and ceiling, looking along x
HALF_VIEW = 0.5  # the wall at x = 6 fills the picture, up to 2.5 m to each side and 1.5 m up and down at most


def objects(count: int, *placed: tuple[tuple[float, ...], tuple[float, ...], float]) -> Objects:
    """``placed`` objects, (centre, half sizes, angle) each, and none in the other places."""
    n = len(placed)
    centre, half, angle = np.zeros((1, count, 3)), np.ones((1, count, 3)), np.zeros((1, count))
    for i, (at, sizes, turn) in enumerate(placed):
        centre[0, i], half[0, i], angle[0, i] = at, sizes, turn
    present = np.arange(count)[None] < n
    return Objects(present, f32(centre), f32(half), f32(np.cos(angle)), f32(np.sin(angle)))


def f32(values: object) -> F32:
    return np.asarray(values, np.float32)


def room(
    *, boxes: Objects | None = None, balls: Objects | None = None, columns: Objects | None = None,
    light: tuple[float, float, float] = (3.0, 2.5, 2.8),
) -> Rooms:  # fmt: skip
    """One room without pictures; white, without textures."""
    n = PICTURES + 1
    nothing: NDArray[np.intp] = np.full((1, n), -1, np.intp)
    white = np.ones((1, SURFACES, 3), np.float32)
    return Rooms(
        size=f32([SIZE]), camera=f32([CAMERA]),
        right=f32([[0, -1, 0]]), up=f32([[0, 0, 1]]), forward=f32([[1, 0, 0]]), light=f32([light]),
        boxes=boxes or objects(BOXES), balls=balls or objects(BALLS), columns=columns or objects(COLUMNS),
        patches=Patches(nothing, np.zeros((1, n, 2), np.float32), np.ones((1, n, 2), np.float32)),
        paint=Paint(white, white, np.zeros((1, SURFACES), np.intp), np.ones((1, SURFACES), np.float32)),
    )  # fmt: skip


def look(at: Rooms, size: int = 33) -> View:
    """What the camera sees; an odd ``size`` has a pixel in the very middle."""
    direction = camera_rays(at, size, size, HALF_VIEW)
    camera = at.camera[:, :1], at.camera[:, 1:2], at.camera[:, 2:]
    hits = first_hits(at, camera, direction)
    pixel = 2 * HALF_VIEW / size
    surface = surface_at(at, hits, direction, pixel)
    ray = np.sqrt(direction[0][0] ** 2 + direction[1][0] ** 2 + direction[2][0] ** 2)
    picture = np.zeros((1, 3, size, size), np.float32)
    axes = at.right, at.up, at.forward
    return View(picture, hits.depth.reshape(1, size, size), direction, surface, axes, pixel, ray)


PLAIN = building(0, 1)
