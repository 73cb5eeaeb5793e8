from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.edge import packets
from device_runtime.edge.packets import NotMqtt, Packet, Reader

TOPICS = st.text(min_size=1, max_size=40)
PAYLOADS = st.one_of(st.binary(max_size=300), st.integers(0, 5 * packets.HEAD_BYTES))  # a number: so many zeros


def received(stream: bytes, sizes: list[int]) -> list[Packet]:
    """What a reader makes of a stream that comes in pieces of these sizes, again and again."""
    reader, found, turn = Reader(), [], 0
    while stream:
        room = reader.room()
        assert room
        count = min(len(room), len(stream), sizes[turn % len(sizes)])
        room[:count] = stream[:count]
        found += reader.advance(count)
        stream, turn = stream[count:], turn + 1
    return found


@given(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=6), st.lists(st.integers(1, 70_000), min_size=1), st.booleans())
def test_messages_come_out_whole_however_the_stream_is_cut(
    drawn: list[tuple[str, bytes | int]], sizes: list[int], five: bool
) -> None:
    messages = [(topic, bytes(data)) for topic, data in drawn]
    stream = b"".join(packets.publish_head(topic, len(data), five=five) + data for topic, data in messages)
    found = [packets.read_publish(packet, five) for packet in received(stream, sizes)]
    assert [(each.topic.decode(), bytes(each.payload), each.retained) for each in found] == [
        (topic, data, False) for topic, data in messages
    ]


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), min_size=1), st.booleans())
def test_bytes_of_any_kind_end_in_packets_or_a_clear_word(stream: bytes, sizes: list[int], five: bool) -> None:
    try:
        for packet in received(stream, sizes):
            for read in (packets.read_publish, packets.read_connack, packets.read_suback):
                try:
                    read(packet, five)
                except NotMqtt:
                    continue
    except NotMqtt:
        return


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        pytest.param(b"\x30\xff\xff\xff\x7f", "a packet of 268435455 bytes", id="a quarter of a gigabyte announced"),
        pytest.param(b"\x30\xff\xff\xff\xff", "more than four bytes", id="an endless length"),
    ],
)
def test_a_length_that_is_not_ours_is_refused_before_any_memory_is_taken(stream: bytes, words: str) -> None:
    with pytest.raises(NotMqtt, match=words):
        received(stream, [1])


@pytest.mark.parametrize(
    ("body", "five", "code", "maximum"),
    [
        pytest.param(b"\x00\x00\x00", True, 0, None, id="accepted"),
        pytest.param(b"\x00\x00\x08\x27\x00\x01\x00\x00\x13\x00\x05", True, 0, 65536, id="with a largest packet"),
        pytest.param(b"\x00\x00\x0b\x26\x00\x01a\x00\x02bc\x21\x00\x14", True, 0, None, id="a user property before"),
        pytest.param(b"\x00\x87\x00", True, 0x87, None, id="refused"),
        pytest.param(b"\x00\x01", True, 0x84, None, id="a broker that only knows 3.1.1"),
        pytest.param(b"\x00\x04", False, 0x86, None, id="bad credentials in 3.1.1"),
    ],
)
def test_the_answer_to_a_connect_is_read(body: bytes, five: bool, code: int, maximum: int | None) -> None:
    answer = packets.read_connack(Packet(packets.CONNACK, bytearray(body)), five)
    assert (answer.code, answer.maximum_packet) == (code, maximum)


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x00\x00\x09\x27\x00", b"\x00\x00\x02\x7f\x00", b"\x00\x00\x02\x27\x00"]
)
def test_a_malformed_answer_is_refused(body: bytes) -> None:
    with pytest.raises(NotMqtt):
        packets.read_connack(Packet(packets.CONNACK, bytearray(body)), five=True)


@pytest.mark.parametrize(
    ("packet", "five"),
    [
        pytest.param(Packet(0x32, bytearray(b"\x00\x01t\x00\x01")), True, id="QoS 1, which nobody asked for"),
        pytest.param(Packet(0x30, bytearray(b"\x00\x05t")), False, id="a topic beyond the end"),
        pytest.param(Packet(0x30, bytearray(b"\x00\x01t\x05a")), True, id="properties beyond the end"),
        pytest.param(Packet(0x30, bytearray(b"")), True, id="nothing"),
    ],
)
def test_a_malformed_message_is_refused(packet: Packet, five: bool) -> None:
    with pytest.raises(NotMqtt):
        packets.read_publish(packet, five)
