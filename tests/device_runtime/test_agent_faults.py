"""What a device refuses, the split push, two runs on one fleet, and disks that fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from device_runtime.agent import MAX_ARTIFACT_BYTES, MAX_ERRANDS
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.part_file import PartFile
from device_runtime.effects import Start
from device_runtime.pending import PendingOffers
from mas_edge.protocol.errors import DeviceError, TransferError
from mas_edge.protocol.messages import Ack, HealthCheck, Manifest, Offer, Plan, Refusal, Want, Weights
from mas_edge.protocol.weights import ENCODER, Entry, Layout, pack
from tests.device_runtime.one_device import (
    GROUP_PROGRAM,
    GROUP_WEIGHTS,
    MERGED_PROGRAM,
    MERGED_WEIGHTS,
    REPORT,
    UPDATE,
    OneDevice,
    plan,
    program_of,
    small,
)


@pytest.fixture
def device(tmp_path: Path) -> OneDevice:
    return OneDevice(tmp_path)


def refusal_of(device: OneDevice) -> str:
    """Why the one plan was refused; nothing of it may be left."""
    (refusal,) = device.told(Refusal)
    assert device.agent.next_poll == float("inf")
    assert device.listening() == set()
    return refusal.reason


# ---------------------------------------------------------------------- the split push

FIRST_WEIGHTS = small(GROUP_WEIGHTS)
DERIVED = Weights(manifest=FIRST_WEIGHTS, derive_from=small(MERGED_WEIGHTS).artifact)


def first_plan_of_a_group(**changes: Any) -> Plan:
    fields: dict[str, Any] = {"group": "group-0", "tasks": ["a"], "program": small(GROUP_PROGRAM), "weights": DERIVED}
    return plan("group-0-0003", **{**fields, **changes})


def test_after_the_split_no_weights_are_fetched_and_the_derived_bytes_are_equal(device: OneDevice) -> None:
    device.agent.store.put(MERGED_WEIGHTS)
    device.receive(first_plan_of_a_group())
    assert device.started() == ["group-0-0003"]
    assert {want.artifact for want in device.told(Want)} == {small(GROUP_PROGRAM).artifact}
    assert device.agent.store.read(FIRST_WEIGHTS.artifact) == GROUP_WEIGHTS


def test_with_the_program_there_as_well_nothing_is_fetched_at_all(device: OneDevice) -> None:
    for data in (MERGED_WEIGHTS, GROUP_PROGRAM):
        device.agent.store.put(data)
    device.receive(first_plan_of_a_group())
    assert device.started() == ["group-0-0003"]
    assert device.told(Want) == []


OTHER_WEIGHTS = pack(Layout([Entry("x", [3], ENCODER)]), np.ones(3, np.float32))


def lacks_it(device: OneDevice, weights: bytes) -> str:
    return small(weights).artifact


def holds_it(device: OneDevice, weights: bytes) -> str:
    return device.agent.store.put(weights).artifact


def holds_it_damaged(device: OneDevice, weights: bytes) -> str:
    artifact = device.agent.store.put(weights).artifact
    device.agent.store.path(artifact).write_bytes(weights[:-1] + b"?")
    return artifact


FALLBACKS: dict[str, tuple[Callable[[OneDevice, bytes], str], bytes]] = {
    "is not here": (lacks_it, MERGED_WEIGHTS),
    "gives another digest": (holds_it, MERGED_WEIGHTS[:-4] + b"\0\0\0\0"),
    "lacks a tensor": (holds_it, OTHER_WEIGHTS),
    "is no weights file": (holds_it, b"nonsense"),
    "is damaged on disk": (holds_it_damaged, MERGED_WEIGHTS),
}


@pytest.mark.parametrize("case", FALLBACKS)
def test_the_weights_are_pulled_when_what_they_derive_from(device: OneDevice, case: str) -> None:
    prepare, source = FALLBACKS[case]
    wanted = GROUP_WEIGHTS if case != "gives another digest" else GROUP_WEIGHTS[:-4] + b"\1\1\1\1"
    device.holds[small(wanted).artifact] = wanted
    weights = Weights(manifest=small(wanted), derive_from=prepare(device, source))
    device.receive(first_plan_of_a_group(weights=weights))
    device.wait(5.0)
    assert device.asked_for(wanted)
    assert device.agent.store.read(small(wanted).artifact) == wanted
    assert device.started() == ["group-0-0003"]


# ---------------------------------------------------------------------- plans that are refused

ODD = small(MERGED_WEIGHTS)
DAMAGED_PROGRAM = GROUP_PROGRAM[:-3]
TWICE_NAMED = program_of(Layout([Entry("x", [1], ENCODER), Entry("x", [1], "a")]), "group-0")
REFUSED: dict[str, tuple[Plan, str]] = {
    "an artifact that is too large": (
        plan(weights=Weights(manifest=replace(ODD, size=MAX_ARTIFACT_BYTES + 1))), f"at most {MAX_ARTIFACT_BYTES}",
    ),
    "a name that is a path": (plan(program=replace(ODD, artifact="../../etc/passwd")), "not a sha256"),
    "a size below zero": (plan(program=replace(ODD, size=-1)), "negative"),
    "too few chunk digests": (plan(program=replace(ODD, chunk_digests=b"")), "0 bytes of chunk digests"),
    "chunks of one byte": (plan(program=replace(ODD, chunk_size=1)), "chunk size 1 is not allowed"),
    "a source that is a path": (plan(weights=Weights(manifest=ODD, derive_from="../x")), "not a sha256"),
    "no weights to train": (plan(weights=None), "names no weights"),
    "no weights to evaluate": (plan(kind="evaluate", weights=None), "names no weights"),
    "no settings to train": (plan(training=None), "lacks its settings"),
    "no health check to deploy": (plan(kind="deploy", weights=None), "lacks its settings"),
    "golden outputs that are too large": (
        plan(kind="deploy", weights=None, health=HealthCheck(
            golden=replace(ODD, size=2**40), tolerance=1.0, max_latency_s=1.0)), "at most",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_is_refused_with_a_reason_for(device: OneDevice, case: str) -> None:
    bad, reason = REFUSED[case]
    device.receive(bad)
    assert reason in refusal_of(device)
    assert device.told(Ack) == []
    assert device.told(Want) == []


@pytest.mark.parametrize(
    ("program", "reason"),
    [(DAMAGED_PROGRAM, "program file is truncated"), (TWICE_NAMED, "'x'"), (b"MZ nonsense", "not a program file")],
    ids=["cut short", "a tensor named twice", "another kind of file"],
)
def test_a_program_that_cannot_be_read_is_refused_once_it_is_here(
    device: OneDevice, program: bytes, reason: str
) -> None:
    device.agent.store.put(MERGED_WEIGHTS)
    device.holds[small(program).artifact] = program
    device.receive(first_plan_of_a_group(program=small(program)))
    assert reason in refusal_of(device)
    assert device.started() == []


def test_an_artifact_that_contradicts_its_manifest_is_refused_and_not_asked_for_again(device: OneDevice) -> None:
    lie = replace(small(MERGED_WEIGHTS), artifact="ab" * 32)
    device.holds[lie.artifact] = MERGED_WEIGHTS
    device.agent.store.put(MERGED_PROGRAM)
    device.receive(plan(weights=Weights(manifest=lie)))
    assert "its manifest contradicts itself" in refusal_of(device)


def test_more_plans_than_a_device_can_hold_are_refused_and_the_others_stay(device: OneDevice) -> None:
    device.working = False
    for number in range(MAX_ERRANDS + 1):
        device.receive(plan(f"r-{number}"))
    (refusal,) = device.told(Refusal)
    assert (refusal.round_id, str(MAX_ERRANDS) in refusal.reason) == (f"r-{MAX_ERRANDS}", True)
    device.receive(plan("r-0", job="j-2"))
    assert device.told(Ack)[-1].job == "j-2", "plans of an old run do not keep a new one out"


# ---------------------------------------------------------------------- two runs


def test_a_plan_of_another_run_drops_everything_of_the_old_one(device: OneDevice) -> None:
    device.losing["offer"] = 1
    device.receive(plan("r-1"))
    device.working = False
    device.receive(plan("r-2"))
    device.receive(plan("r-3"))
    device.receive(plan("r-1", job="j-2"))
    assert device.interrupted() == [2]
    assert list((device.directory / "pending").iterdir()) == []
    assert device.started() == ["r-1", "r-2", "r-1"]


@pytest.mark.parametrize("ends", ["finishes", "is interrupted"])
def test_the_end_of_old_work_is_not_taken_for_the_end_of_a_new_round_of_the_same_name(
    device: OneDevice, ends: str
) -> None:
    device.working = False
    device.receive(plan())
    device.receive(plan(job="j-2"))
    old, new = [effect.number for effect in device.effects if isinstance(effect, Start)]
    if ends == "finishes":
        device.do(device.agent.on_finished(old, REPORT, b"of the old run", device.now))
    else:
        device.do(device.agent.on_failed(old, "interrupted"))
    assert not device.told(Offer) + device.told(Refusal)
    device.do(device.agent.on_finished(new, REPORT, UPDATE, device.now))
    assert [offer.job for offer in device.told(Offer)] == ["j-2"]


# ---------------------------------------------------------------------- the disk


def full(*_: object, **__: object) -> None:
    message = "the disk is full: free some space"
    raise DeviceError(message)


DISK_FAULTS: dict[str, tuple[type, str]] = {
    "before the first chunk": (ArtifactStore, "partial"),
    "at a chunk": (PartFile, "write"),
    "at the last name": (PartFile, "finish"),
    "when the update is stored": (ArtifactStore, "put"),
    "when the offer is written down": (PendingOffers, "add"),
}


@pytest.mark.parametrize("case", DISK_FAULTS)
def test_a_full_disk_is_told_and_does_not_end_the_agent(
    device: OneDevice, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, method = DISK_FAULTS[case]
    with monkeypatch.context() as broken:
        broken.setattr(where, method, full)
        device.receive(plan())
        assert refusal_of(device) == "the disk is full: free some space"
    device.receive(plan("merged-0001"))
    device.wait(5.0)
    assert [offer.round_id for offer in device.told(Offer)] == ["merged-0001"]


def test_what_is_in_use_survives_every_pruning(device: OneDevice) -> None:
    store = device.agent.store
    others = [store.put(bytes([number]) * 5000).artifact for number in range(3)]
    source = store.put(MERGED_WEIGHTS).artifact
    device.losing["offer"] = 100
    device.receive(plan("r-1"))
    device.losing["want"] = 1
    device.receive(first_plan_of_a_group())
    device.working = False
    device.wait(4.0)
    update = device.told(Offer)[0].manifest
    assert isinstance(update, Manifest)
    assert device.agent.in_use() == {
        update.artifact, source, small(GROUP_PROGRAM).artifact, FIRST_WEIGHTS.artifact,
    }  # fmt: skip
    store.prune(0, device.agent.in_use())
    assert not any(store.has(other) for other in others)
    assert all(store.has(artifact) for artifact in device.agent.in_use())


def test_a_damaged_piece_is_refused_and_asked_for_again(device: OneDevice) -> None:
    device.losing["want"] = 1
    device.agent.store.put(MERGED_PROGRAM)
    device.receive(plan())
    frame = bytes.fromhex(small(MERGED_WEIGHTS).artifact)[:16] + (0).to_bytes(4, "big") + (1024).to_bytes(4, "big")
    device.agent.on_chunk(frame + bytes(1024), device.now)
    with pytest.raises(TransferError, match=r"1 of [0-9]+ chunks .* corrupt"):
        device.wait(30.0)
    device.wait(30.0)
    assert device.started() == ["merged-0000"]


def test_a_finished_round_whose_update_a_power_cut_took_is_not_offered_but_trained_again(device: OneDevice) -> None:
    device.connect()
    device.losing["offer"] = 10**6
    device.receive(plan())
    [offer] = {offer.manifest for offer in device.told(Offer)}
    assert offer is not None
    device.agent.store.path(offer.artifact).write_bytes(b"")  # its name is there, its bytes were not written yet
    device.effects.clear()
    device.restart()
    device.connect()
    assert device.told(Offer) == []
    device.receive(plan())
    assert device.started() == ["merged-0000"]


def test_an_update_that_is_not_taken_soon_is_made_safe_from_a_power_cut(
    device: OneDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.connect()
    synced: list[str] = []
    monkeypatch.setattr(device.agent.store, "sync", synced.append)
    device.receive(plan("merged-0000"))
    assert synced == [], "it was taken at once"
    device.losing["offer"] = 10**6
    device.receive(plan("merged-0001"))
    device.wait(5.0)
    manifest = device.told(Offer)[-1].manifest
    assert manifest is not None
    assert synced == [manifest.artifact]
