"""What becomes of a plan to deploy: in use, refused, tried again later, or the model of all tasks instead."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime import deployed
from device_runtime import regression as comparing
from device_runtime.data import DataFolder
from device_runtime.data_check import TEST
from device_runtime.deployment import deploy
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.regression import errors, regression
from device_runtime.slots import Slots
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.messages import AllInOne, HealthCheck, Manifest, Plan, Report
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = tiny_job()
GROUP = ["sign", "way"]


@pytest.fixture(scope="module")
def made() -> dict[str, tuple[bytes, bytes]]:
    """Models with their golden samples: two of a group, one of all tasks."""
    found = {}
    for name, tasks, seed in (("one", GROUP, 1), ("two", GROUP, 2), ("whole", TASKS, 5)):
        vector = vector_of(build(JOB, tasks, seed=seed))
        found[name] = export_inference(JOB, tasks, vector), golden_of(JOB, tasks, vector, seed=1)
    return found


class Device:
    """A device's disk, and plans for it."""

    def __init__(self, directory: Path, made: dict[str, tuple[bytes, bytes]]) -> None:
        self.data: DataFolder = tiny_data(directory / "data")
        self.store = ArtifactStore(directory / "artifacts")
        self.deployed = directory / "deployed"
        self.models: dict[str, tuple[Manifest, Manifest]] = {
            name: (self.store.put(model), self.store.put(golden)) for name, (model, golden) in made.items()
        }

    @property
    def slots(self) -> Slots:
        return Slots(self.deployed / "group-0")

    def digest(self, name: str) -> str:
        return self.models[name][0].artifact

    def deploy(self, name: str, *, undo: bool = False, **health: Any) -> Report:
        model, golden = self.models[name]
        check = HealthCheck(**{"golden": golden, "tolerance": 1e-3, "max_latency_s": 1e6, **health})
        plan = Plan(
            **ORCHESTRATOR, job="j", round_id="deploy", kind="deploy", group="group-0", tasks=GROUP, deadline_s=1.0,
            program=model, health=check, undo=undo,
        )  # fmt: skip
        return deploy(plan, self.store, self.deployed, self.data)

    def whole(self, most: float) -> AllInOne:
        model, golden = self.models["whole"]
        return AllInOne(model=model, golden=golden, tasks=TASKS, max_regression=most)

    def regression(self, name: str) -> float:
        paths = [self.store.path(self.digest(each)) for each in (name, "whole")]
        return regression(paths[0], GROUP, paths[1], TASKS, self.data)

    def worse(self) -> str:
        """The group's model that is worse than the model of all tasks; there is one, or this shows nothing."""
        return max(("one", "two"), key=self.regression)


@pytest.fixture
def device(tmp_path: Path, made: dict[str, tuple[bytes, bytes]]) -> Device:
    return Device(tmp_path, made)


def test_the_report_names_the_model_in_use_and_what_it_takes(device: Device) -> None:
    report = device.deploy("one")
    assert (report.healthy, report.model, report.regression) == (True, device.digest("one"), None)
    assert report.latency_s > 0


def test_a_model_that_is_in_use_already_is_only_checked_again(device: Device) -> None:
    device.deploy("one")
    before = (device.deployed / "group-0" / "active.onnx").stat().st_ino
    assert device.deploy("one").healthy
    assert (device.deployed / "group-0" / "active.onnx").stat().st_ino == before
    assert device.slots.good == ""


def test_a_model_in_use_that_fails_now_gives_way_to_the_one_before(device: Device) -> None:
    device.deploy("one")
    device.deploy("two")
    report = device.deploy("two", golden=device.models["one"][1])
    assert (report.healthy, report.model) == (False, device.digest("one"))
    assert "differ from the golden ones" in device.slots.refusal(device.digest("two"))


def test_a_refused_model_is_not_tried_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.deploy("one", max_latency_s=0.0)

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(deployed, "open_model", never)
    report = device.deploy("one")
    assert (report.healthy, report.model) == (False, "")
    assert report.health_reason.startswith("refused before: one sample takes")


def test_a_model_that_lacks_its_engine_is_tried_again_when_it_is_there(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "onnxruntime", None)
        assert "not installed" in device.deploy("one").health_reason
    assert device.slots.refusal(device.digest("one")) == ""
    assert device.deploy("one").healthy


@pytest.mark.parametrize(("most", "healthy"), [(1e-9, False), (1e9, True), (0.0, True)])
def test_a_model_may_be_slower_than_the_one_in_use_by_a_factor(device: Device, most: float, healthy: bool) -> None:
    device.deploy("one")
    report = device.deploy("two", max_slowdown=most)
    assert (report.healthy, report.model) == (healthy, device.digest("two" if healthy else "one"))


def test_the_first_model_has_nothing_to_be_slower_than(device: Device) -> None:
    assert device.deploy("one", max_slowdown=1e-9).healthy


