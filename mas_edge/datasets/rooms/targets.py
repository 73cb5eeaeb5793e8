"""The nine targets of a view, in their own units; ``units`` scales them for training.

Names and letters are those of Taskonomy (Zamir et al. 2018, arXiv 1804.08328) and of MAS's task sets. Sparse targets
are blurred: what is zero nearly everywhere is best answered by zero under L1, and nothing would be learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.datasets.rooms.picture import picture_of
from mas_edge.datasets.rooms.rays import Triple, camera_rays, dot, first_hits
from mas_edge.datasets.rooms.scene import CLASS_OF_SURFACE, CLASSES, F32, Building, rooms
from mas_edge.datasets.rooms.surface import ROUNDING, Surface, surface_at

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as ITU-R BT.601 weighs them
SIGMA = 1.0  # pixels, of the blurs of what is made from the picture
# Of the blurs of lines that follow from the geometry, as shares of the picture's side: 1 and 2 pixels of 32. With fixed
# pixels the lines would be ever thinner in larger pictures, and a network's best answer would be that there are none.
STEP_SIGMA, CURVATURE_SIGMA = 1 / 32, 2 / 32
KEYPOINT_GAIN, EDGE_GAIN = np.float32(40.0), np.float32(6.5)  # so that k and t weigh about as much as d and n
FADE = np.float32(0.1)  # 1/m², of the light at the camera
CHUNK = 16384  # pixels that are rendered together: their arrays of float32 stay in a core's cache

Array = NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """One of the nine tasks."""

    name: str
    letter: str
    channels: int  # 0 = one number a pixel
    unit: str


TASKS = (
    Kind("segmentation", "s", 0, "nats of cross-entropy"),
    Kind("depth", "d", 0, "the natural logarithm of metres"),
    Kind("normals", "n", 3, "components of unit vectors"),
    Kind("keypoints", "k", 0, "of the scaled corner measure"),
    Kind("edges", "t", 0, "of the scaled gradient of grey"),
    Kind("occlusion", "e", 0, "of the share of a depth step"),
    Kind("reshading", "r", 0, "of the brightness"),
    Kind("curvature", "c", 2, "of the curvature of an edge, 1/(8 cm)"),
    Kind("autoencoder", "a", 3, "of the brightness"),
)
BY_LETTER = {kind.letter: kind for kind in TASKS}


@dataclass(frozen=True)
class View:
    """What a batch of B images shows, H pixels high and W wide."""

    picture: F32  # [B, 3, H, W] in [0, 1]
    depth: F32  # [B, H, W], m along the camera's axis
    direction: Triple  # of the rays, [B, H*W] in the room
    surface: Surface
    axes: tuple[F32, F32, F32]  # right, up, forward, [B, 3]
    pixel: float  # the width of a pixel at depth 1
    ray: F32  # [H*W], the length of each ray at depth 1

    def image(self, values: Array) -> Array:
        """[B, P] as [B, H, W]."""
        return values.reshape(self.depth.shape)


def views(of: Building, split: int, count: int, size: int) -> Iterable[View]:
    """Render images 0 to ``count - 1`` of a building, ``size`` x ``size`` pixels, some at a time."""
    step = max(1, CHUNK // (size * size))
    for first in range(0, count, step):
        yield view(of, split, first, min(step, count - first), size)


def view(of: Building, split: int, first: int, count: int, size: int) -> View:
    """Render ``count`` images of a building from ``first`` on; the image with a number is the same in every batch."""
    drawn = rooms(of, split, first, count)
    origin = drawn.camera[:, :1], drawn.camera[:, 1:2], drawn.camera[:, 2:]
    direction = camera_rays(drawn, size, size, of.half_view)
    hits = first_hits(drawn, origin, direction)
    pixel = 2 * of.half_view / size
    surface = surface_at(drawn, hits, direction, pixel)
    picture = picture_of(drawn, of, surface).reshape(count, 3, size, size)
    axes = drawn.right, drawn.up, drawn.forward
    ray = np.sqrt(direction[0][0] ** 2 + direction[1][0] ** 2 + direction[2][0] ** 2)
    return View(picture, hits.depth.reshape(count, size, size), direction, surface, axes, pixel, ray)


def targets_of(seen: View, letters: str) -> dict[str, Array]:
    """The targets of ``letters`` by the name of the task, [B, channels, H, W] or [B, H, W]."""
    return {BY_LETTER[letter].name: _TARGETS[letter](seen) for letter in letters}


def segmentation(seen: View) -> NDArray[np.uint8]:
    """Which of ``CLASSES`` each pixel shows, [B, H, W]."""
    return np.asarray(seen.image(CLASS_OF_SURFACE[seen.surface.cover]))


def depth(seen: View) -> F32:
    """ln z, with z in metres along the camera's axis, [B, H, W]."""
    return np.log(seen.depth)


def normals(seen: View) -> F32:
    """Unit vectors in the camera's axes right, up and towards the viewer, [B, 3, H, W]."""
    right, up, forward = (dot((a[:, :1], a[:, 1:2], a[:, 2:]), seen.surface.normal) for a in seen.axes)
    return np.stack([seen.image(part) for part in (right, up, -forward)], axis=1)


