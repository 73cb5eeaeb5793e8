"""Power goes at any step of a deployment, or the disk rots at one: the device answers with a model that is healthy."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from device_runtime import deployed
from device_runtime.deployed import Bounds, check_health
from device_runtime.deployment import deploy
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.slots import MAX_STARTS, Slots, models_in_use
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.messages import HealthCheck, Plan, Report
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = tiny_job()
GROUP = "group-0"
BOUNDS = Bounds(1e-3, 1e6)
MOST_STEPS = 80


class Made(NamedTuple):
    """A model and its golden samples."""

    model: bytes
    golden: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.model)


@pytest.fixture(scope="module")
def models() -> list[Made]:
    """Two models in order, and one that does not give what its golden samples promise."""
    made = []
    for seed in (1, 2):
        vector = vector_of(build(JOB, TASKS, seed=seed))
        made.append(Made(export_inference(JOB, TASKS, vector), golden_of(JOB, TASKS, vector, seed=1)))
    wrong = Made(made[1].model, made[0].golden)
    return [*made, wrong]


class Device:
    """One device's disk, and plans for it. ``healthy`` knows the golden samples of each model that may be in use."""

    def __init__(self, directory: Path, models: list[Made]) -> None:
        self.first, self.second, self.wrong = models
        self.state = directory / "device"
        self.deployed = self.state / "deployed"
        self.folder = self.deployed / GROUP
        self.data = tiny_data(directory / "data", train=2, test=2)
        self.store = ArtifactStore(directory / "artifacts")
        self._goldens = {made.digest: made.golden for made in (self.first, self.second)}

    def begin_with(self, *made: Made) -> None:
        """A disk on which these were deployed in this order."""
        shutil.rmtree(self.state, ignore_errors=True)
        for each in made:
            assert self.deploy(each).healthy

    def plan(self, made: Made, **changes: Any) -> Plan:
        health = HealthCheck(golden=self.store.put(made.golden), tolerance=BOUNDS.tolerance, max_latency_s=1e6)
        fields: dict[str, Any] = {
            **ORCHESTRATOR, "job": "j", "round_id": "deploy", "kind": "deploy", "group": GROUP, "tasks": TASKS,
            "deadline_s": 1.0, "program": self.store.put(made.model), "health": health,
        }  # fmt: skip
        return Plan(**{**fields, **changes})

    def deploy(self, made: Made, **changes: Any) -> Report:
        return deploy(self.plan(made, **changes), self.store, self.deployed, self.data)

    def in_use(self) -> str:
        """The digest of the model that a process finds that starts now; it is whole and healthy."""
        digest = models_in_use(self.deployed).get(GROUP, "")
        there = list(self.folder.glob("active.*")) if self.folder.is_dir() else []
        assert [digest_of(path.read_bytes()) for path in there] == ([digest] if digest else [])
        if digest:
            health = check_health(there[0], self._goldens[digest], BOUNDS, self.data)
            assert health.healthy, health.reason
        return digest


