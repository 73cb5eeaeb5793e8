"""A signed job on a real broker, and what somebody who owns that broker can make devices do afterwards: nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from device_runtime.edge.mqtt import Arrived, Event, Link
from device_runtime.trust import anchor
from device_runtime.trust.seals import SIGNED_ONLY
from mas_edge.fleet.signing import ceremony
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.messages import Plan, SignedPlan, decode_from_device, decode_from_orchestrator, encode
from mas_edge.protocol.signed import plan_in, targets_of
from tests.brokers import Running
from tests.e2e.fleet import PATIENCE_S, Fleet, job_text, until

TRUSTING, TRUSTLESS = ["ada", "bob"], "eve"
QUIET_S = 3.0  # longer than an answer takes: what comes after it was not coming


class Wire:
    """Everything that crosses the broker for one fleet, and a voice on every topic: no ACL holds its owner back."""

    def __init__(self, url: str, fleet: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._link = Link(url, f"owner-of-{fleet}", self._on_event, session_expiry_s=0)
        self._link.subscribe(f"fl/v1/{fleet}/#")
        self._link.start()
        self._link.wait_connected(PATIENCE_S)

    def say(self, topic: str, payload: bytes) -> None:
        self._link.publish(topic, payload)

    def commands(self) -> list[tuple[str, bytes]]:
        return [(topic, payload) for topic, payload in self.heard if topic.endswith("/cmd")]

    def plans(self) -> list[tuple[str, Plan | SignedPlan]]:
        """By device, in their order."""
        said = [(topic.split("/")[4], decode_from_orchestrator(payload)) for topic, payload in self.commands()]
        return [(device, message) for device, message in said if isinstance(message, (Plan, SignedPlan))]

    def answers(self, since: int) -> list[str]:
        """The kinds of words that devices have said, from the ``since``-th message on."""
        return [json.loads(payload)["type"] for topic, payload in self.heard[since:] if topic.endswith("/rsp")]

    def refusal(self, since: int) -> str:
        """The first reason why a device refuses, as soon as it does."""
        until(lambda: "refusal" in self.answers(since), "a refusal")
        said = [(t.split("/")[4], payload) for t, payload in self.heard[since:] if t.endswith("/rsp")]
        return next(str(getattr(decode_from_device(p, d), "reason", "")) for d, p in said if b"refusal" in p)

    def stop(self) -> None:
        self._link.stop()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Arrived):
            self.heard.append((event.topic, bytes(event.payload)))


@dataclass
class Signed:
    fleet: Fleet
    wire: Wire
    snapshot: Snapshot


@pytest.fixture(scope="module")
def signed(running_broker: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    directory = tmp_path_factory.mktemp("signed")
    repository = ceremony.create(directory / "signing", directory / "offline", 3, 2)
    text = job_text(rounds=2, merge_rounds=1, per_round=3, min_devices=3)
    with Fleet(running_broker.url, directory, text) as fleet:
        wire = Wire(running_broker.url, fleet.job.fleet)
        for name in TRUSTING:
            anchor.install(fleet.device_state(name), anchor.read_root(repository.folder))
        for name in (*TRUSTING, TRUSTLESS):
            fleet.device(name)
        assert fleet.orchestrate(repository.folder).join() is True
        yield Signed(fleet, wire, fleet.finish())
        wire.stop()


def test_a_signed_job_is_carried_out_by_devices_with_and_without_trust(signed: Signed) -> None:
    assert signed.snapshot.phase == "done"
    reported = {name for record in signed.snapshot.rounds for name in record.reports}
    assert reported == {*TRUSTING, TRUSTLESS}
    plans = [plan for _, plan in signed.wire.plans()]
    assert plans
    assert all(isinstance(plan, SignedPlan) for plan in plans)


def test_what_lies_in_a_slot_is_what_was_listed(signed: Signed) -> None:
    deployed = [
        (name, plan_in(plan)) for name, plan in signed.wire.plans()
        if isinstance(plan, SignedPlan) and plan_in(plan).kind == "deploy"
    ]  # fmt: skip
    assert {name for name, _ in deployed} == {*TRUSTING, TRUSTLESS}
    for name, plan in deployed:
        slot = signed.fleet.device_state(name) / "deployed" / plan.group / f"active.{plan.format}"
        listed = targets_of(plan)[f"models/{plan.job}/{plan.group}/model.{plan.format}"]
        assert (digest_of(slot.read_bytes()), slot.stat().st_size) == listed


def test_the_bytes_of_the_metadata_are_in_the_records(signed: Signed) -> None:
    assert sum(record.traffic.sent_metadata for record in signed.snapshot.rounds) > 0


def test_all_that_was_ever_said_moves_no_trusting_device_when_it_is_said_again(signed: Signed) -> None:
    old = signed.wire.heard[:]
    since = len(old)
    for topic, payload in old:
        if any(f"/dev/{name}/" in topic for name in TRUSTING) and topic.endswith(("/cmd", "/chunk")):
            signed.wire.say(topic, payload)
    time.sleep(QUIET_S)
    assert set(signed.wire.answers(since)) <= {"want"}  # nothing was acknowledged, refused, offered or committed


def last_plan(signed: Signed, name: str) -> tuple[str, SignedPlan]:
    topic = next(topic for topic, _ in signed.wire.commands() if f"/dev/{name}/" in topic)
    plans = [plan for device, plan in signed.wire.plans() if device == name]
    return topic, [plan for plan in plans if isinstance(plan, SignedPlan)][-1]


def test_a_plan_that_nobody_signed_is_refused(signed: Signed) -> None:
    topic, plan = last_plan(signed, "ada")
    since = len(signed.wire.heard)
    signed.wire.say(topic, encode(msgspec.structs.replace(plan_in(plan), round_id="evil-0")))
    assert signed.wire.refusal(since) == SIGNED_ONLY


def test_a_plan_that_was_changed_is_refused(signed: Signed) -> None:
    topic, plan = last_plan(signed, "bob")
    evil = encode(msgspec.structs.replace(plan_in(plan), round_id="evil-1"))
    since = len(signed.wire.heard)
    signed.wire.say(topic, encode(msgspec.structs.replace(plan, seq=plan.seq + 1, plan=msgspec.Raw(evil))))
    assert "signature is wrong" in signed.wire.refusal(since)


def test_another_devices_plan_is_refused(signed: Signed) -> None:
    (topic, _), (_, plan) = last_plan(signed, "ada"), last_plan(signed, "bob")
    since = len(signed.wire.heard)
    signed.wire.say(topic, encode(plan))
    assert "a plan for 'bob'" in signed.wire.refusal(since)


def test_no_artifact_lies_where_trust_is_kept(signed: Signed) -> None:
    for name in TRUSTING:
        names = {path.name for path in Path(signed.fleet.device_state(name) / "trust").iterdir()}
        assert names == {"root.json", "metadata.json", "seen.json"}
    assert not (signed.fleet.device_state(TRUSTLESS) / "trust").exists()