def keypoints(seen: View) -> F32:
    """Corners and blobs of the grey picture, [B, H, W]: the root of the Hessian's determinant where it is positive.

    The interest measure of SURF (Bay et al. 2008), which Taskonomy's 2D keypoints are made with, at one scale.
    """
    grey = blur(_grey(seen))
    down, across = _slope(grey, 1), _slope(grey, 2)
    determinant = _slope(down, 1) * _slope(across, 2) - np.square(_slope(down, 2))
    return blur(KEYPOINT_GAIN * np.sqrt(np.maximum(determinant, 0)))


def edges(seen: View) -> F32:
    """The length of the gradient of the grey picture, [B, H, W]."""
    grey = blur(_grey(seen))
    return blur(EDGE_GAIN * np.hypot(_slope(grey, 1), _slope(grey, 2)))


def occlusion(seen: View) -> F32:
    """Steps in depth between neighbours that the surface does not explain, [B, H, W]: 0 = none, 1 = a wide one.

    From each of two neighbours the plane through its point and normal is followed to the other's ray; the smaller of
    the two misses is what the surface does not explain: two pixels' widths begin to count, six are a step. Where both
    are flat and the planes meet between the rays, there is a fold and no step.
    """
    inverse = 1 / seen.depth
    n, d = seen.surface.normal, seen.direction
    found = np.zeros(seen.depth.shape, np.float32)
    facing = seen.image(dot(n, d))  # below 0
    flat = ~np.isin(segmentation(seen), (CLASSES.index("ball"), CLASSES.index("column")))
    for axis in (1, 2):
        one, other = _pair(axis)
        misses = []
        for here, there in ((one, other), (other, one)):
            across = dot(_each(seen, n, here), _each(seen, d, there))
            # The plane n.(p - p0) = 0 meets the ray d' at 1/z' = (n.d') / (n.d) / z.
            misses.append(across / facing[here] * inverse[here] / inverse[there] - 1)
        fold = (misses[0] * misses[1] > 0) & flat[one] & flat[other]
        step = np.clip(np.minimum(*map(np.abs, misses)) / np.float32(4 * seen.pixel) - np.float32(0.5), 0, 1)
        step = np.where(fold, np.float32(0), step)
        for side in (one, other):
            found[side] = np.maximum(found[side], step)
    return blur(found, STEP_SIGMA * seen.depth.shape[-1])


def reshading(seen: View) -> F32:
    """How bright grey surfaces are under a light at the camera, [B, H, W]: cos of the angle / (1 + FADE distance²)."""
    facing = dot(seen.surface.normal, seen.direction)
    distance = seen.depth * seen.image(np.broadcast_to(seen.ray, facing.shape))
    return np.asarray(np.maximum(seen.image(-facing / seen.ray), 0) / (1 + FADE * np.square(distance)), np.float32)


def curvature(seen: View) -> F32:
    """The two principal curvatures, the larger first, in units of an edge's 1/(8 cm), [B, 2, H, W]."""
    sigma = CURVATURE_SIGMA * seen.depth.shape[-1]
    return np.stack([blur(seen.image(k * ROUNDING), sigma) for k in (seen.surface.most, seen.surface.least)], axis=1)


def autoencoder(seen: View) -> F32:
    """The picture itself, [B, 3, H, W]."""
    return seen.picture


def blur(image: F32, sigma: float = SIGMA) -> F32:
    """Convolve [B, H, W] with a Gaussian of ``sigma`` pixels, mirrored at the borders."""
    reach = int(3 * sigma)
    bell = np.exp(-np.square(np.arange(-reach, reach + 1) / sigma) / 2)
    weights = (bell / bell.sum()).astype(np.float32)
    for axis in (1, 2):
        length = image.shape[axis]
        wide = np.pad(image, [(reach, reach) if i == axis else (0, 0) for i in range(3)], mode="symmetric")
        image = np.zeros_like(image)
        for i, weight in enumerate(weights):
            image += weight * (wide[:, i : i + length] if axis == 1 else wide[:, :, i : i + length])
    return image


def _slope(image: F32, axis: int) -> F32:
    """Central differences per pixel along an axis, of an image that goes on as it ends."""
    wide = np.pad(image, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
    apart = wide[:, 2:] - wide[:, :-2] if axis == 1 else wide[:, :, 2:] - wide[:, :, :-2]
    return np.asarray(apart / 2, np.float32)


def _grey(seen: View) -> F32:
    return np.asarray(np.tensordot(seen.picture, GREY, axes=(1, 0)), np.float32)


def _each(seen: View, vectors: Triple, place: Any) -> Triple:
    """The vectors at the pixels ``place``."""
    x, y, z = (seen.image(component)[place] for component in vectors)
    return x, y, z


def _pair(axis: int) -> tuple[Any, Any]:
    """Index of all pixels that have a next neighbour along the axis, and of those neighbours."""
    whole = slice(None)
    if axis == 1:
        return (whole, slice(None, -1)), (whole, slice(1, None))
    return (whole, whole, slice(None, -1)), (whole, whole, slice(1, None))


_TARGETS: dict[str, Callable[[View], Array]] = {
    "s": segmentation, "d": depth, "n": normals, "k": keypoints, "t": edges, "e": occlusion, "r": reshading,
    "c": curvature, "a": autoencoder,
}  # fmt: skip
