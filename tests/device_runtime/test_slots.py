"""The two places of a deployed model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from device_runtime.slots import Slots


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(tmp_path / "deployed" / "group-0")


def source(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "artifact"
    path.write_bytes(data)
    return path


def test_nothing_is_in_use_before_a_model_has_passed(slots: Slots, tmp_path: Path) -> None:
    assert slots.active is None
    trial = slots.put_on_trial(source(tmp_path, b"one"), "onnx")
    assert (trial.name, trial.read_bytes()) == ("trial.onnx", b"one")
    assert slots.active is None


def test_a_model_that_passes_takes_the_place_of_the_old_one(slots: Slots, tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        slots.activate(slots.put_on_trial(source(tmp_path, data), "onnx"))
    assert slots.active is not None
    assert slots.active.read_bytes() == b"two"
    assert [path.name for path in slots.active.parent.iterdir()] == ["active.onnx"]


def test_a_model_of_another_format_leaves_no_second_one_in_use(slots: Slots, tmp_path: Path) -> None:
    for suffix in ("onnx", "pte", "tflite", "onnx"):
        active = slots.activate(slots.put_on_trial(source(tmp_path, suffix.encode()), suffix))
        assert slots.active == active
        assert [path.name for path in active.parent.iterdir()] == [f"active.{suffix}"]


def test_after_a_power_cut_between_the_rename_and_the_removal_the_newer_model_counts(
    slots: Slots, tmp_path: Path
) -> None:
    old = slots.activate(slots.put_on_trial(source(tmp_path, b"old"), "onnx"))
    new = old.with_suffix(".pte")
    new.write_bytes(b"new")
    os.utime(old, ns=(1, 1))
    assert slots.active == new


def test_a_trial_does_not_touch_the_model_in_use(slots: Slots, tmp_path: Path) -> None:
    active = slots.activate(slots.put_on_trial(source(tmp_path, b"good"), "onnx"))
    slots.put_on_trial(source(tmp_path, b"bad"), "pte").unlink()
    assert slots.active == active
    assert active.read_bytes() == b"good"
