"""Any message and any bytes for a device: it goes on, writes only into its own folder, and carries out honest plans."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runtime.effects import Tell
from mas_edge.protocol.artifact import encode_chunk
from mas_edge.protocol.errors import EdgeError, ProtocolError
from mas_edge.protocol.messages import Ack, Offer, Refusal, Want, Weights, decode_from_orchestrator, encode
from mas_edge.protocol.weights import pack
from tests.device_runtime.one_device import GROUP, GROUP_PROGRAM, MERGED_PROGRAM, ORCHESTRATOR, OneDevice, plan, small
from tests.hostile.make_corpus import FILES
from tests.hostile.readers import snapshot
from tests.hostile.sound import SOUND
from tests.hostile.strategies import damaged, messages, spoiled
from tests.orchestrator.small_run import numbers

OURS = [encode(plan()), encode(plan(kind="evaluate")), encode(Want(**ORCHESTRATOR, artifact="ab" * 32, ranges=[]))]
PIECE = [encode_chunk(small(MERGED_PROGRAM), 0, MERGED_PROGRAM[:1024])]
payloads = st.one_of(
    messages(SOUND["from_orchestrator"]), messages(OURS), spoiled(OURS), st.sampled_from(OURS),
    st.sampled_from(list(FILES["from_orchestrator"].values())),
)  # fmt: skip
frames = damaged(PIECE) | st.sampled_from([*PIECE, *FILES["chunk"].values()])


def hear(device: OneDevice, payload: bytes) -> None:
    """As the runtime does: what breaks the contract is logged and forgotten. Nobody answers what the agent says."""
    try:
        device.effects += device.agent.on_message(decode_from_orchestrator(payload), device.now)
    except ProtocolError as error:
        assert str(error).isprintable()


def test_whatever_arrives_an_honest_plan_is_carried_out_afterwards(tmp_path: Path) -> None:
    """All examples fall on one agent: what one of them leaves behind must not harm what comes after it."""
    device = OneDevice(tmp_path / "device")

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(payloads | frames.map(lambda frame: b"\0" + frame))
    def check(payload: bytes) -> None:
        device.now += 0.01
        if not payload.startswith(b"\0"):
            hear(device, payload)
            return
        try:
            device.agent.on_chunk(payload[1:], device.now)
        except ProtocolError as error:
            assert str(error).isprintable()

    check()
    device.receive(plan("honest-1", job="a-new-run", kind="evaluate"))
    device.wait(5.0)
    assert "honest-1" in [offer.round_id for offer in device.told(Offer)]
    assert [path.name for path in tmp_path.iterdir()] == ["device"]
    assert {path.name for path in (tmp_path / "device").iterdir()} == {"artifacts", "pending"}


@pytest.mark.parametrize("case", FILES["program"])
def test_a_plan_whose_program_is_a_hostile_file_is_refused_when_weights_are_to_be_taken_out_of_others(
    tmp_path: Path, case: str
) -> None:
    device, hostile = OneDevice(tmp_path), FILES["program"][case]
    source = device.agent.store.put(pack(GROUP, numbers(GROUP))).artifact
    device.holds[small(hostile).artifact] = hostile
    weights = Weights(manifest=replace(small(GROUP_PROGRAM), artifact="cd" * 32), derive_from=source)
    device.working = False
    device.receive(plan("r", program=small(hostile), weights=weights))
    for _ in range(3):
        device.wait(5.0)
    refused = device.told(Refusal)
    assert refused, "a program that cannot be read ends the plan"
    assert all(refusal.reason.isprintable() for refusal in refused)
    assert device.agent.next_poll == float("inf")


@pytest.mark.parametrize("case", FILES["from_orchestrator"])
def test_a_hostile_plan_leaves_nothing_on_the_disk(tmp_path: Path, case: str) -> None:
    device = OneDevice(tmp_path)
    device.working = False
    before = snapshot(tmp_path)
    payload = FILES["from_orchestrator"][case]
    if case in ("no_time", "all_the_time"):  # sound plans otherwise
        return
    hear(device, payload)
    assert snapshot(tmp_path) == before
    assert not [e for e in device.effects if isinstance(e, Tell) and isinstance(e.message, (Ack, Want))]


def test_plans_of_one_name_without_end_are_one_errand(tmp_path: Path) -> None:
    device = OneDevice(tmp_path)
    device.working = False
    for _ in range(500):
        device.receive(plan())
    assert len(device.started()) <= 1
    with pytest.raises(EdgeError):
        device.agent.on_chunk(b"", 0.0)
