"""The picture of a room: textured surfaces under one point light that casts shadows.

Letters of shapes: B rooms, P pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.rays import Triple, blocked, dot
from mas_edge.datasets.rooms.scene import F32, SURFACES, Building, Rooms
from mas_edge.datasets.rooms.surface import Surface

LIFT = np.float32(2e-3)  # m, off the surface, where the rays towards the light start
FADE = np.float32(0.06)  # 1/m²: light at a distance d is 1/(1 + FADE d²); a lamp's 1/d² would leave far corners black
STRENGTH = np.float32(1.1)  # of the light beside the ambient one


def picture_of(rooms: Rooms, of: Building, surface: Surface) -> F32:
    """The colours that the camera sees, [B, 3, P] in [0, 1]."""
    mix, first, second = _texture(rooms, surface)
    light = _direct_light(rooms, surface)
    shown = np.empty((len(mix), 3, mix.shape[1]), np.float32)
    for channel in range(3):
        colour = first[channel] + mix * (second[channel] - first[channel])
        # Square roots take linear light to the colours of a screen, to a gamma of 2.
        shown[:, channel] = colour * np.sqrt(np.float32(of.ambient) + of.light[channel] * light)
    return np.clip(shown, 0, 1, out=shown)


def _direct_light(rooms: Rooms, surface: Surface) -> F32:
    """Lambert's law for the point light, 0 in the shadow."""
    x, y, z = (p + LIFT * n for p, n in zip(surface.point, surface.normal, strict=True))
    towards: Triple = rooms.light[:, :1] - x, rooms.light[:, 1:2] - y, rooms.light[:, 2:] - z
    square = dot(towards, towards)
    slant = dot(towards, surface.normal) / np.sqrt(square)
    lit = (slant > 0) & ~blocked(rooms, (x, y, z), towards)
    return np.asarray(np.where(lit, STRENGTH * slant / (1 + FADE * square), np.float32(0)), np.float32)


def _texture(rooms: Rooms, surface: Surface) -> tuple[F32, list[F32], list[F32]]:
    """The share [B, P] of the second colour, and both colours, three of [B, P] each."""
    paint = rooms.paint
    entry = surface.cover + (np.arange(len(surface.cover)) * SURFACES)[:, None]
    texture, period = paint.texture.reshape(-1)[entry], paint.period.reshape(-1)[entry]
    a, b = surface.u / period, surface.v / period
    mix = np.zeros(a.shape, np.float32)
    for number, pattern in enumerate((_stripes, _checks, _dots, _marble), start=1):
        here = np.flatnonzero(texture == number)
        mix.reshape(-1)[here] = pattern(a.reshape(-1)[here], b.reshape(-1)[here])
    first, second = (
        [np.ascontiguousarray(c[..., i]).reshape(-1)[entry] for i in range(3)] for c in (paint.first, paint.second)
    )
    return mix, first, second


def _stripes(a: F32, _b: F32) -> NDArray[np.bool_]:
    return a - np.floor(a) < 0.5


def _checks(a: F32, b: F32) -> NDArray[np.bool_]:
    return (a - np.floor(a) < 0.5) ^ (b - np.floor(b) < 0.5)


def _dots(a: F32, b: F32) -> NDArray[np.bool_]:
    square = np.square(a - np.floor(a) - np.float32(0.5)) + np.square(b - np.floor(b) - np.float32(0.5))
    return np.asarray(square < 0.09)


def _marble(a: F32, b: F32) -> F32:
    turn = np.float32(2 * np.pi)
    wave = np.sin(turn * (a + np.float32(0.5) * np.sin(turn * b * np.float32(0.6))))
    return np.asarray(np.float32(0.5) + np.float32(0.5) * wave, np.float32)
