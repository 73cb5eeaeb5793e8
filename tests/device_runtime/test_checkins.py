"""When a device introduces itself again: at the time it was told, and on from there until it is told another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_runtime.agent import MIN_CHECKIN_S
from mas_edge.protocol.messages import Birth, Cancel, FromOrchestrator, OrchestratorState, Receipt
from tests.device_runtime.one_device import ORCHESTRATOR, OneDevice

OFFER: dict[str, Any] = {"job": "j-1", "round_id": "merged-0000", "reason": ""}


def answer(kind: str, seconds: float) -> FromOrchestrator:
    match kind:
        case "receipt":
            return Receipt(**ORCHESTRATOR, **OFFER, verdict="accepted", next_checkin_s=seconds)
        case "cancel":
            return Cancel(**ORCHESTRATOR, **OFFER, next_checkin_s=seconds)
    return OrchestratorState(**ORCHESTRATOR, online=True, next_checkin_s=seconds)


@pytest.fixture
def device(tmp_path: Path) -> OneDevice:
    device = OneDevice(tmp_path)
    device.connect()
    return device


def births_until(device: OneDevice, now: float) -> list[float]:
    """The times at which it introduces itself, up to ``now``."""
    times = []
    while device.agent.next_poll <= now:
        before, device.now = len(device.told(Birth)), device.agent.next_poll
        device.do(device.agent.poll(device.now))
        times += [device.now] * (len(device.told(Birth)) - before)
    return times


@pytest.mark.parametrize("kind", ["receipt", "cancel"])
def test_a_device_checks_in_at_the_time_that_an_answer_names_and_so_on(device: OneDevice, kind: str) -> None:
    device.receive(answer(kind, 100.0))
    assert births_until(device, 350.0) == [100.0, 200.0, 300.0]
    device.receive(answer(kind, 30.0))
    assert births_until(device, 370.0) == [330.0, 360.0]
    device.receive(answer(kind, 0.0))
    assert births_until(device, 395.0) == [390.0], "nothing new was said of it"


def test_nobody_who_was_not_told_to_checks_in(device: OneDevice) -> None:
    assert births_until(device, 1e6) == []


def test_what_is_told_to_all_is_spread_by_each_device_itself(tmp_path: Path) -> None:
    firsts = set()
    for life in range(10):
        device = OneDevice(tmp_path / str(life))
        device.now = float(life)
        device.restart()
        device.now = 0.0
        device.receive(answer("state", 100.0))
        firsts.add(births_until(device, 130.0)[0])
    assert len(firsts) == 10
    assert all(75.0 <= first <= 125.0 for first in firsts)


def test_no_orchestrator_keeps_a_radio_awake(device: OneDevice) -> None:
    device.receive(answer("receipt", 1e-6))
    assert births_until(device, 3 * MIN_CHECKIN_S) == [MIN_CHECKIN_S, 2 * MIN_CHECKIN_S, 3 * MIN_CHECKIN_S]