@pytest.mark.parametrize(("most", "healthy"), [(3 * 2**20, False), (5 * 2**20, True), (0, True)])
def test_a_model_may_add_so_much_to_the_process(
    device: Device, monkeypatch: pytest.MonkeyPatch, most: int, healthy: bool
) -> None:
    held = count(100 * 2**20, 4 * 2**20)
    monkeypatch.setattr(deployed, "resident_bytes", lambda: next(held))
    report = device.deploy("one", max_memory_bytes=most)
    assert (report.healthy, report.memory_bytes) == (healthy, 4 * 2**20)
    assert ("adds 4M to the process, allowed 3M" in report.health_reason) is not healthy


def test_undoing_leads_back_once_and_then_says_that_it_cannot(device: Device) -> None:
    device.deploy("one")
    device.deploy("two")
    report = device.deploy("two", undo=True)
    assert (report.healthy, report.model) == (True, device.digest("one"))
    assert device.deploy("two", undo=True).healthy  # it is not in use: nothing is to be undone
    report = device.deploy("one", undo=True)
    assert (report.healthy, report.model) == (False, device.digest("one"))
    assert "no model before this one" in report.health_reason
    assert device.deploy("two").healthy  # undone is not refused


# ---------------------------------------------------------------------- beside the model of all tasks


def test_a_model_that_is_no_worse_than_allowed_is_taken_and_compared(device: Device) -> None:
    found = device.regression("one")
    report = device.deploy("one", all_in_one=device.whole(abs(found) + 0.01))
    assert (report.healthy, report.model) == (True, device.digest("one"))
    assert report.regression == pytest.approx(found)


def test_a_model_that_is_worse_for_this_device_gives_way_to_the_model_of_all_tasks(device: Device) -> None:
    name = device.worse()
    found = device.regression(name)
    assert found > 0
    report = device.deploy(name, all_in_one=device.whole(found / 2))
    assert (report.healthy, report.model) == (False, device.digest("whole"))
    assert report.regression == pytest.approx(found)
    assert f"its error is {found:.0%} above that of the model of all tasks" in report.health_reason
    assert device.slots.refusal(device.digest(name)) != ""


def test_undoing_leaves_the_model_of_all_tasks_too_that_was_taken_instead(device: Device) -> None:
    name = device.worse()
    before = ({"one", "two"} - {name}).pop()
    device.deploy(before)
    whole = device.whole(device.regression(name) / 2)
    assert device.deploy(name, all_in_one=whole).model == device.digest("whole")
    assert device.deploy(name, undo=True).model == device.digest("whole"), "of another rollout, for all that it says"
    report = device.deploy(name, undo=True, all_in_one=whole)
    assert (report.healthy, report.model) == (True, device.digest(before))


def test_the_model_of_all_tasks_has_to_be_healthy_too(device: Device) -> None:
    other = ({"one", "two"} - {device.worse()}).pop()
    device.deploy(other)
    whole = device.whole(-10.0)  # no model is as good as that
    wrong = AllInOne(model=whole.model, golden=device.models["one"][1], tasks=TASKS, max_regression=-10.0)
    report = device.deploy(device.worse(), all_in_one=wrong)
    assert (report.healthy, report.model) == (False, device.digest(other))


def test_a_comparison_takes_as_many_samples_as_there_is_time_for(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    over_all = device.regression("one")
    monkeypatch.setattr(comparing, "BATCH", 4)
    monkeypatch.setattr(comparing, "MOST_SAMPLES", 4)
    of_the_first = device.regression("one")
    assert of_the_first != pytest.approx(over_all)
    monkeypatch.setattr(comparing, "MOST_SAMPLES", 512)
    monkeypatch.setattr(comparing, "MOST_S", -1.0)
    assert device.regression("one") == of_the_first


def test_a_device_without_labels_of_the_group_compares_nothing(device: Device, tmp_path: Path) -> None:
    rows = np.arange(3)
    outputs = {"depth": np.zeros((3, 1), np.float32)}
    assert errors(outputs, device.data, rows) == {}


def test_the_errors_are_those_of_the_kinds_of_targets(device: Device) -> None:
    rows = np.flatnonzero(device.data.arrays["split"] == TEST)
    arrays = device.data.arrays
    fine = np.asarray(arrays["sign.mask"][rows]) != 0
    logits = np.stack([np.zeros(len(rows)), np.where(arrays["sign"][rows] == 1, 50.0, -50.0)], axis=1)
    perfect = {"sign": logits, "mean": arrays["mean"][rows][:, None], "way": 3 * arrays["way"][rows]}
    found = errors({name: np.asarray(each, np.float32) for name, each in perfect.items()}, device.data, rows)
    assert found == pytest.approx({"sign": 0.0, "mean": 0.0, "way": 0.0}, abs=1e-6)
    off = {"sign": 0 * logits, "mean": arrays["mean"][rows] + 0.25, "way": -arrays["way"][rows]}
    found = errors({name: np.asarray(each, np.float32) for name, each in off.items()}, device.data, rows)
    assert found == pytest.approx({"sign": np.log(2), "mean": 0.25, "way": 2.0}, rel=1e-5)
    assert fine.any()
