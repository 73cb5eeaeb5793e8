"""Buildings and the rooms in them, drawn from a seed: what stands where, in which colours, under which light.

A building fixes hues, textures, sizes of rooms, how much furniture there is, the light, and the camera; a room is one
draw from its building, seen in one image. A building depends on the seed and its own number only, a room on these, on
its split and on its own index: more devices or more images leave the others as they are.

Lengths are metres; x and y lie on the floor, z points up, and a room spans [0, Lx] x [0, Ly] x [0, h]. Letters of
shapes: B rooms, N objects of a kind, S surfaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bools = NDArray[np.bool_]

CLASSES = ("wall", "floor", "ceiling", "box", "ball", "column", "picture", "rug")
BOXES, BALLS, COLUMNS, PICTURES = 3, 2, 2, 3  # at most, in a room
# Surfaces by number: four walls (x=0, x=Lx, y=0, y=Ly), floor, ceiling, then the objects.
FLOOR, CEILING, FIRST_BOX = 4, 5, 6
FIRST_BALL = FIRST_BOX + BOXES
FIRST_COLUMN = FIRST_BALL + BALLS
FIRST_PICTURE = FIRST_COLUMN + COLUMNS
RUG = FIRST_PICTURE + PICTURES
SURFACES = RUG + 1
CLASS_OF_SURFACE = np.array(
    [0] * 4 + [1, 2] + [3] * BOXES + [4] * BALLS + [5] * COLUMNS + [6] * PICTURES + [7], np.uint8
)

TEXTURES = ("plain", "stripes", "checks", "dots", "marble")
SPLITS = ("train", "test")
CANDIDATES = 4  # places tried for an object; where none is free in front of the camera, the object is left out
CLEARANCE = 0.35  # between the camera and the nearest surface of an object
_BUILDING, _ROOM = 1, 2  # first numbers of the seeds: without them [seed, 1] and [seed, 1, 0] would be one stream
_UNIFORMS = 256  # drawn for each room; the rest is spare, so that a new object can be added


class Paint(NamedTuple):
    """What covers the surfaces: two colours, which of ``TEXTURES``, and its period."""

    first: F32  # [B, S, 3], red, green, blue in [0, 1]
    second: F32  # [B, S, 3]
    texture: NDArray[np.intp]  # [B, S]
    period: F32  # [B, S], m


class Objects(NamedTuple):
    """Upright objects of one kind; ``half`` holds half sizes of a box, (r, r, r) of a ball, (r, r, h/2) of a column."""

    present: Bools  # [B, N]
    centre: F32  # [B, N, 3]
    half: F32  # [B, N, 3]
    cos: F32  # [B, N], of the angle that a box is turned by about z
    sin: F32  # [B, N]


class Patches(NamedTuple):
    """Flat rectangles on walls and floor: pictures, and the rug as the last one."""

    surface: NDArray[np.intp]  # [B, N]: the wall or floor that it lies on; -1 = not there
    centre: F32  # [B, N, 2], in the coordinates of that surface (see ``render``)
    half: F32  # [B, N, 2]


class Rooms(NamedTuple):
    """B rooms, each with its camera and its light."""

    size: F32  # [B, 3]
    camera: F32  # [B, 3]
    right: F32  # [B, 3], unit vectors of the camera
    up: F32  # [B, 3]
    forward: F32  # [B, 3]
    light: F32  # [B, 3]
    boxes: Objects
    balls: Objects
    columns: Objects
    patches: Patches
    paint: Paint


@dataclass(frozen=True)
class Building:
    """What the rooms of one building have in common."""

    seed: int
    number: int
    size: F32  # [3], m, mean of its rooms
    chances: F32  # [5]: of a box, ball, column, picture, rug
    hues: F32  # [6]: walls, floor, ceiling, and three of the furniture, in [0, 1)
    saturation: float
    lightness: F32  # [3]: walls, floor, ceiling
    textures: F32  # [2, 5]: shares of ``TEXTURES`` on walls, floor and ceiling; on objects
    contrast: float  # of a texture's two colours
    light: F32  # [3]: colour and strength of the light
    ambient: float
    camera_height: float
    pitch: float  # rad, mean, negative = down
    half_view: float  # tangent of half the field of view


def building(seed: int, number: int) -> Building:
    """Draw building ``number`` (from 1) of the city ``seed``."""
    rng = np.random.default_rng([_BUILDING, seed, number])
    warmth = rng.uniform(0, 0.35)
    return Building(
        seed=seed,
        number=number,
        size=rng.uniform([2.8, 3.2, 2.3], [5.5, 6.5, 3.3]).astype(np.float32),
        chances=rng.uniform([0.4, 0.1, 0.1, 0.2, 0.1], [1.0, 0.9, 0.9, 1.0, 0.9]).astype(np.float32),
        hues=rng.random(6, np.float32),
        saturation=rng.uniform(0.25, 0.8),
        lightness=rng.uniform([0.45, 0.3, 0.7], [0.95, 0.8, 1.0]).astype(np.float32),
        textures=rng.dirichlet([0.6] * len(TEXTURES), 2).astype(np.float32),
        contrast=rng.uniform(0.3, 0.8),
        light=(np.array([1.0, 1.0 - warmth / 2, 1.0 - warmth]) * rng.uniform(0.8, 1.2)).astype(np.float32),
        ambient=rng.uniform(0.25, 0.45),
        camera_height=rng.uniform(1.0, 1.8),
        pitch=rng.uniform(-0.4, -0.1),
        half_view=float(np.tan(rng.uniform(0.5, 0.72))),  # 57 to 83 degrees
    )


def rooms(of: Building, split: int, first: int, count: int) -> Rooms:
    """Draw the rooms ``first`` to ``first + count - 1`` of a building; ``split`` as in ``SPLITS``."""
    seeds = ([_ROOM, of.seed, of.number, split, first + i] for i in range(count))
    draw = _Draw(np.stack([np.random.default_rng(seed).random(_UNIFORMS, np.float32) for seed in seeds]))
    size = of.size * draw.uniform(0.8, 1.2, 3)
    yaw = draw.uniform(-np.pi, np.pi)
    camera = _camera(of, size, yaw, draw)
    right, up, forward = _axes(yaw, of.pitch + draw.uniform(-0.15, 0.15))
    light = size * np.concatenate([draw.uniform(0.25, 0.75, 2), draw.uniform(0.86, 0.96)], axis=1)
    objects = [
        _objects(of.chances[kind], shape, size, camera, forward, draw)
        for kind, shape in enumerate((_box_sizes(draw), _ball_sizes(draw), _column_sizes(draw)))
    ]
    boxes, balls, columns = objects
    patches = _patches(of, size, camera, forward, draw)
    return Rooms(size, camera, right, up, forward, light, boxes, balls, columns, patches, _paint(of, draw))


class _Draw:
    """Hands out uniform numbers room by room, so that a room does not depend on how many are drawn together."""

    def __init__(self, numbers: F32) -> None:
        self.numbers = numbers  # [B, _UNIFORMS]
        self.used = 0

    def uniform(self, low: float, high: float, count: int = 1) -> F32:
        """[B, count] numbers in [low, high)."""
        self.used += count
        return np.float32(low) + np.float32(high - low) * self.numbers[:, self.used - count : self.used]


def _camera(of: Building, size: F32, yaw: F32, draw: _Draw) -> F32:
    """Stand back from the middle, against the direction of view, and at least 0.3 m off the walls."""
    towards = np.concatenate([np.cos(yaw), np.sin(yaw)], axis=1)
    place = size[:, :2] * (0.5 - 0.38 * towards + draw.uniform(-0.12, 0.12, 2))
    place = np.clip(place, np.float32(0.3), size[:, :2] - np.float32(0.3))
    height = np.minimum(of.camera_height + draw.uniform(-0.1, 0.1), size[:, 2:] - np.float32(0.3))
    return np.concatenate([place, height], axis=1)


def _axes(yaw: F32, pitch: F32) -> tuple[F32, F32, F32]:
    """Right, up and forward of a camera, [B, 3] each."""
    c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    right = np.concatenate([s, -c, np.zeros_like(c)], axis=1)
    up = np.concatenate([-c * sp, -s * sp, cp], axis=1)
    return right, up, np.concatenate([c * cp, s * cp, sp], axis=1)


def _box_sizes(draw: _Draw) -> F32:
    """Half sizes [B, N, 3] from stools to wardrobes."""
    wide, deep, high = draw.uniform(0.2, 0.7, BOXES), draw.uniform(0.2, 0.5, BOXES), draw.uniform(0.2, 0.85, BOXES)
    return np.stack([wide, deep, high], axis=-1)


def _ball_sizes(draw: _Draw) -> F32:
    return np.repeat(draw.uniform(0.18, 0.5, BALLS)[:, :, None], 3, axis=-1)


def _column_sizes(draw: _Draw) -> F32:
    radius = draw.uniform(0.12, 0.4, COLUMNS)
    return np.stack([radius, radius, draw.uniform(0.25, 0.9, COLUMNS)], axis=-1)


def _objects(chance: np.float32, half: F32, size: F32, camera: F32, forward: F32, draw: _Draw) -> Objects:
    """Put objects of half sizes ``half`` [B, N, 3] on the floor, before the camera and clear of it."""
    rooms_, n = half.shape[:2]
    wanted = draw.uniform(0, 1, n) < chance
    angle = draw.uniform(0, np.pi, n)
    reach = np.hypot(half[..., 0], half[..., 1])  # of the footprint about its centre
    share = np.stack([draw.uniform(0, 1, n * CANDIDATES), draw.uniform(0, 1, n * CANDIDATES)], axis=-1)
    margin = np.repeat(np.minimum(reach, 0.5)[:, :, None, None], CANDIDATES, axis=2)
    place = margin + share.reshape(rooms_, n, CANDIDATES, 2) * (size[:, None, None, :2] - 2 * margin)
    offset = place - camera[:, None, None, :2]
    ahead = (offset * forward[:, None, None, :2]).sum(axis=-1)
    fine = (ahead > 0.4) & (np.hypot(offset[..., 0], offset[..., 1]) > reach[:, :, None] + CLEARANCE)
    chosen = np.take_along_axis(place, fine.argmax(axis=2)[:, :, None, None], axis=2)[:, :, 0]
    half = half.copy()
    half[..., 2] = np.minimum(half[..., 2], 0.4 * size[:, 2:])  # below the light, which hangs at 0.86 h or more
    centre = np.concatenate([chosen, half[..., 2:]], axis=-1)
    return Objects(wanted & fine.any(axis=2), centre, half, np.cos(angle), np.sin(angle))


def _patches(of: Building, size: F32, camera: F32, forward: F32, draw: _Draw) -> Patches:
    """Pictures on the two walls that the camera faces, and a rug on the floor."""
    n = PICTURES
    on_x = draw.uniform(0, 1, n) < np.square(forward[:, :1]) / np.square(forward[:, :2]).sum(axis=1, keepdims=True)
    wall = np.where(on_x, forward[:, :1] > 0, 2 + (forward[:, 1:2] > 0))
    wall = np.where(draw.uniform(0, 1, n) < of.chances[3], wall, -1)
    length = np.where(on_x, size[:, 1:2], size[:, :1])
    middle = np.stack([length * draw.uniform(0.2, 0.8, n), 0.6 * size[:, 2:] + draw.uniform(-0.3, 0.3, n)], axis=-1)
    half = np.stack([draw.uniform(0.2, 0.6, n), draw.uniform(0.2, 0.45, n)], axis=-1)
    rug = np.where(draw.uniform(0, 1) < of.chances[4], FLOOR, -1)
    share = draw.uniform(0.35, 0.8)  # of the way from the camera's foot to the middle of the room, and beyond
    rug_at = camera[:, :2] + share * (size[:, :2] - 2 * camera[:, :2])
    rug_half = draw.uniform(0.5, 1.2, 2)
    return Patches(
        np.concatenate([wall, rug], axis=1).astype(np.intp),
        np.concatenate([middle, rug_at[:, None]], axis=1),
        np.concatenate([half, rug_half[:, None]], axis=1),
    )


def _paint(of: Building, draw: _Draw) -> Paint:
    """Colours and textures of all surfaces; opposite walls are painted alike."""
    n = SURFACES
    group = np.array([0] * 4 + [1, 2] + [3 + i % 3 for i in range(n - 6)])  # of the building's hues
    hue = of.hues[group] + draw.uniform(-0.06, 0.06, n)
    light = np.where(group < 3, of.lightness[np.minimum(group, 2)], draw.uniform(0.35, 0.95, n))
    saturation = of.saturation * np.where(group < 3, 0.6, draw.uniform(0.7, 1.2, n))
    shares = np.cumsum(of.textures, axis=1)[(group >= 3).astype(int)]  # [S, 5]
    texture = (draw.uniform(0, 1, n)[..., None] > shares[:, :-1]).sum(axis=-1)
    period = np.exp(draw.uniform(np.log(0.25), np.log(0.9), n)) * np.where(group < 3, 1.3, 0.6)
    for values in (hue, light, saturation, texture, period):
        values[:, 1], values[:, 3] = values[:, 0], values[:, 2]
    first = _rgb(hue, np.clip(saturation, 0, 1), light)
    darker = 1 - of.contrast * draw.uniform(0.6, 1, n)
    second = _rgb(hue + draw.uniform(-0.15, 0.15, n), np.clip(saturation, 0, 1), light * darker)
    return Paint(first, second, texture.astype(np.intp), period.astype(np.float32))


def _rgb(hue: F32, saturation: F32, value: F32) -> F32:
    """Colours [..., 3] of hue, saturation and value, as ``colorsys.hsv_to_rgb`` makes them."""
    k = (np.array([5, 3, 1], np.float32) + 6 * (hue[..., None] % 1)) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.asarray(value[..., None] * (1 - saturation[..., None] * ramp), np.float32)
