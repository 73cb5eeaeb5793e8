"""What serves a fleet acts on what others change in its folder, and tries again what did not work."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mas_edge.fleet import guard
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.guard import Guard
from mas_edge.protocol.errors import BrokerError
from tests.fleet.members import Clock, enrol, make_fleet
from tests.inbox import until


def test_a_revocation_that_could_not_be_acted_on_is_tried_again_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(guard, "LOOK_S", 0.02)
    fleet = make_fleet(tmp_path, Clock(time.time()))
    rules, tries = Enrolment(fleet), list[int]()
    enrol(rules, "pi-1")

    def act() -> None:
        tries.append(len(tries))
        if len(tries) < 3:
            message = "the broker is not there"
            raise BrokerError(message)

    with Guard(fleet, act):
        rules.revoke("pi-1")
        until(lambda: len(tries) >= 3)
        fleet.file("crl.pem").touch()  # another look takes place, and sees this
        until(lambda: len(tries) >= 4)
    assert len(tries) == 4
    assert "cannot be looked after: the broker is not there" in caplog.text
