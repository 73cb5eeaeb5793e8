"""Cutting a stream into packets, and taking a PUBLISH apart: byte for byte what the client library writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.edge.packets import encoded_length
from mas_edge.chaos.packets import MAX_PACKET_BYTES, Malformed, Publish, Splitter, parse_publish

payloads = st.binary(max_size=300)


def publish(topic: bytes, payload: bytes, qos: int, version: int) -> bytes:
    """As MQTT 5 (3.3) and 3.1.1 (3.3) write it; one property, a message expiry, in version 5."""
    head = len(topic).to_bytes(2, "big") + topic + (b"\0\7" if qos else b"")
    head += b"\x05\x02\0\0\0\x09" if version == 5 else b""
    return bytes([0x30 | qos << 1]) + encoded_length(len(head + payload)) + head + payload


@given(st.lists(payloads, max_size=6), st.integers(1, 50), st.sampled_from([0, 1]), st.sampled_from([4, 5]))
def test_packets_come_out_whole_however_the_stream_is_cut(
    parts: list[bytes], size: int, qos: int, version: int
) -> None:
    packets = [publish(b"a/b", payload, qos, version) for payload in parts]
    stream, splitter = b"".join(packets), Splitter()
    found = [each for start in range(0, len(stream), size) for each in splitter.feed(stream[start : start + size])]
    assert found == packets


@given(payloads, st.sampled_from([0, 1]), st.sampled_from([4, 5]))
def test_a_publish_is_put_together_as_it_was(payload: bytes, qos: int, version: int) -> None:
    packet = publish(b"fl/v1/f/dev/a/rsp", payload, qos, version)
    taken = parse_publish(packet, version)
    assert (taken.payload, taken.packet()) == (payload, packet)
    assert taken.acknowledgement() == (b"\x40\x02\0\7" if qos else b"")


@pytest.mark.parametrize("data", [b"\x30" + encoded_length(MAX_PACKET_BYTES + 1), b"\x30\xff\xff\xff\xff\xff"])
def test_a_packet_that_is_too_large_or_has_no_length_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        Splitter().feed(data)


def test_a_publish_whose_topic_is_longer_than_itself_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_publish(b"\x30\x04\x00\x09ab", 4)


def test_a_shorter_payload_makes_a_shorter_packet() -> None:
    taken = Publish(0, b"\0\1a", b"xyz", b"")
    assert taken.packet() == b"\x30\x06\0\1axyz"