def killed(before: Callable[[], None], work: Callable[[], object]) -> bool:
    """Do ``work`` in a process of its own, in which ``before`` has laid a trap; whether it was killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: the child uses none of them
        child = os.fork()
    if child == 0:
        code = 1
        try:
            before()
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def trap(step: int) -> None:
    """Be killed before the ``step``-th sync, rename, link or removal, or in the middle of a copy."""
    left = step

    def counted(original: Callable[..., Any], halfway: Callable[..., None] | None = None) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                if halfway:
                    halfway(*args)
                die()
            return original(*args, **more)

        return call

    def half(source: Path, target: Path) -> None:
        whole = Path(source).read_bytes()
        Path(target).write_bytes(whole[: len(whole) // 2])

    for name in ("fsync", "replace", "link", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    shutil.copyfile = counted(shutil.copyfile, half)


def each_step(device: Device, begin: Callable[[], None], work: Callable[[], object]) -> Iterator[int]:
    """Kill ``work`` at each of its steps, each time on the disk of ``begin``; yields after each."""
    for step in range(MOST_STEPS):
        begin()
        dead = killed(lambda step=step: trap(step), work)  # type: ignore[misc]
        yield step
        if not dead:
            return
    pytest.fail("it never ends")


@pytest.fixture
def device(tmp_path: Path, models: list[Made]) -> Device:
    return Device(tmp_path, models)


def test_killed_at_any_step_of_the_first_installation_there_is_none_or_a_healthy_one(device: Device) -> None:
    seen = set()
    for _ in each_step(device, device.begin_with, lambda: device.deploy(device.first)):
        seen.add(device.in_use())
        assert device.deploy(device.first).healthy
        assert device.in_use() == device.first.digest
    assert seen == {"", device.first.digest}


def test_killed_at_any_step_of_an_update_it_is_the_old_model_or_the_new_one(device: Device) -> None:
    seen = []
    for _ in each_step(device, lambda: device.begin_with(device.first), lambda: device.deploy(device.second)):
        seen.append(device.in_use())
        assert device.deploy(device.second).model == device.second.digest
        assert device.in_use() == device.second.digest
        assert device.deploy(device.second, undo=True).model == device.first.digest  # it was not lost
        assert device.in_use() == device.first.digest
    change = seen.index(device.second.digest)
    assert len(seen) > 10
    assert seen == [device.first.digest] * change + [device.second.digest] * (len(seen) - change)


def test_killed_at_any_step_of_refusing_a_bad_model_the_good_one_stays(device: Device) -> None:
    for _ in each_step(device, lambda: device.begin_with(device.first), lambda: device.deploy(device.wrong)):
        assert device.in_use() == device.first.digest
        report = device.deploy(device.wrong)
        assert (report.healthy, report.model) == (False, device.first.digest)
        assert "differ from the golden ones" in Slots(device.folder).refusal(device.wrong.digest)
        assert device.in_use() == device.first.digest


def test_killed_at_any_step_of_a_rollback_it_is_one_of_the_two(device: Device) -> None:
    seen = []
    begin = lambda: device.begin_with(device.first, device.second)  # noqa: E731
    for _ in each_step(device, begin, lambda: device.deploy(device.second, undo=True)):
        seen.append(device.in_use())
        report = device.deploy(device.second, undo=True)
        assert (report.healthy, report.model) == (True, device.first.digest)
        assert device.in_use() == device.first.digest
    change = seen.index(device.first.digest)
    assert seen == [device.second.digest] * change + [device.first.digest] * (len(seen) - change)


@pytest.mark.parametrize("role", ["active", "good", "trial"])
def test_a_slot_that_rots_at_any_step_of_an_update_is_not_answered_with(device: Device, role: str) -> None:
    rotted = 0
    for _ in each_step(device, lambda: device.begin_with(device.first), lambda: device.deploy(device.second)):
        for path in device.folder.glob(f"{role}.*"):
            whole = path.read_bytes()
            path.unlink()  # a hard link is another name of the same bytes: it would rot with them
            path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
            rotted += 1
        left = {"active": {""}}.get(role, set())  # beside a rotten one there may be none that has passed
        assert device.in_use() in left | {device.first.digest, device.second.digest}
        assert device.deploy(device.second).healthy
        assert device.in_use() == device.second.digest
    assert rotted > 1


def test_a_model_that_kills_its_process_is_started_twice_and_never_again(device: Device) -> None:
    device.begin_with(device.first)

    def deadly() -> None:
        setattr(deployed, "open_model", lambda *_: die())  # noqa: B010 - for this child alone

    for _ in range(MAX_STARTS):
        assert killed(deadly, lambda: device.deploy(device.second))
        assert device.in_use() == device.first.digest
    assert not killed(deadly, lambda: device.deploy(device.second))  # it is not opened any more
    report = device.deploy(device.second)
    assert (report.healthy, report.model) == (False, device.first.digest)
    assert "each time the device did not survive" in report.health_reason
    assert device.in_use() == device.first.digest
