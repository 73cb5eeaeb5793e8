from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.edge.fragments import (
    MAGIC,
    MAX_FRAGMENTS,
    MIN_PACKET,
    PER_TOPIC,
    SOON_S,
    Assembly,
    PacketLimit,
    smallest,
)
from mas_edge.protocol.errors import BrokerError, MessageError

TOPIC = "fl/v1/home/dev/pi-kitchen/up"
LIMITS = st.integers(MIN_PACKET, 300_000)


@given(payload=st.binary(max_size=5000), limit=LIMITS, seed=st.integers(0, 99))
def test_a_message_comes_together_from_its_fragments_in_any_order_and_twice(
    payload: bytes, limit: int, seed: int
) -> None:
    pieces = list(PacketLimit(limit).split(TOPIC, payload))
    first, rest = pieces[0], pieces[1:] + pieces[1:-1]
    random.Random(seed).shuffle(rest)
    assembly = Assembly()
    taken = [assembly.take(TOPIC, piece) for piece in [first, *rest]]
    assert [each for each in taken if each is not None][0] == payload  # noqa: RUF015


@given(size=st.integers(0, 400_000), limit=LIMITS, other=st.one_of(st.just(0), LIMITS))
def test_no_packet_is_larger_than_the_smallest_limit_of_both_sides(size: int, limit: int, other: int) -> None:
    pieces = PacketLimit(limit).split(TOPIC, bytes(size), other)
    # Fixed header up to 5, topic and its length, packet identifier, length of the properties (MQTT 5, section 3.3).
    assert max(5 + 2 + len(TOPIC) + 2 + 1 + len(piece) for piece in pieces) <= smallest(limit, other)
    assert len(pieces) == 1 or len(pieces[0]) > smallest(limit, other) // 2


def test_without_a_limit_nothing_is_cut() -> None:
    payload = bytes(2**20)
    [piece] = PacketLimit().split(TOPIC, payload)
    assert piece is payload


@pytest.mark.parametrize(("size", "retain"), [(MIN_PACKET * MAX_FRAGMENTS, False), (2000, True)])
def test_what_cannot_be_sent_in_fragments_is_refused(size: int, retain: bool) -> None:
    with pytest.raises(BrokerError, match="cannot be sent in packets of 1024 bytes"):
        PacketLimit(MIN_PACKET).split(TOPIC, bytes(size), retain=retain)


def test_messages_of_many_senders_come_together_side_by_side() -> None:
    assembly = Assembly()
    topics = [f"fl/v1/home/dev/d{number}/rsp" for number in range(20)]
    sent = {topic: PacketLimit(2048).split(topic, topic.encode() * 200) for topic in topics}
    whole = [
        (topic, assembly.take(topic, sent[topic][index]))
        for index in range(len(sent[topics[0]]))
        for topic in topics
        if index < len(sent[topic])
    ]
    assert {topic: data for topic, data in whole if data} == {topic: topic.encode() * 200 for topic in topics}


@pytest.mark.parametrize(
    "tail",
    [b"", struct.pack(">QHH", 1, 0, 2), struct.pack(">QHH", 1, 5, 2) + b"x", struct.pack(">QHH", 1, 0, 1) + b"x",
     struct.pack(">QHH", 1, 0, 65535) + b"x"],
    ids=["only the magic", "empty", "beyond its count", "of one", "of too many"],
)  # fmt: skip
def test_a_fragment_that_no_message_can_have_is_refused(tail: bytes) -> None:
    with pytest.raises(MessageError, match="fragment"):
        Assembly().take(TOPIC, MAGIC + tail)


def test_two_messages_of_one_number_but_other_counts_are_not_mixed() -> None:
    assembly = Assembly()
    assert assembly.take(TOPIC, MAGIC + struct.pack(">QHH", 1, 0, 3) + b"one") is None
    with pytest.raises(MessageError):
        assembly.take(TOPIC, MAGIC + struct.pack(">QHH", 1, 1, 2) + b"two")


def test_a_sender_that_never_ends_a_message_pushes_out_only_its_own() -> None:
    assembly = Assembly()
    honest = PacketLimit(2048).split(TOPIC, bytes(4000))
    assembly.take(TOPIC, honest[0])
    for number in range(10 * PER_TOPIC):
        assembly.take("fl/v1/home/dev/hostile/up", MAGIC + struct.pack(">QHH", number, 0, 2) + bytes(1000))
    assert [assembly.take(TOPIC, piece) for piece in honest[1:]][-1] == bytes(4000)


def test_incomplete_messages_take_bounded_memory() -> None:
    assembly = Assembly(max_bytes=200_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            assembly.take(f"fl/v1/home/dev/d{number % 5000}/up", MAGIC + struct.pack(">QHH", number, 0, 2048) + b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 200_000


def lost(limit: PacketLimit, size: int, after_s: float, *, too_large: bool = False) -> bool:
    limit.sent(size, 100.0)
    return limit.lost(100.0 + after_s, too_large=too_large)


def test_two_connections_that_end_right_after_a_large_packet_lower_the_limit() -> None:
    limit = PacketLimit()
    assert [lost(limit, 65_000, 0.1), lost(limit, 65_000, 0.1)] == [False, True]
    assert limit.known == 20 * 1024


def test_a_connection_that_ends_later_or_after_small_packets_proves_nothing() -> None:
    limit = PacketLimit()
    assert not any(lost(limit, 65_000, 2 * SOON_S) for _ in range(5))
    assert not any(lost(limit, 64_000, 0.1) for _ in range(5))  # larger ones went well before
    assert limit.known == 0


def test_a_broker_that_says_too_large_is_believed_at_once() -> None:
    limit = PacketLimit()
    assert lost(limit, 300_000, 0.1, too_large=True)
    assert limit.known == 256 * 1024


def test_a_long_healthy_connection_counts_for_what_it_carried() -> None:
    limit = PacketLimit()
    limit.sent(65_000, 0.0)
    limit.sent(10, 2 * SOON_S)
    limit.sent(65_000, 100.0)
    assert not limit.lost(100.1, too_large=False)
    assert [lost(limit, 65_000, 0.1) for _ in range(3)] == [False] * 3
