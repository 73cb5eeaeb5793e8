"""What the camera sees against what is known of the scene, without the formulas that the renderer uses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mas_edge.datasets.rooms import targets
from mas_edge.datasets.rooms.picture import picture_of
from mas_edge.datasets.rooms.rays import Triple, blocked, camera_rays, first_hits
from mas_edge.datasets.rooms.scene import (
    BALLS,
    BOXES,
    CEILING,
    CLASSES,
    COLUMNS,
    FIRST_BALL,
    FIRST_BOX,
    FIRST_COLUMN,
    FLOOR,
    RUG,
    Objects,
    Rooms,
    building,
    rooms,
)
from mas_edge.datasets.rooms.surface import ROUNDING
from tests.datasets.small_rooms import HALF_VIEW, PLAIN, look, objects, room

MIDDLE = 33 * 33 // 2
WALL_AT = 5.0  # m before the camera of a hand-made room
Points = NDArray[np.float32]  # [3, n]
numbers = st.integers(0, 2**31)


def inside(of: Objects, n: int, kind: int, points: Points) -> NDArray[np.float32]:
    """Below 1 inside of the object ``n`` of the first room, 1 on its surface."""
    x, y, z = points - of.centre[0, n][:, None]
    a, b = of.cos[0, n] * x + of.sin[0, n] * y, of.cos[0, n] * y - of.sin[0, n] * x
    half = of.half[0, n]
    if kind == FIRST_BALL:
        return np.asarray(np.sqrt(x * x + y * y + z * z) / half[0], np.float32)
    if kind == FIRST_COLUMN:
        return np.asarray(np.maximum(np.hypot(x, y) / half[0], np.abs(z) / half[2]), np.float32)
    return np.asarray(np.max([np.abs(a) / half[0], np.abs(b) / half[1], np.abs(z) / half[2]], axis=0), np.float32)


def solids(of: Rooms) -> list[tuple[int, Callable[[Points], NDArray[np.float32]]]]:
    """The surface and the inside of every object of the first room."""
    kinds = ((FIRST_BOX, of.boxes), (FIRST_BALL, of.balls), (FIRST_COLUMN, of.columns))
    return [
        (first + n, lambda points, group=group, n=n, first=first: inside(group, n, first, points))  # type: ignore[misc]
        for first, group in kinds for n in range(group.present.shape[1]) if group.present[0, n]
    ]  # fmt: skip


def seen_from_a_random_room(seed: int, number: int) -> tuple[Rooms, Triple, targets.View]:
    of = building(seed, number)
    drawn = rooms(of, 0, 0, 1)
    return drawn, camera_rays(drawn, 24, 24, of.half_view), targets.view(of, 0, 0, 1, 24)


def points_at(of: Rooms, direction: Triple, depth: NDArray[np.float32]) -> Points:
    return np.stack([of.camera[0, i] + depth * direction[i][0] for i in range(3)])


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(1, 1000))
def test_every_pixel_lies_on_the_surface_that_it_is_said_to_show(seed: int, number: int) -> None:
    drawn, direction, seen = seen_from_a_random_room(seed, number)
    points, cover = points_at(drawn, direction, seen.depth.reshape(-1)), seen.surface.cover[0]
    bare = first_hits(drawn, (drawn.camera[:, :1], drawn.camera[:, 1:2], drawn.camera[:, 2:]), direction).surface[0]
    for face in range(6):
        plane = [0.0, drawn.size[0, face // 2]][face % 2]
        np.testing.assert_allclose(points[face // 2][bare == face], plane, atol=2e-4)
    for surface, share in solids(drawn):
        np.testing.assert_allclose(share(points[:, cover == surface]), 1, atol=2e-3)
    assert (bare[cover == RUG] == FLOOR).all()
    on_wall = (cover > RUG - 4) & (cover < RUG)
    assert (bare[on_wall] < FLOOR).all()


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(1, 1000))
def test_nothing_stands_between_the_camera_and_what_it_shows(seed: int, number: int) -> None:
    drawn, direction, seen = seen_from_a_random_room(seed, number)
    for share in np.linspace(0.02, 0.98, 49):
        before = points_at(drawn, direction, np.float32(share) * seen.depth.reshape(-1))
        assert (before >= 0).all()
        assert (before <= drawn.size[0][:, None]).all()
        for surface, of_solid in solids(drawn):
            assert of_solid(before).min() > 0.99, surface


@settings(max_examples=15, deadline=None)
@given(numbers, st.integers(1, 1000))
def test_a_point_is_in_the_shadow_if_something_stands_before_the_light(seed: int, number: int) -> None:
    drawn, _, seen = seen_from_a_random_room(seed, number)
    lifted = [p + np.float32(2e-3) * n for p, n in zip(seen.surface.point, seen.surface.normal, strict=True)]
    towards = [drawn.light[:, i : i + 1] - p for i, p in enumerate(lifted)]
    found = blocked(drawn, (lifted[0], lifted[1], lifted[2]), (towards[0], towards[1], towards[2]))[0]
    slant = sum((t * n for t, n in zip(towards, seen.surface.normal, strict=True)), np.float32(0))[0]  # type: ignore
    between = np.zeros(found.shape, np.bool_)
    deep = np.zeros(found.shape, np.bool_)  # by more than what the steps along the ray may miss
    for share in np.linspace(0.004, 0.996, 200):
        points = np.stack([p[0] + np.float32(share) * t[0] for p, t in zip(lifted, towards, strict=True)])
        for _, of_solid in solids(drawn):
            between |= of_solid(points) < 1
            deep |= of_solid(points) < 0.97
    lit = slant > 0.05
    assert (found & ~between & lit).mean() < 0.01  # objects that are grazed between two steps
    assert (found | ~deep | ~lit).all()


@settings(max_examples=30, deadline=None)
@given(numbers, st.integers(1, 1000))
@example(62390, 79)  # looks up at the rim of a column
def test_normals_are_unit_vectors_that_face_the_camera(seed: int, number: int) -> None:
    _, direction, seen = seen_from_a_random_room(seed, number)
    n = targets.normals(seen)
    np.testing.assert_allclose(np.square(n).sum(axis=1), 1, atol=1e-4)
    facing = sum(seen.surface.normal[i] * direction[i] for i in range(3))
    assert np.max(facing) < 2e-2  # float32 on the rim of a ball
    half = seen.pixel * 24 / 2
    grid = (np.arange(24) + 0.5) / 12 * half - half
    view = np.stack(np.broadcast_arrays(grid[None, :], -grid[:, None], -1.0))  # right, up, towards the viewer
    np.testing.assert_allclose((n[0] * view).sum(axis=0).reshape(-1), facing[0], atol=1e-4)  # type: ignore[index]


@settings(max_examples=20, deadline=None)
@given(numbers, st.integers(1, 1000))
def test_nothing_is_nan_and_classes_are_known(seed: int, number: int) -> None:
    seen = targets.view(building(seed, number), 1, 0, 2, 16)
    for name, target in targets.targets_of(seen, "sdnkterca").items():
        assert np.isfinite(target).all(), name
    assert seen.picture.min() >= 0
    assert seen.picture.max() <= 1
    assert targets.segmentation(seen).max() < len(CLASSES)


def test_a_wall_straight_ahead_has_one_depth_and_faces_the_camera() -> None:
    seen = look(room())
    ahead = targets.segmentation(seen)[0] == CLASSES.index("wall")
    assert ahead[16].all()
    np.testing.assert_allclose(targets.depth(seen)[0, 16], np.log(WALL_AT), atol=1e-5)
    np.testing.assert_allclose(targets.normals(seen)[0, :, 16, 16], [0, 0, 1], atol=1e-6)
    assert targets.curvature(seen)[0, :, 16, 16].tolist() == [0, 0]


def test_rays_along_the_axes_meet_something_at_a_finite_depth() -> None:
    """The middle column and row have components of exactly 0, where 0/0 would be NaN in the test against a box."""
    seen = look(
        room(boxes=objects(BOXES, ((3.0, 2.0, 0.5), (0.5, 0.5, 0.5), 0.0), ((4.0, 2.5, 1.5), (0.5, 1, 1), 0.0)))
    )
    assert not seen.direction[1].all()
    assert np.isfinite(seen.depth).all()
    assert seen.depth[0, 16, 16] == pytest.approx(2.5)


def test_a_ball_is_curved_by_one_over_its_radius_both_ways() -> None:
    seen = look(room(balls=objects(BALLS, ((3.0, 2.5, 1.5), (0.5,) * 3, 0.0))))
    assert seen.depth[0, 16, 16] == pytest.approx(1.5)
    assert seen.surface.most[0, MIDDLE] == pytest.approx(2)
    assert seen.surface.least[0, MIDDLE] == pytest.approx(2)
    np.testing.assert_allclose(targets.normals(seen)[0, :, 16, 16], [0, 0, 1], atol=1e-6)
    normal = np.stack([n[0, MIDDLE + 3] for n in seen.surface.normal])
    away = np.stack([p[0, MIDDLE + 3] for p in seen.surface.point]) - np.array([3.0, 2.5, 1.5])
    np.testing.assert_allclose(normal, away / 0.5, atol=1e-5)


def test_a_column_is_curved_about_its_axis_only() -> None:
    seen = look(room(columns=objects(COLUMNS, ((3.0, 2.5, 1.2), (0.4, 0.4, 1.2), 0.0))))
    assert seen.depth[0, 16, 16] == pytest.approx(1.6)
    assert (seen.surface.most[0, MIDDLE], seen.surface.least[0, MIDDLE]) == (pytest.approx(2.5), 0)


def test_a_turned_box_shows_its_edge_with_the_curvature_of_the_rounding() -> None:
    half = np.sqrt(0.5)
    seen = look(room(boxes=objects(BOXES, ((3.0, 2.5, 1.5), (half, half, 1.0), np.pi / 4))))
    assert seen.depth[0, 16, 16] == pytest.approx(1.0, abs=1e-5)
    assert seen.surface.most[0, MIDDLE] == pytest.approx(1 / ROUNDING)
    assert seen.surface.most[0, MIDDLE + 10] == 0  # on the face, clear of the edge
    np.testing.assert_allclose(targets.normals(seen)[0, :, 16, 20], [half, 0, half], atol=1e-6)


def test_corners_of_the_room_are_hollow_and_edges_of_a_box_bulge() -> None:
    seen = look(room(boxes=objects(BOXES, ((4.0, 2.5, 0.8), (0.5, 0.5, 0.8), 0.0))), size=65)
    curvature = targets.curvature(seen)[0]
    floor_line = np.argmin(curvature[1, :, 16])
    assert curvature[1, floor_line, 16] < -0.1
    assert curvature[0, floor_line, 16] == 0
    top = np.argmax(curvature[0, :, 32])
    assert curvature[0, top, 32] > 0.1


def test_folds_of_a_surface_are_no_steps_and_the_rim_of_a_box_is_one() -> None:
    assert not targets.occlusion(look(room())).any()  # walls, floor and ceiling meet, nothing hides anything
    found = targets.occlusion(look(room(boxes=objects(BOXES, ((3.0, 2.5, 1.5), (0.5, 0.4, 0.4), 0.0)))))[0]
    assert found[16, 16] == 0
    assert found[16].max() > 0.4
    rim = int(np.argmax(found[16]))
    assert abs(abs(rim - 16) - 0.4 / 1.5 * 33 / (2 * HALF_VIEW)) < 1.5


def test_a_light_at_the_camera_shows_what_faces_it_brightest() -> None:
    shown = targets.reshading(look(room()))[0]
    assert shown[16, 16] == pytest.approx(1 / (1 + 0.1 * WALL_AT**2))
    near = targets.reshading(look(room(boxes=objects(BOXES, ((3.0, 2.5, 1.5), (0.5, 0.4, 0.4), 0.0)))))[0]
    assert near[16, 16] == pytest.approx(1 / (1 + 0.1 * 1.5**2))
    assert shown.min() >= 0


def test_a_ball_before_the_light_throws_a_shadow_on_the_wall() -> None:
    light = (1.0, 2.5, 1.5)  # where the camera is: only what it does not see is in the shadow
    of = room(balls=objects(BALLS, ((3.0, 2.5, 1.5), (0.5,) * 3, 0.0)), light=light)
    shown = picture_of(of, PLAIN, look(of).surface)[0, 0].reshape(33, 33)
    assert shown[16, 2] > np.sqrt(PLAIN.ambient) + 0.01
    aside = room(balls=of.balls, light=(1.0, 0.2, 1.5))
    seen = look(aside)
    dark = picture_of(aside, PLAIN, seen.surface)[0, 0].reshape(33, 33)
    on_wall = targets.segmentation(seen)[0] == CLASSES.index("wall")
    assert np.any(on_wall & (dark < np.sqrt(PLAIN.ambient) + 1e-6))
    # the shadow of a ball that is lit from the right of the picture falls to its left
    columns = np.flatnonzero((on_wall & (dark < np.sqrt(PLAIN.ambient) + 1e-6)).any(axis=0))
    assert columns.max() < 16


def test_edges_and_keypoints_are_found_where_the_picture_has_them() -> None:
    seen = look(room(), size=32)
    grey = np.zeros((1, 3, 32, 32), np.float32)
    grey[..., 16:] = 1
    step = targets.View(grey, seen.depth, seen.direction, seen.surface, seen.axes, seen.pixel, seen.ray)
    t, k = targets.edges(step)[0], targets.keypoints(step)[0]
    assert set(np.argmax(t[4:-4], axis=1)) <= {15, 16}
    assert t[:, :8].max() == 0
    assert k.max() < 1e-3  # a straight line has no corner
    grey[...] = 0
    grey[..., 14:17, 14:17] = 1
    k = targets.keypoints(step)[0]
    assert int(np.argmax(k)) == 15 * 32 + 15


def test_a_blur_keeps_the_sum_and_a_constant() -> None:
    image = np.zeros((1, 16, 16), np.float32)
    image[0, 8, 8] = 1
    assert targets.blur(image).sum() == pytest.approx(1)
    assert np.allclose(targets.blur(np.full((1, 16, 16), 3, np.float32), 2.0), 3)


def test_the_ceiling_is_above_and_the_floor_below() -> None:
    seen = look(room(), size=32)
    cover = seen.surface.cover.reshape(32, 32)
    assert (cover[0] == CEILING).all()
    assert (cover[-1] == FLOOR).all()
