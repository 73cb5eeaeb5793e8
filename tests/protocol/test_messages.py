"""Control messages: what goes out comes back, and nothing malformed comes in."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.protocol.artifact import DIGEST_BYTES, MAX_CHUNKS, check_manifest, describe
from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.messages import (
    MAX_MESSAGE_BYTES,
    Ack,
    AnyMessage,
    Birth,
    Cancel,
    Commit,
    HealthCheck,
    Manifest,
    Offer,
    OrchestratorState,
    Plan,
    Rebirth,
    Receipt,
    Refusal,
    Report,
    RoundName,
    SampleCount,
    Status,
    Training,
    Want,
    Weights,
    decode_from_device,
    decode_from_orchestrator,
    encode,
    round_name,
)

MANIFEST = describe(bytes(3000), 1024)
TRAINING = Training(
    learning_rate=0.1, momentum=0.9, weight_decay=1e-4, local_epochs=1, seed=3, task_weights={"a": 1.0, "b": 0.5}
)
REPORT = Report(samples={"a": 10}, losses={"a": 0.25}, affinity=[[0.0, -0.1], [0.2, 0.0]], engine="torch", healthy=True)
FROM: dict[str, Any] = {"sender": "pi-1", "boot_id": "b7", "seq": 4}
ROUND: dict[str, Any] = {**FROM, "job": "watch", "round_id": "r3.all"}


def plan(**changes: Any) -> Plan:
    fields = {**ROUND, "kind": "train", "group": "all", "tasks": ["a", "b"], "deadline_s": 60.0, "program": MANIFEST}
    return Plan(**{**fields, **changes})


DEVICE: list[AnyMessage] = [
    Birth(
        **FROM, runtime="0.1.0", python="3.11", machine="aarch64", cores=4, memory_bytes=2**32, engine="torch",
        engines=["torch"], input_shape=[6, 64], tasks={"a": SampleCount(train=10, test=2)},
    ),
    Status(**FROM, online=False, reason="connection lost"),
    Ack(**ROUND),
    Refusal(**ROUND, reason="the battery is at 7 %: charge the device"),
    Want(**FROM, artifact=MANIFEST.artifact, ranges=[(0, 2), (4, 5)], broadcast=True),
    Offer(**ROUND, report=REPORT, manifest=MANIFEST),
    Commit(**ROUND, artifact=MANIFEST.artifact),
]  # fmt: skip
ORCHESTRATOR: list[AnyMessage] = [
    plan(weights=Weights(manifest=MANIFEST, derive_from="ab" * 32), training=TRAINING),
    plan(kind="deploy", health=HealthCheck(golden=MANIFEST, tolerance=1e-4, max_latency_s=2.0)),
    Want(**FROM, artifact=MANIFEST.artifact, ranges=[]),
    Receipt(**ROUND, verdict="stale_round", reason="round r3 is over"),
    Cancel(**ROUND, reason="deadline"),
    Rebirth(**FROM),
    OrchestratorState(**FROM, online=True, job="watch", phase="affinity"),
]


def tag(message: AnyMessage) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", DEVICE, ids=tag)
def test_what_a_device_says_comes_back_equal(message: AnyMessage) -> None:
    assert decode_from_device(encode(message), "pi-1") == message


@pytest.mark.parametrize("message", ORCHESTRATOR, ids=tag)
def test_what_the_orchestrator_says_comes_back_equal(message: AnyMessage) -> None:
    assert decode_from_orchestrator(encode(message)) == message


def test_the_digests_of_a_manifest_come_back_equal() -> None:
    back = decode_from_orchestrator(encode(plan()))
    assert isinstance(back, Plan)
    assert check_manifest(back.program, max_bytes=3000) == MANIFEST


def test_unknown_fields_of_a_newer_sender_are_ignored() -> None:
    newer = json.loads(encode(Rebirth(**FROM))) | {"colour": "green", "nested": {"a": [1]}}
    assert decode_from_orchestrator(json.dumps(newer).encode()) == Rebirth(**FROM)


def test_a_plan_for_artifacts_of_1_gib_fits_into_a_message() -> None:
    largest = Manifest(
        artifact="ab" * 32,
        size=2**30,
        chunk_size=2**30 // MAX_CHUNKS,
        chunk_digests=b"\xff" * (DIGEST_BYTES * MAX_CHUNKS),
    )
    message = plan(program=largest, weights=Weights(manifest=check_manifest(largest, 2**30)), training=TRAINING)
    assert decode_from_orchestrator(encode(message)) == message


def test_a_message_over_the_limit_is_neither_sent_nor_read() -> None:
    huge = Refusal(**ROUND, reason="x" * MAX_MESSAGE_BYTES)
    with pytest.raises(MessageError, match="over the limit"):
        encode(huge)
    with pytest.raises(MessageError, match="over the limit"):
        decode_from_device(b" " * (MAX_MESSAGE_BYTES + 1), "pi-1")


def changed(message: AnyMessage, **changes: object) -> bytes:
    body = json.loads(encode(message))
    return json.dumps({**body, **changes}).encode()


def without(message: AnyMessage, field: str) -> bytes:
    body = json.loads(encode(message))
    del body[field]
    return json.dumps(body).encode()


WANT, ACK, OFFER = DEVICE[4], DEVICE[2], DEVICE[5]
DEVICE_FAULTS: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"hello",
    "cut short": encode(ACK)[:-5],
    "two messages": encode(ACK) + encode(ACK),
    "not UTF-8": b'{"type":"ack","sender":"\xff"}',
    "a list": b"[1, 2]",
    "a number that is too large": b'{"type":"ack","seq":1e999}',
    "nested without end": b'{"type":"ack","x":' + b"[" * 200_000,
    "no type": without(ACK, "type"),
    "an unknown type": changed(ACK, type="hello"),
    "the orchestrator's type": encode(ORCHESTRATOR[0]),
    "no sender": without(ACK, "sender"),
    "no sequence number": without(ACK, "seq"),
    "a sequence number in words": changed(ACK, seq="4"),
    "a fractional sequence number": changed(ACK, seq=4.5),
    "another sender": changed(ACK, sender="pi-2"),
    "a round that is a path": changed(ACK, round_id="../r3"),
    "a round that is a wildcard": changed(OFFER, round_id="#"),
    "ranges of three numbers": changed(WANT, ranges=[[1, 2, 3]]),
    "ranges of one number": changed(WANT, ranges=[[1]]),
    "a range in words": changed(WANT, ranges=[["a", "b"]]),
    "a loss that is no number": changed(OFFER, report={"samples": {}, "losses": {"a": "low"}}),
    "a loss that is null, which is how JSON says NaN": changed(OFFER, report={"samples": {}, "losses": {"a": None}}),
    "digests that are not base64": changed(
        OFFER, manifest={"artifact": "a", "size": 1, "chunk_size": 1, "chunk_digests": "?"}
    ),
    "a manifest without a size": changed(OFFER, manifest={"artifact": "a", "chunk_size": 1, "chunk_digests": ""}),
}
ORCHESTRATOR_FAULTS: dict[str, bytes] = {
    "a device's type": encode(ACK),
    "an unknown kind of plan": changed(plan(), kind="erase"),
    "an unknown verdict": changed(ORCHESTRATOR[3], verdict="perhaps"),
    "a round that is a path": changed(plan(), round_id="../../x"),
    "a plan without a program": without(plan(), "program"),
    "a deadline in words": changed(plan(), deadline_s="soon"),
}


@pytest.mark.parametrize("fault", DEVICE_FAULTS)
def test_a_malformed_message_of_a_device_is_refused(fault: str) -> None:
    with pytest.raises(MessageError):
        decode_from_device(DEVICE_FAULTS[fault], "pi-1")


@pytest.mark.parametrize("fault", ORCHESTRATOR_FAULTS)
def test_a_malformed_message_of_the_orchestrator_is_refused(fault: str) -> None:
    with pytest.raises(MessageError):
        decode_from_orchestrator(ORCHESTRATOR_FAULTS[fault])


def test_a_refusal_names_the_field_and_what_was_expected() -> None:
    with pytest.raises(MessageError, match=r"Expected `int`, got `str` - at `\$\.seq`"):
        decode_from_device(DEVICE_FAULTS["a sequence number in words"], "pi-1")


def test_one_device_cannot_speak_for_another() -> None:
    with pytest.raises(MessageError, match=r"device 'pi-2' says it comes from 'pi-1'"):
        decode_from_device(encode(ACK), "pi-2")


def test_a_report_with_a_nan_still_names_its_round_so_that_its_sender_can_be_told() -> None:
    spoiled = changed(OFFER, report={"samples": {}, "losses": {"a": None}})
    with pytest.raises(MessageError):
        decode_from_device(spoiled, "pi-1")
    assert round_name(spoiled) == RoundName("watch", "r3.all")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"hello", b"[1]", b'{"job": "watch"}', b'{"job": 1, "round_id": "r3"}',
        b'{"job": "watch", "round_id": "../r3"}', b'{"job": "watch", "round_id": "#"}',
        b'{"job": "\xff", "round_id": "r3"}', b'{"job": "j", "round_id": "r3", "x":' + b"[" * 200_000,
        encode(ACK)[:-5], b'{"job": "j", "round_id": "r3", "x": "' + b"y" * MAX_MESSAGE_BYTES + b'"}',
    ],
    ids=[
        "nothing", "no JSON", "a list", "no round", "a number", "a path", "a wildcard", "not UTF-8", "nested", "cut",
        "over the limit",
    ],
)  # fmt: skip
def test_a_message_that_names_no_round_has_no_round_name(data: bytes) -> None:
    assert round_name(data) is None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _spoiled(message: AnyMessage, field: str, value: Any) -> bytes:
    return json.dumps({**json.loads(encode(message)), field: value}).encode()


spoiled = st.sampled_from(DEVICE + ORCHESTRATOR).flatmap(
    lambda message: st.builds(
        _spoiled, st.just(message), st.sampled_from(sorted(json.loads(encode(message)))), json_values
    )
)
damaged = st.builds(
    lambda message, place, junk: (body := encode(message))[: place % len(body)] + junk + body[place % len(body) + 1 :],
    st.sampled_from(DEVICE + ORCHESTRATOR), st.integers(0, 10_000), st.binary(max_size=3),
)  # fmt: skip
anything = st.one_of(st.binary(max_size=200), json_values.map(lambda v: json.dumps(v).encode()), spoiled, damaged)


@pytest.mark.parametrize(
    "decode", [lambda data: decode_from_device(data, "pi-1"), decode_from_orchestrator], ids=["device", "orchestrator"]
)
@given(data=anything)
def test_whatever_arrives_gives_a_message_that_can_be_sent_again_or_a_message_error(
    decode: Callable[[bytes], AnyMessage], data: bytes
) -> None:
    try:
        message = decode(data)
    except MessageError as error:
        assert len(str(error)) < 1000
        return
    assert decode(encode(message)) == message


def test_a_reason_with_an_undecodable_file_name_is_refused_as_a_message_error() -> None:
    with pytest.raises(MessageError):
        encode(Refusal(**ROUND, reason="cannot open data/\udcff.npy"))
