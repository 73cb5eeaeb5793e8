"""Power goes at any step of an update, or of taking a plan: the device goes on, and believes nothing old."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import SignedPlan
from tests.fleet.signing.world import World


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process of its own, killed before its ``step``-th sync or rename in the state directory.

    False if it ended before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: this child starts none
        child = os.fork()
    if child == 0:
        try:
            _count_down(step)
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _count_down(left: int) -> None:
    def before(original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal left
            if not any(work in str(args[0]) for work in ("/verifying/", "/asking/")):  # scratch: nobody reads it again
                left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        return counted

    os.fsync, os.replace = before(os.fsync), before(os.replace)


def every_step(work: Callable[[], object], then: Callable[[], None], before: Callable[[], None]) -> int:
    """Kill ``work`` at each of its steps, each time after ``before``, and look with ``then``; returns their number."""
    for step in range(50):
        before()
        killed = killed_at(step, work)
        then()
        if not killed:
            return step
    pytest.fail("it never ends")


def test_a_device_killed_at_any_step_of_an_update_goes_on_and_never_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.tell()
    old: dict[str, bytes] = {}

    def publish_something_new() -> None:
        old.update(world.publish())
        world.now += 60
        world.publisher.list_targets({f"models/j/g/{world.now}": ("ab" * 32, 1)})

    def goes_on() -> None:
        world.wake()
        assert world.device.open(world.seal()) is not None  # with what it has: the old list or the new one, whole
        world.tell()
        with pytest.raises(EdgeError, match="version"):
            world.tell(old)
        assert world.device.open(world.seal()) is not None

    steps = every_step(world.tell, goes_on, publish_something_new)
    assert steps >= 6  # two files, each written, synced and renamed


def test_a_device_killed_at_any_step_of_a_rotation_goes_on_and_does_not_believe_the_old_keys(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.tell()
    stolen: list[SignedPlan] = []

    def rotate() -> None:
        stolen[:] = [world.seal()]
        world.rotate()

    def goes_on() -> None:
        world.wake()
        world.tell()
        with pytest.raises(EdgeError, match="may not sign plans"):
            world.device.open(stolen[0])
        assert world.device.open(world.seal()) is not None

    assert every_step(world.tell, goes_on, rotate) >= 6


def test_a_device_killed_while_it_takes_a_plan_takes_it_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.tell()
    plan: list[SignedPlan] = []

    def seal() -> None:
        plan[:] = [world.seal()]

    def takes_no_older_one() -> None:
        world.wake()
        world.device.open(plan[0])  # taken now, or it was
        assert world.device.open(plan[0]) is None
        assert world.device.open(world.seal()) is not None

    assert every_step(lambda: world.device.open(plan[0]), takes_no_older_one, seal) >= 3


@pytest.mark.parametrize("name", ["metadata.json", "seen.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 5000, b'{"timestamp.json": 7}', b"[]"])
def test_a_file_that_the_disk_damaged_is_begun_anew(tmp_path: Path, name: str, damage: bytes) -> None:
    world = World(tmp_path)
    world.tell()
    assert world.device.open(world.seal()) is not None
    (tmp_path / "device" / "trust" / name).write_bytes(damage)
    world.wake()
    world.tell()
    assert world.device.open(world.seal()) is not None
    world.wake()
    assert world.device.open(world.seal()) is not None


def test_a_root_that_the_disk_damaged_is_said_and_nothing_is_believed(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "device" / "trust" / "root.json").write_bytes(b"{}")
    with pytest.raises(EdgeError, match="damaged; run with --trust"):
        world.wake()
