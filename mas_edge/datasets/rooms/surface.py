"""The surfaces that were hit: points, normals, coordinates for textures, and principal curvatures.

Edges of rooms and furniture count as rounded with a radius of 8 cm when curvature is asked for (the picture shows them
sharp); where furniture touches the floor there is no rounding. Letters of shapes: B rooms, P pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.rays import Hits, Triple
from mas_edge.datasets.rooms.scene import F32, FIRST_BALL, FIRST_BOX, FIRST_COLUMN, FIRST_PICTURE, FLOOR, Objects, Rooms

ROUNDING = np.float32(0.08)  # m, of edges
TOUCH = np.float32(1e-4)  # m; float32 puts a point within this of the surface it lies on


class Surface(NamedTuple):
    """What the pixels show; every array is [B, P]."""

    point: Triple  # m, in the room
    normal: Triple  # unit vectors, towards the camera
    u: F32  # m, coordinates on the surface
    v: F32
    most: F32  # 1/m, the larger principal curvature: positive where the surface bulges towards the camera
    least: F32  # 1/m, the smaller one: negative in the corners of the room
    cover: NDArray[np.int8]  # which surface it is, with pictures and the rug


def surface_at(rooms: Rooms, hits: Hits, direction: Triple, pixel: float) -> Surface:
    """Describe what was hit; ``pixel`` is the width of a pixel at depth 1, over which rounded edges are averaged."""
    x, y, z = (rooms.camera[:, i : i + 1] + hits.depth * direction[i] for i in range(3))
    footprint = hits.depth * np.float32(pixel)
    faces = _faces(rooms, (x, y, z), hits.surface, footprint)
    flat = _Flat((x, y, z), *faces, footprint, hits.surface)
    for first, objects, fill in (
        (FIRST_BOX, rooms.boxes, _fill_boxes),
        (FIRST_BALL, rooms.balls, _fill_balls),
        (FIRST_COLUMN, rooms.columns, _fill_columns),
    ):
        last = first + objects.present.shape[1]
        where = np.flatnonzero((hits.surface >= first) & (hits.surface < last))
        if len(where):
            numbers = hits.surface.reshape(-1)[where] - first
            fill(flat, _Part(objects, where, numbers, hits.depth.shape[1], rooms.camera))
    return Surface((x, y, z), flat.normal, flat.u, flat.v, flat.most, flat.least, _covered(rooms, hits, flat))


class _Flat(NamedTuple):
    """The arrays that are being filled in."""

    point: Triple
    normal: Triple
    u: F32
    v: F32
    most: F32
    least: F32
    footprint: F32
    surface: NDArray[np.int8]


def _faces(rooms: Rooms, point: Triple, surface: NDArray[np.int8], footprint: F32) -> tuple[Triple, F32, F32, F32, F32]:
    """Normals, texture coordinates and curvatures as if everything were walls, floor and ceiling."""
    x, y, z = point
    normals = ((surface == low).astype(np.float32) - (surface == low + 1).astype(np.float32) for low in (0, 2, FLOOR))
    nx, ny, nz = normals
    on_x, on_z = surface < 2, surface >= FLOOR
    to_x, to_y, to_z = (np.minimum(p, rooms.size[:, i : i + 1] - p) for i, p in enumerate(point))
    one = -_rounded(np.where(on_x, to_y, to_x), footprint)
    other = -_rounded(np.where(on_z, to_y, to_z), footprint)
    u, v = np.where(on_x, y, x), np.where(on_z, y, z)
    return (nx, ny, nz), u, v, np.maximum(one, other), np.minimum(one, other)


def _rounded(distance: F32, footprint: F32) -> F32:
    """Curvature [1/m] of an edge at ``distance`` [m], averaged over a pixel that is ``footprint`` [m] wide.

    The rounding reaches from -ROUNDING to ROUNDING across the edge; the pixel sees the share of it that it covers.
    """
    half = footprint / 2
    seen = np.minimum(ROUNDING, distance + half) - np.maximum(-ROUNDING, distance - half)
    return np.asarray(np.clip(seen / footprint, 0, 1) / ROUNDING, np.float32)


class _Part:
    """The pixels that show objects of one kind, and of each the object's numbers."""

    def __init__(
        self, objects: Objects, where: NDArray[np.intp], n: NDArray[np.int8], pixels: int, camera: F32
    ) -> None:
        self.where = where
        entry = where // pixels * objects.present.shape[1] + n
        self.centre = objects.centre.reshape(-1, 3)[entry].T  # [3, n]
        self.half = objects.half.reshape(-1, 3)[entry].T
        self.cos, self.sin = objects.cos.reshape(-1)[entry], objects.sin.reshape(-1)[entry]
        self.camera = np.asarray(camera[where // pixels].T - self.centre, np.float32)  # [3, n], from the centres

    def of(self, values: F32) -> F32:
        """The pixels of this part out of [B, P]."""
        return values.reshape(-1)[self.where]

    def local(self, flat: _Flat) -> F32:
        """Points relative to the objects' centres, [3, n]."""
        return np.asarray(np.stack([self.of(p) for p in flat.point]) - self.centre, np.float32)

    def turned(self, vectors: F32) -> F32:
        """[3, n] in the axes of each object."""
        x, y, z = vectors
        return np.stack([self.cos * x + self.sin * y, self.cos * y - self.sin * x, z])

    def put(self, flat: _Flat, normal: tuple[F32, ...], uv: tuple[F32, F32], curvatures: tuple[F32, F32]) -> None:
        """Write this part's values; the two curvatures in any order."""
        one, other = curvatures
        pairs = zip(flat.normal, normal, strict=True)
        rest = (
            (flat.u, uv[0]),
            (flat.v, uv[1]),
            (flat.most, np.maximum(one, other)),
            (flat.least, np.minimum(one, other)),
        )
        for target, values in (*pairs, *rest):
            target.reshape(-1)[self.where] = values


def _fill_boxes(flat: _Flat, part: _Part) -> None:
    """Flat faces with convex edges, in the axes of each box; the edges at the floor stay sharp."""
    point, camera = part.turned(part.local(flat)), part.turned(part.camera)
    inside = part.half - np.abs(point)  # [3, n], from the faces
    in_sight = np.where(point > 0, camera, -camera) > part.half  # on an edge, rounding may prefer the hidden face
    axis = np.where(in_sight, inside, np.inf).argmin(axis=0)
    on_x, on_y, on_z = (axis == i for i in range(3))
    side = np.where(point[axis, np.arange(len(axis))] > 0, np.float32(1), np.float32(-1))
    local_x, local_y = on_x * side, on_y * side
    normal = (part.cos * local_x - part.sin * local_y, part.sin * local_x + part.cos * local_y, on_z * side)
    above = part.half[2] - point[2]  # to the upper edge: the lower one stands on the floor
    footprint = part.of(flat.footprint)
    edges = (
        _rounded(np.where(on_x, inside[1], inside[0]), footprint),
        _rounded(np.where(on_z, inside[1], above), footprint),
    )
    part.put(flat, normal, (np.where(on_x, point[1], point[0]), np.where(on_z, point[1], point[2])), edges)


def _fill_balls(flat: _Flat, part: _Part) -> None:
    """Curved by 1/r both ways."""
    point, radius = part.local(flat), part.half[0]
    x, y, z = point / np.sqrt(np.square(point).sum(axis=0))
    curvature = 1 / radius
    part.put(flat, (x, y, z), (np.arctan2(y, x) * radius, point[2]), (curvature, curvature))


def _fill_columns(flat: _Flat, part: _Part) -> None:
    """Curved by 1/r about the axis, flat on top, with a convex rim."""
    x, y, z = part.local(flat)
    radius, half = part.half[0], part.half[2]
    from_axis, below = np.hypot(x, y), half - z
    top = ((below < TOUCH) | (below < radius - from_axis)) & (part.camera[2] > half)  # from below, its rim is side
    flat_top = top.astype(np.float32)
    share = (1 - flat_top) / np.maximum(from_axis, TOUCH)
    around, rim = (1 - flat_top) / radius, _rounded(np.where(top, radius - from_axis, below), part.of(flat.footprint))
    u = np.where(top, x, np.arctan2(y, x) * radius)
    part.put(flat, (x * share, y * share, flat_top), (u, np.where(top, y, z)), (around, rim))


def _covered(rooms: Rooms, hits: Hits, flat: _Flat) -> NDArray[np.int8]:
    """The surfaces with pictures and the rug laid over walls and floor; a later one lies on top."""
    cover, patches = hits.surface, rooms.patches
    for n in np.flatnonzero((patches.surface >= 0).any(axis=0)):
        centre, half = patches.centre[:, n], patches.half[:, n]
        inside = (np.abs(flat.u - centre[:, :1]) < half[:, :1]) & (np.abs(flat.v - centre[:, 1:]) < half[:, 1:])
        cover = np.where(inside & (hits.surface == patches.surface[:, n : n + 1]), np.int8(FIRST_PICTURE + n), cover)
    return cover
