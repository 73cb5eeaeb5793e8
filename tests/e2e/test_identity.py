"""Rounds of a job among members of a fleet: the orchestrator and the devices know each other by certificates alone."""

from __future__ import annotations

import re
from pathlib import Path

from device_runtime import identity
from device_runtime.data import open_data
from device_runtime.edge.events import Disconnected
from device_runtime.edge.mqtt import Link
from device_runtime.runtime import Runtime, Settings
from mas_edge.cli import main
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet as Members
from mas_edge.fleet.settings import FleetSettings
from mas_edge.orchestrator.broker.supervisor import free_port
from tests.e2e.fleet import PATIENCE_S, Fleet, job_text, until
from tests.inbox import Inbox


def _never(reason: str) -> None:
    raise AssertionError(reason)


def test_devices_train_over_certificates_and_a_revoked_guest_is_out(tmp_path: Path, mosquitto_is_here: None) -> None:
    settings = FleetSettings("home", ["127.0.0.1"], free_port(), free_port())
    members = Members.create(tmp_path / "members", settings)
    rules = Enrolment(members)
    with Fleet("managed", tmp_path, 'engines = ["torch"]\n' + job_text("home", min_devices=2, per_round=2)) as fleet:
        fleet.serve("--fleet", str(members.folder))
        until(lambda: "devices of fleet home join" in fleet.log("serve.log"), "the endpoint")
        for name in ("pi-1", "pi-2"):
            identity.join(fleet.device_state(name), rules.invite(name), _never)
        where = ["--state", str(fleet.device_state("pi-1")), "--data", str(fleet.data("pi-1"))]
        fleet.start("device_runtime", ["run", "--verbose", "--name", "pi-1", *where, "--engine", "torch"], "pi-1.log")
        url = identity.Identity(fleet.device_state("pi-2")).url
        own = Settings("pi-2", "home", url, fleet.device_state("pi-2"), "torch")
        data = open_data(fleet.data("pi-2"))
        fleet._act(lambda stop: Runtime(own, data).run(stop), "pi-2")
        guest = identity.join(tmp_path / "guest", rules.invite("guest"), _never)
        inbox = Inbox()
        link = Link(guest.url, "guest", inbox.put)
        link.start()
        link.wait_connected(PATIENCE_S)
        assert main(["fleet", "revoke", str(members.folder), "guest"]) == 0
        inbox.wait(lambda: any("is revoked" in event.reason for event in inbox.of(Disconnected)))
        link.stop()
        until(lambda: any(one.kind == "train" and one.losses for one in fleet.snapshot().rounds), "a trained round")
        said = fleet.log("serve.log") + fleet.log("pi-1.log")
    assert not re.search("PRIVATE KEY|Traceback", said)
