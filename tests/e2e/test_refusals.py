"""A hostile device among honest ones: what it sends is refused with a reason it can read, and the job goes on.

The job has two honest devices and two puppets. ``keeper`` acknowledges the first training round and stays silent, so
that the round is open for as long as the tests need; ``mallory`` was selected for it as well and does the harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.orchestrator.limits import Limits
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Ack, Birth, Offer, Plan, Receipt, Report, SampleCount, Want, encode
from mas_edge.protocol.weights import Entry, Layout, Vector, pack
from tests.brokers import Running
from tests.e2e.fleet import TASKS, Actor, Fleet, job_text, until
from tests.e2e.puppet import Puppet

ROUND = "merged-0000"
SAMPLES = dict.fromkeys(TASKS, 32)
FINE = Report(samples=SAMPLES, losses=dict.fromkeys(TASKS, 1.0), affinity=[[0.1] * 3] * 3, affinity_measurements=1)


@dataclass
class Scene:
    """An open training round with ``mallory`` in it."""

    fleet: Fleet
    orchestrator: Actor
    mallory: Puppet
    keeper: Puppet
    plan: Plan
    layout: Layout
    weights: Vector

    def verdict(self, act: Callable[[], None], round_id: str = ROUND, who: Puppet | None = None) -> Receipt:
        """The receipt that follows on an act."""
        who = who or self.mallory
        before = len(who.messages)
        act()
        return who.wait(Receipt, lambda receipt: receipt.round_id == round_id, after=before)

    def offer(self, report: Report = FINE, data: bytes | None = None, **lies: Any) -> Receipt:
        """Offer an update; ``lies`` replace fields of its manifest."""
        data = pack(self.layout, self.weights) if data is None else data
        manifest = self.mallory.hold(data, msgspec.structs.replace(describe(data), **lies))
        return self.verdict(lambda: self.mallory.offer(self.plan.job, ROUND, report, manifest))

    def logged(self, words: str) -> None:
        """Wait until the orchestrator's log says this."""
        until(lambda: any(words in event.text for event in self.fleet.snapshot().events), f"the log says {words!r}")


@pytest.fixture(scope="module")
def scene(running_broker: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    text = job_text(per_round=4, min_devices=4, deadline_s=600.0)
    with Fleet(running_broker.url, tmp_path_factory.mktemp("refusals"), text) as fleet:
        mallory, keeper = puppets = [
            Puppet(fleet.url, fleet.job.fleet, f"{name}-{fleet.job.fleet}") for name in ("mallory", "keeper")
        ]
        for name in ("ada", "bob"):
            fleet.device(name)
        # Mallory tries everything in one round: he has to be listened to for so long.
        orchestrator = fleet.orchestrate(limits=Limits(refused_reports=1000, lines_at_once=1000))
        for puppet in puppets:
            puppet.refuse(puppet.plan("evaluate-initial"), "no test samples today")
        for puppet in puppets:
            puppet.ack(puppet.plan(ROUND))
        plan = mallory.plan(ROUND)
        artifacts = ArtifactStore(fleet.state / "artifacts")
        layout = program_format.load(artifacts.read(plan.program.artifact)).layout
        weights = np.full(layout.size, 0.01, np.float32)
        yield Scene(fleet, orchestrator, mallory, keeper, plan, layout, weights)
        for puppet in puppets:
            puppet.leave()


# ---------------------------------------------------------------------- updates


def _changed(vector: Vector, value: float) -> Vector:
    changed = vector.copy()
    changed[3] = value
    return changed


def _reshaped(layout: Layout) -> Layout:
    first, *rest = layout.entries
    return Layout([Entry(first.name, [first.size], first.part), *rest])


def _without_the_first(layout: Layout, vector: Vector) -> bytes:
    first, *rest = layout.entries
    return pack(Layout(rest), vector[first.size :])


Forge = Callable[[Layout, Vector], bytes]
UPDATES: dict[str, tuple[Forge, str]] = {
    "a NaN": (lambda layout, vector: pack(layout, _changed(vector, float("nan"))), "1 of"),
    "an infinity": (lambda layout, vector: pack(layout, _changed(vector, float("inf"))), "not finite"),
    "a wrong shape": (lambda layout, vector: pack(_reshaped(layout), vector), "has shape"),
    "truncated safetensors": (lambda layout, vector: pack(layout, vector)[:-100], "does not fit the file"),
    "a truncated header": (lambda layout, vector: pack(layout, vector)[:20], "says its header has"),
    "a missing tensor": (_without_the_first, "lack the tensor"),
    "a tensor too many": (
        lambda layout, vector: pack(Layout([*layout.entries, Entry("x", [1], "x")]), np.append(vector, np.float32(0))),
        "not asked for",
    ),
    "text": (lambda layout, vector: b"these are not weights", "says its header has"),
    "nothing": (lambda layout, vector: b"", "too short"),
}  # fmt: skip


@pytest.mark.parametrize("forged", UPDATES)
def test_an_update_that_is_no_network_of_this_round_is_invalid(scene: Scene, forged: str) -> None:
    forge, words = UPDATES[forged]
    receipt = scene.offer(data=forge(scene.layout, scene.weights))
    assert receipt.verdict == "invalid"
    assert words in receipt.reason


MANIFESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "far too large": ({"size": 2**40}, "too_large", "at most"),
    "a digest list of another length": ({"chunk_digests": b"\1" * 31}, "invalid", "chunk digests"),
    "a name that is no digest": ({"artifact": "../../etc/passwd"}, "invalid", "not a sha256"),
    "another artifact's name": ({"artifact": "ab" * 32}, "bad_digest", "contradicts itself"),
    "digests of other chunks": ({"artifact": "cd" * 32, "chunk_digests": b"\1" * 32}, "bad_digest", "corrupt"),
    "chunks of another size": ({"chunk_size": 7}, "invalid", "chunk size"),
    "a negative size": ({"size": -1}, "invalid", "negative"),
}


