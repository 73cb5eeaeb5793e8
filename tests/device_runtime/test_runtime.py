"""The device process around the machine."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from device_runtime.agent import Tell
from device_runtime.data import open_data
from device_runtime.runtime import Runtime, Settings, _lock
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Birth
from tests.device_runtime.tiny_job import tiny_data


def test_two_runtimes_never_share_a_state_directory(tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    settings = Settings("pi-1", "fleet", "mqtt://127.0.0.1:9", tmp_path / "state", "torch")
    with _lock(settings.state), pytest.raises(DeviceError, match="another device runtime works in"):
        Runtime(settings, open_data(tmp_path / "data")).run(threading.Event())


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="file/state cannot be used"):
        _lock(tmp_path / "file" / "state")


def test_the_birth_names_the_engine_that_programs_are_made_for_and_those_that_work(tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    settings = Settings(
        "pi-1", "fleet", "mqtt://127.0.0.1:9", tmp_path / "state", "torch:cuda", ("onnxruntime", "torch")
    )
    effects = Runtime(settings, open_data(tmp_path / "data")).agent.on_connected(0.0)
    (birth,) = (effect.message for effect in effects if isinstance(effect, Tell) and isinstance(effect.message, Birth))
    assert (birth.engine, birth.engines[:2]) == ("torch", ["torch", "onnxruntime"])
