"""Rays against rooms: which surface each ray meets first, where, and whether anything stands in its way.

Distances are in multiples of a ray's direction, which is not normalised: those of the camera have 1 along its axis, so
that the distance of a hit is its depth z. Letters of shapes: B rooms, P rays in each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.scene import F32, FIRST_BALL, FIRST_BOX, FIRST_COLUMN, FLOOR, Objects, Rooms

TINY = np.float32(1e-6)  # a component of a direction smaller than this counts as this: 0/0 would give NaN
INFINITE = np.float32(np.inf)
Triple = tuple[F32, F32, F32]  # the components of points or directions, [B, P] or [B, 1] each
Distance = Callable[[Objects, int, Triple, Triple], F32]


class Hits(NamedTuple):
    """What the rays meet first."""

    depth: F32  # [B, P]
    surface: NDArray[np.int8]  # [B, P], as numbered in ``scene``; pictures and the rug count as their wall and floor


def camera_rays(rooms: Rooms, height: int, width: int, half_view: float) -> Triple:
    """Directions [B, P] through the middles of the pixels, row by row from the top; 1 along the camera's axis."""
    pixel = np.float32(2 * half_view / max(height, width))
    across = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) * pixel
    upwards = (np.float32((height - 1) / 2) - np.arange(height, dtype=np.float32)) * pixel
    a, b = np.tile(across, height).astype(np.float32), np.repeat(upwards, width).astype(np.float32)
    x, y, z = (
        rooms.forward[:, i : i + 1] + a * rooms.right[:, i : i + 1] + b * rooms.up[:, i : i + 1] for i in range(3)
    )
    return x, y, z


def dot(one: Triple, other: Triple) -> F32:
    """The inner product of two vectors."""
    product: F32 = one[0] * other[0] + one[1] * other[1] + one[2] * other[2]
    return product


def first_hits(rooms: Rooms, origin: Triple, direction: Triple) -> Hits:
    """Follow rays that start inside the rooms; the walls end every ray."""
    depth, surface = _walls(rooms, origin, direction)
    for first, objects, distance in _objects_of(rooms):
        for n in _somewhere(objects):
            t = distance(objects, n, origin, direction)
            nearer = t < depth
            depth = np.where(nearer, t, depth)
            surface = np.where(nearer, np.int8(first + n), surface)
    return Hits(depth, surface)


def blocked(rooms: Rooms, origin: Triple, towards: Triple) -> NDArray[np.bool_]:
    """Whether an object lies between ``origin`` and ``origin + towards``, [B, P]. Walls never do: rooms are convex."""
    found = np.zeros(towards[0].shape, np.bool_)
    for _, objects, distance in _objects_of(rooms):
        for n in _somewhere(objects):
            found |= distance(objects, n, origin, towards) < 1
    return found


def _somewhere(objects: Objects) -> list[int]:
    """The numbers of the objects that stand in at least one of the rooms."""
    return [int(n) for n in np.flatnonzero(objects.present.any(axis=0))]


def _inverse(component: F32) -> F32:
    """1/component, with the sign kept and without a division by zero."""
    safe = np.where(np.abs(component) < TINY, np.copysign(TINY, component), component)
    return np.asarray(1 / safe, np.float32)


def _walls(rooms: Rooms, origin: Triple, direction: Triple) -> tuple[F32, NDArray[np.int8]]:
    """Where rays leave the room: the distance and which of the six faces it is."""
    depth = np.full(direction[0].shape, INFINITE, np.float32)
    face = np.zeros(direction[0].shape, np.int8)
    for axis, first in enumerate((0, 2, FLOOR)):
        inverse = _inverse(direction[axis])
        onwards = inverse > 0  # not direction > 0: a 0 counts as TINY, and the wall must be the one on that side
        t = (np.where(onwards, rooms.size[:, axis : axis + 1], np.float32(0)) - origin[axis]) * inverse
        nearer = t < depth
        depth = np.where(nearer, t, depth)
        face = np.where(nearer, np.int8(first) + onwards, face)
    return depth, face


def _column(values: F32, n: int) -> F32:
    return values[:, n : n + 1]


def _to_box(objects: Objects, n: int, vector: Triple) -> Triple:
    """Turn a vector, or a point relative to the box's centre, into the box's own axes."""
    c, s = _column(objects.cos, n), _column(objects.sin, n)
    return c * vector[0] + s * vector[1], c * vector[1] - s * vector[0], vector[2]


def _from_centre(objects: Objects, n: int, origin: Triple) -> Triple:
    x, y, z = (origin[i] - objects.centre[:, n, i : i + 1] for i in range(3))
    return x, y, z


def box_distance(objects: Objects, n: int, origin: Triple, direction: Triple) -> F32:
    """Where rays that start outside enter box ``n`` of each room, [B, P]; infinite where they do not (slab test)."""
    start, along = _to_box(objects, n, _from_centre(objects, n, origin)), _to_box(objects, n, direction)
    enter, leave = -INFINITE, INFINITE
    for axis in range(3):
        inverse = _inverse(along[axis])
        middle, reach = -start[axis] * inverse, objects.half[:, n, axis : axis + 1] * np.abs(inverse)
        enter, leave = np.maximum(enter, middle - reach), np.minimum(leave, middle + reach)
    return np.where((enter < leave) & (enter > 0) & objects.present[:, n : n + 1], enter, INFINITE)


def ball_distance(objects: Objects, n: int, origin: Triple, direction: Triple) -> F32:
    """Where rays that start outside enter ball ``n`` of each room, [B, P]; infinite where they do not."""
    x, y, z = _from_centre(objects, n, origin)
    c = dot((x, y, z), (x, y, z)) - np.square(objects.half[:, n, :1])
    t = _near_root(dot(direction, direction), dot((x, y, z), direction), c)
    return np.where((t > 0) & objects.present[:, n : n + 1], t, INFINITE)


def column_distance(objects: Objects, n: int, origin: Triple, direction: Triple) -> F32:
    """Where rays that start outside enter column ``n`` of each room, by its side or its top, [B, P]; else infinite."""
    x, y, z = _from_centre(objects, n, origin)
    dx, dy, dz = direction
    radius, half = objects.half[:, n, :1], objects.half[:, n, 2:]
    side = _near_root(np.maximum(dx * dx + dy * dy, TINY), x * dx + y * dy, x * x + y * y - radius * radius)
    side = np.where((side > 0) & (np.abs(z + side * dz) <= half), side, INFINITE)
    top = (half - z) * _inverse(dz)
    inside = np.square(x + top * dx) + np.square(y + top * dy) <= radius * radius
    top = np.where((top > 0) & (dz < 0) & inside, top, INFINITE)
    return np.where(objects.present[:, n : n + 1], np.minimum(side, top), INFINITE)


def _near_root(a: F32, half_b: F32, c: F32) -> F32:
    """The smaller root of a t² + 2 half_b t + c = 0 with a > 0; -1 where there is none."""
    square = half_b * half_b - a * c
    return np.where(square > 0, (-half_b - np.sqrt(np.maximum(square, 0))) / a, np.float32(-1))


def _objects_of(rooms: Rooms) -> tuple[tuple[int, Objects, Distance], ...]:
    """The first surface of each kind of object, the objects, and how far rays are from them."""
    return (
        (FIRST_BOX, rooms.boxes, box_distance),
        (FIRST_BALL, rooms.balls, ball_distance),
        (FIRST_COLUMN, rooms.columns, column_distance),
    )