@pytest.mark.parametrize("lie", MANIFESTS)
def test_a_manifest_that_lies_is_refused(scene: Scene, lie: str) -> None:
    fields, verdict, words = MANIFESTS[lie]
    vector = _changed(scene.weights, float(len(lie)))  # bytes that were not sent before
    receipt = scene.offer(data=pack(scene.layout, vector), **fields)
    assert receipt.verdict == verdict
    assert words in receipt.reason


# ---------------------------------------------------------------------- reports

REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "NaN losses, which JSON cannot say": ({"losses": {"sign": None}}, "$.report.losses"),
    "text for a loss": ({"losses": {"sign": "small"}}, "$.report.losses"),
    "a loss no float32 can be": ({"losses": dict.fromkeys(TASKS, 1e308)}, "1e+308"),
    "an affinity no float32 can be": ({"affinity": [[1e308] * 3] * 3}, "1e+308"),
    "an affinity of another size": ({"affinity": [[0.1]]}, "affinity"),
    "a ragged affinity": ({"affinity": [[0.1], [0.1, 0.2], []]}, "affinity"),
    "samples below zero": ({"samples": {**SAMPLES, "sign": -5}}, "-5"),
    "more samples than there are atoms": ({"samples": {**SAMPLES, "sign": 10**100}}, "1000"),
    "no samples at all": ({"samples": {}}, "no sample"),
    "a task of another group": ({"samples": {**SAMPLES, "weather": 5}}, "weather"),
    "a metric of another group": ({"metrics": {"weather": 5}}, "weather"),
    "seconds beyond all time": ({"seconds": {"train": 1e308}}, "1e+308"),
}


@pytest.mark.parametrize("forged", REPORTS)
def test_a_report_that_cannot_be_is_invalid(scene: Scene, forged: str) -> None:
    fields, words = REPORTS[forged]
    data = pack(scene.layout, scene.weights)
    manifest = scene.mallory.hold(data)
    message = Offer(**scene.mallory.sender(), job=scene.plan.job, round_id=ROUND, report=FINE, manifest=manifest)
    tree = json.loads(encode(message))
    tree["report"] |= fields
    receipt = scene.verdict(lambda: scene.mallory.say_raw(json.dumps(tree).encode()))
    assert receipt.verdict == "invalid"
    assert words in receipt.reason


def test_a_training_report_without_weights_is_invalid(scene: Scene) -> None:
    receipt = scene.verdict(lambda: scene.mallory.offer(scene.plan.job, ROUND, FINE))
    assert (receipt.verdict, "without weights" in receipt.reason) == ("invalid", True)


# ---------------------------------------------------------------------- rounds

ROUNDS = {
    "a closed round": ("evaluate-initial", "round_closed", "is closed"),
    "a round that never was": ("merged-0099", "stale_round", "there is no round merged-0099"),
}


@pytest.mark.parametrize("which", ROUNDS)
def test_an_offer_for_another_round_is_refused(scene: Scene, which: str) -> None:
    round_id, verdict, words = ROUNDS[which]
    receipt = scene.verdict(lambda: scene.mallory.offer(scene.plan.job, round_id, FINE), round_id)
    assert receipt.verdict == verdict
    assert words in receipt.reason


def test_an_offer_for_another_run_is_stale(scene: Scene) -> None:
    receipt = scene.verdict(lambda: scene.mallory.offer("tiny-00000000", ROUND, FINE))
    assert receipt.verdict == "stale_round"
    assert scene.plan.job in receipt.reason


def test_a_device_that_was_not_selected_is_told_so(scene: Scene) -> None:
    stranger = Puppet(scene.fleet.url, scene.fleet.job.fleet, f"stranger-{scene.fleet.job.fleet}", shape=(1, 8))
    receipt = scene.verdict(lambda: stranger.offer(scene.plan.job, ROUND, FINE), who=stranger)
    assert receipt.verdict == "not_selected"
    assert stranger.name in receipt.reason
    assert _problem(scene, stranger) == "its input has shape [1, 8], the job's [3, 16]"
    stranger.leave()


