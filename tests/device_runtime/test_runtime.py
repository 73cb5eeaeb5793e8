"""The device process around the machine."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TypeVar

import pytest

from device_runtime.data import open_data
from device_runtime.effects import Effect, Tell
from device_runtime.policy.file import Policy
from device_runtime.policy.rules import Rules
from device_runtime.policy.watch import Watch
from device_runtime.runtime import Runtime, Settings, _lock
from device_runtime.trust import anchor
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Birth, Refusal
from tests.device_runtime.boards import host_of, write
from tests.device_runtime.one_device import plan
from tests.device_runtime.tiny_job import tiny_data
from tests.fleet.signing.world import World

_M = TypeVar("_M", Birth, Refusal)


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


def said(effects: list[Effect], kind: type[_M]) -> list[_M]:
    return [effect.message for effect in effects if isinstance(effect, Tell) and isinstance(effect.message, kind)]


def test_a_device_whose_owner_forbids_it_says_so_refuses_and_comes_back(tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    phone = host_of("android-sysfs", tmp_path / "phone")
    settings = Settings(
        "phone-1", "fleet", "mqtt://127.0.0.1:9", tmp_path / "state", "torch",
        policy=Policy(rules=Rules(charging=True)),
    )  # fmt: skip
    runtime = Runtime(settings, open_data(tmp_path / "data"), host=phone)
    runtime.watch.look()
    (birth,) = said(runtime.agent.on_connected(0.0), Birth)
    assert birth.ineligible == "its owner's rules: it is not charging"
    (refusal,) = said(runtime.agent.on_message(plan(), 0.0), Refusal)
    assert refusal.reason == birth.ineligible
    assert said(runtime.look_after_rules(), Birth) == [], "it was told already"
    write(phone.root, "/sys/class/power_supply/battery/status", "Charging")
    runtime.watch.look()
    (again,) = said(runtime.look_after_rules(), Birth)
    assert again.ineligible == ""


def test_why_plans_are_refused_is_told_to_the_owner_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    settings = Settings("pi-1", "home", "mqtt://127.0.0.1:9", tmp_path / "state", "torch")
    World(tmp_path / "signing")
    anchor.install(settings.state, anchor.read_root(tmp_path / "signing" / "signing"))
    runtime = Runtime(settings, open_data(tmp_path / "data"))
    for _ in range(2):
        runtime._carry(runtime.agent.on_message(plan(), 0.0))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is refused: this device takes signed plans only" in caplog.text


def test_rounds_and_joules_of_a_day_outlive_the_process(tmp_path: Path) -> None:
    day = tmp_path / "day.json"
    for _ in range(2):
        watch = Watch(
            Rules(max_rounds_per_day=2),
            tmp_path,
            host_of("raspberry-pi-4", tmp_path / str(len(list(tmp_path.iterdir())))),
        )
        assert watch.look() and watch.gate.why_not("train") == ""
        watch.begin("train")
        watch.begin("deploy")
        watch.end(12.5)
    assert json.loads(day.read_text())["joules"] == 25.0
    watch.look()
    assert watch.gate.why_not("train") == "its owner's rules: 2 rounds today, 2 are allowed"
