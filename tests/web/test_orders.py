"""Orders over HTTP, from the request to what the orchestrator's desks do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime import keys
from mas_edge.federation.flow import Phase
from mas_edge.fleet.enrolment import Enrolment, WaitsError
from mas_edge.fleet.folder import Fleet
from mas_edge.protocol.enrolment import JoinRequest
from mas_edge.web.app import make_app
from mas_edge.web.library import LOOK_S
from tests.fleet.members import Clock, make_fleet
from tests.web.conftest import Client, Run


def test_a_job_is_paused_and_resumed_and_each_order_says_what_became_of_it(run: Run, client: Client) -> None:
    placed = client.post("/api/job/orders", {"verb": "pause"})
    assert placed.status_code == 202
    where = placed.headers["location"]
    assert client.json(where) == placed.json()
    assert placed.json()["state"] == "waiting"
    run.look()
    done = client.json(where)
    assert (done["state"], done["answer"], done["who"]) == ("done", "", "this machine")
    assert run.orders.is_held_up
    again = client.post("/api/job/orders", {"verb": "pause"}).json()
    run.look()
    refused = client.json(f"/api/orders/{again['id']}")
    assert (refused["state"], refused["answer"]) == (
        "refused", "the job is paused: it cannot pause; it takes now: resume, abort",
    )  # fmt: skip
    assert [each["id"] for each in client.json("/api/orders")["items"]] == [again["id"], placed.json()["id"]]


@pytest.mark.parametrize("phase", ["done", "aborted"])
def test_a_job_that_is_over_takes_no_order(run: Run, client: Client, phase: Phase) -> None:
    run.store.save(replace(run.desk.state, phase=phase))
    refused = client.post("/api/job/orders", {"verb": "pause"})
    assert (refused.status_code, refused.json()["detail"]) == (409, f"the job is {phase}: there is nothing to pause")
    assert client.json("/api/orders") == {"items": []}


def test_a_rollout_is_begun_paused_and_rolled_back(run: Run, client: Client) -> None:
    run.play("merged-0000")
    run.play("merged-0001")
    run.split()
    run.deploy()
    begun = client.post("/api/rollouts", {"shares": [0.5, 1.0], "soak_s": 5}).json()
    assert (begun["verb"], begun["state"], begun["who"]) == ("begin", "waiting", "this machine")
    paused = client.post("/api/job/orders", {"verb": "pause"}).json()
    assert client.json("/api/orders")["items"] == [paused, begun]
    run.look()
    done = client.json(f"/api/orders/{begun['id']}")
    assert (done["state"], done["who"]) == ("done", "this machine")
    time.sleep(1.5 * LOOK_S)  # until the API looks again
    assert any("rollout 1: running" in event["text"] and "(this machine)" in event["text"]
               for event in client.json("/api/events")["items"])  # fmt: skip
    assert run.rollouts.machine is not None
    assert run.rollouts.machine.state.spec.soak_s == 5
    for verb, mode in (("pause", "paused"), ("resume", "running"), ("rollback", "rolled_back")):
        order = client.post("/api/rollouts/orders", {"verb": verb}).json()
        run.look()
        assert client.json(f"/api/orders/{order['id']}")["state"] == "done"
        assert run.rollouts.machine.state.mode == mode
    order = client.post("/api/rollouts/orders", {"verb": "pause"}).json()
    run.look()
    assert client.json(f"/api/orders/{order['id']}")["answer"] == "rollout 1 is rolled back: it cannot pause"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = make_fleet(tmp_path / "fleet", Clock(time.time()))
    yield fleet
    fleet.close()


def test_a_device_that_waits_is_approved_by_its_key_and_later_revoked(
    run: Run, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("words", "library"):  # what was looked at a moment ago counts as old
        monkeypatch.setattr(f"mas_edge.web.{module}.LOOK_S", 0.0)
    client = Client(make_app(run.directory, fleet=fleet.folder))
    enrolment = Enrolment(fleet)
    invitation = enrolment.invite("pi-1", hold=True)
    request = JoinRequest("pi-1", invitation.secret.hex(), keys.signing_request(keys.new_key()))
    with pytest.raises(WaitsError, match="waits until the operator approves"):
        enrolment.join(request)
    [waiting] = client.json("/api/fleet")["items"]
    assert (waiting["name"], waiting["state"]) == ("pi-1", "waiting")
    wrong = client.post("/api/fleet/pi-1/approve", {"key": "0" * 16})
    assert wrong.status_code == 409
    assert "somebody else uses its token" in wrong.json()["detail"]
    assert client.json("/api/fleet")["items"] == [waiting]
    assert client.post("/api/fleet/pi-1/approve", {"key": waiting["key"][:16]}).json()["state"] == "invited"
    enrolment.join(request)
    assert client.json("/api/devices/pi-1")["membership"] == "enrolled"
    before = fleet.file("crl.pem").read_bytes()
    assert client.post("/api/fleet/pi-1/revoke", {}).json()["state"] == "revoked"
    assert fleet.file("crl.pem").read_bytes() != before, "what serves the fleet acts on this file"
    unknown = client.post("/api/fleet/pi-9/revoke", {})
    assert (unknown.status_code, "no device 'pi-9'" in unknown.json()["detail"]) == (409, True)
    fleet.encrypt(b"correct horse")
    locked = client.post("/api/fleet/pi-1/revoke", {})
    assert (locked.status_code, f"mas-edge fleet revoke {fleet.folder} pi-1" in locked.json()["detail"]) == (409, True)
    client.close()