def _problem(scene: Scene, device: Puppet) -> str:
    """What is written down of a device; devices are written down together, twice a second."""

    def problems() -> list[str]:
        return [known.problem for known in scene.fleet.snapshot().devices if known.name == device.name]

    until(lambda: bool(problems()), f"{device.name} is written down")
    return problems()[0]


# ---------------------------------------------------------------------- what names no round


def _spoofed(scene: Scene) -> bytes:
    sender = {**scene.mallory.sender(), "sender": "ada"}
    return encode(
        Birth(**sender, runtime="", python="", machine="", cores=1, memory_bytes=1, engine="torch", engines=["torch"],
              input_shape=[1], tasks={"sign": SampleCount(train=1, test=1)})
    )  # fmt: skip


def _unknown_artifact(scene: Scene) -> bytes:
    return encode(Want(**scene.mallory.sender(), artifact="f" * 64, ranges=[(0, 1)]))


def _ranges_upside_down(scene: Scene) -> bytes:
    return encode(Want(**scene.mallory.sender(), artifact=scene.plan.program.artifact, ranges=[(9, 2)]))


def _round_with_a_path(scene: Scene) -> bytes:
    return encode(Ack(**scene.mallory.sender(), job=scene.plan.job, round_id="../etc"))


MESSAGES: dict[str, tuple[Callable[[Scene], bytes], str]] = {
    "garbage": (lambda _: b"\xff\xfe garbage \x00", "garbage"),
    "an empty object": (lambda _: b'{"is this": "it?"}', "is this"),
    "a message of no known type": (lambda _: b'{"type":"gossip","sender":"x","boot_id":"x","seq":1}', "gossip"),
    "brackets without end": (lambda _: b"[" * 100_000, "[[[["),
    "half a megabyte and more": (lambda _: b" " * (513 * 1024), "over the limit"),
    "another device's name": (_spoofed, "says it comes from 'ada'"),
    "a want for what nobody hands out": (_unknown_artifact, "which no open round uses"),
    "a want with impossible ranges": (_ranges_upside_down, "range 9 to 2"),
    "a round that is a path": (_round_with_a_path, "'../etc' is not a valid name"),
}


@pytest.mark.parametrize("sent", MESSAGES)
def test_a_message_that_says_nothing_sensible_is_ignored_with_a_logged_reason(scene: Scene, sent: str) -> None:
    make, words = MESSAGES[sent]
    scene.mallory.say_raw(make(scene))
    scene.logged(words)


def test_an_offer_in_another_devices_name_is_refused_and_does_not_touch_that_device(scene: Scene) -> None:
    sender = {**scene.mallory.sender(), "sender": "ada"}
    spoofed = encode(Offer(**sender, job=scene.plan.job, round_id=ROUND, report=FINE))
    receipt = scene.verdict(lambda: scene.mallory.say_raw(spoofed))
    assert (receipt.verdict, "says it comes from 'ada'" in receipt.reason) == ("invalid", True)


FRAMES = {
    "nothing": (b"", "shorter than its header"),
    "less than a header": (b"\x00" * 10, "of 10 bytes is shorter"),
    "a length that is not there": (
        b"\x00" * 16 + b"\x00\x00\x00\x00" + b"\x00\x00\x10\x00" + b"abc",
        "says 4096 bytes",
    ),
    "an index beyond every artifact": (b"\x00" * 16 + b"\xff" * 4 + b"\x00\x00\x00\x03" + b"abc", "no artifact has"),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_that_is_no_chunk_is_ignored_with_a_logged_reason(scene: Scene, frame: str) -> None:
    data, words = FRAMES[frame]
    scene.mallory.send_raw(data)
    scene.logged(words)


# ---------------------------------------------------------------------- and yet


def test_after_all_of_it_a_good_update_of_the_same_device_is_accepted_once(scene: Scene) -> None:
    assert scene.offer().verdict == "accepted"
    again = scene.offer()
    assert (again.verdict, again.reason) == ("duplicate", "this report was accepted before")
    other = scene.offer(data=pack(scene.layout, scene.weights * 2))
    assert other.verdict == "duplicate"


def test_the_round_and_the_job_go_on_with_the_honest_devices(scene: Scene) -> None:
    scene.keeper.refuse(scene.plan, "the battery is low")
    # Closed now, with the three reports that were good; from here on the puppets are away.
    until(lambda: any(r.round_id == ROUND for r in scene.fleet.snapshot().rounds), f"the end of {ROUND}")
    scene.keeper.leave()
    scene.mallory.leave()
    assert scene.orchestrator.join() is True
    record = next(r for r in scene.fleet.snapshot().rounds if r.round_id == ROUND)
    assert {"ada", "bob"} <= set(record.reports)
    assert record.refused[scene.keeper.name] == "the battery is low"
    assert all(np.isfinite(list(r.losses.values())).all() for r in scene.fleet.snapshot().rounds)
