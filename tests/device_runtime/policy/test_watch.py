"""The watch holds real work up while a board is too hot, and a device process tells what its owner asks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from device_runtime.edge.mqtt import Arrived, Link
from device_runtime.policy.gate import GivenUp
from device_runtime.policy.rules import Rules
from device_runtime.policy.watch import Watch
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.messages import Ack, Birth, FromDevice, Refusal, decode_from_device, encode
from mas_edge.protocol.topics import Topics
from tests.device_runtime.boards import host_of, write
from tests.device_runtime.one_device import plan
from tests.device_runtime.tiny_job import tiny_data
from tests.inbox import Inbox, until

ZONE = "/sys/class/thermal/thermal_zone0/temp"


class Board:
    """A Raspberry Pi 4 whose heat the test sets, under a rule of 70 degrees."""

    def __init__(self, directory: Path, **rules: float) -> None:
        self.host = host_of("raspberry-pi-4", directory)
        self.watch = Watch(Rules(max_temp_c=70, **rules), directory, self.host)  # type: ignore[arg-type]

    def heat(self, millidegrees: int) -> None:
        write(self.host.root, ZONE, str(millidegrees))
        self.watch.look()


def test_work_waits_while_the_board_is_hot_and_goes_on_when_it_has_cooled(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.heat(75_000)
    passed: list[bool] = []
    worker = threading.Thread(target=lambda: passed.append(board.watch.hold("train", lambda: False)))
    worker.start()
    worker.join(0.1)
    assert worker.is_alive()
    board.heat(69_000)
    worker.join(0.1)
    assert worker.is_alive(), "not cool enough yet"
    board.heat(60_000)
    worker.join(30)
    assert passed == [False], "it was not interrupted"


def test_work_that_waits_can_be_interrupted(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.heat(75_000)
    over = threading.Event()
    passed: list[bool] = []
    worker = threading.Thread(target=lambda: passed.append(board.watch.hold("train", over.is_set)))
    worker.start()
    over.set()
    worker.join(30)
    assert passed == [True]


def test_a_sensor_that_vanishes_while_work_goes_on_stops_it_with_the_reason(tmp_path: Path) -> None:
    board = Board(tmp_path, pause_s=0.0)
    board.heat(60_000)
    assert board.watch.hold("train", lambda: False) is False
    (board.host.root / ZONE.lstrip("/")).unlink()
    board.watch.look()
    with pytest.raises(GivenUp, match="temperature cannot be checked: no thermal zone"):
        board.watch.hold("train", lambda: False)


POLICY = """
[rules]
min_free_disk = "900000G"
[processor]
nice = 9
"""


def test_a_device_process_keeps_its_owners_rules(mosquitto: ManagedBroker, tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    (tmp_path / "policy.toml").write_text(POLICY)
    topics, inbox = Topics("polite"), Inbox()
    orchestrator = Link(mosquitto.url, "orchestrator-polite", inbox.put)
    for topic in (topics.birth("pi-1"), topics.response("pi-1")):
        orchestrator.subscribe(topic)
    orchestrator.start()
    command = [
        sys.executable, "-m", "device_runtime", "run", "--name", "pi-1", "--fleet", "polite", "--broker", mosquitto.url,
        "--data", str(tmp_path / "data"), "--state", str(tmp_path / "state"), "--engine", "onnxruntime",
        "--policy", str(tmp_path / "policy.toml"),
    ]  # fmt: skip

    def said() -> list[FromDevice]:
        return [decode_from_device(arrived.payload, "pi-1") for arrived in inbox.of(Arrived)]

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: any(isinstance(message, Birth) for message in said()))
        birth = next(message for message in said() if isinstance(message, Birth))
        assert birth.ineligible.endswith("of disk free, 900000G is asked for")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 9
        orchestrator.publish(topics.command("pi-1"), encode(plan()))
        until(lambda: any(isinstance(message, Refusal) for message in said()))
        assert not any(isinstance(message, Ack) for message in said())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        orchestrator.stop()
    assert msgspec.json.decode((tmp_path / "state" / "engines.json").read_bytes()), "it had an engine to train with"
