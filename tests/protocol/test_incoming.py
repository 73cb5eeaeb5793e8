"""The receiving half of a transfer alone: what it asks for and when; time is simulated."""

from __future__ import annotations

import math

import pytest

from mas_edge.protocol.artifact import (
    MAX_CHUNK,
    Bitmap,
    Chunk,
    decode_chunk,
    describe,
    encode_chunk,
    from_ranges,
)
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.transfer import (
    BROADCAST_WAIT,
    CORRUPT_PAUSE,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    START_CHUNKS,
    Incoming,
    Timeout,
)
from tests.protocol.pieces import COUNT, KIB, LARGE, MANIFEST, PER_SEGMENT, bitmap_of, chunk_of


def corrupt(index: int) -> Chunk:
    good = chunk_of(index)
    return Chunk(good.artifact_prefix, index, memoryview(bytes(len(good.data))))


def asked(incoming: Incoming, now: float) -> list[int]:
    return from_ranges(incoming.poll(now) or [], COUNT)


def test_a_pull_begins_small_and_grows_to_the_window() -> None:
    incoming = Incoming(MANIFEST, window=8 * KIB)
    now, in_flight, largest = 0.0, asked(incoming, 0.0), 0
    assert len(in_flight) == START_CHUNKS
    while in_flight:
        now += 0.01
        assert incoming.on_chunk(chunk_of(in_flight.pop(0)), now) is not None
        in_flight += asked(incoming, now)
        largest = max(largest, len(in_flight))
    assert incoming.complete
    assert largest == 8


def test_nothing_is_asked_twice_while_chunks_keep_coming() -> None:
    incoming = Incoming(MANIFEST, window=8 * KIB)
    now, everything = 0.0, asked(incoming, 0.0)
    for index in everything:  # grows while it is walked through
        now += MIN_TIMEOUT / 2
        incoming.on_chunk(chunk_of(index), now)
        everything += asked(incoming, now)
    assert sorted(everything) == list(range(COUNT))


def test_a_window_smaller_than_a_chunk_still_lets_one_through() -> None:
    assert asked(Incoming(MANIFEST, window=1), 0.0) == [0]


def test_silence_is_followed_by_an_ask_for_one_chunk_and_ever_longer_waits() -> None:
    incoming = Incoming(MANIFEST)
    asked(incoming, 0.0)
    waits, now = [], 0.0
    for _ in range(8):
        waits.append(incoming.next_poll - now)
        assert incoming.poll(math.nextafter(incoming.next_poll, 0.0)) is None
        now = incoming.next_poll
        assert asked(incoming, now) == [0]
    assert waits[:3] == [2.0, 4.0, 8.0]
    assert waits[-1] == MAX_TIMEOUT


def test_a_chunk_that_later_ones_overtook_is_asked_again_without_waiting_for_silence() -> None:
    incoming = Incoming(MANIFEST, window=4 * KIB)
    first = asked(incoming, 0.0)
    assert first == [0, 1, 2, 3]
    for index in (0, 1):
        incoming.on_chunk(chunk_of(index), 0.01)  # 2 and 3 are lost
    assert asked(incoming, 0.02) == [4, 5]
    incoming.on_chunk(chunk_of(4), 0.03)
    assert asked(incoming, 0.03) == [2]
    incoming.on_chunk(chunk_of(5), 0.04)
    assert asked(incoming, 0.04) == [3, 6]


def test_the_wait_adapts_to_a_fast_and_to_a_slow_link() -> None:
    fast, slow = Incoming(MANIFEST), Incoming(MANIFEST)
    for incoming, pace in ((fast, 0.001), (slow, 1.0)):
        for step, index in enumerate(asked(incoming, 0.0)):
            incoming.on_chunk(chunk_of(index), (step + 1) * pace)
        asked(incoming, 4 * pace)
    assert fast.next_poll - 0.004 == pytest.approx(MIN_TIMEOUT)
    assert slow.next_poll - 4.0 > 3.0


def test_the_timeout_is_that_of_rfc_6298() -> None:
    timeout = Timeout(2.0)
    timeout.sample(1.0)  # SRTT 1, RTTVAR 0.5
    assert timeout.value == pytest.approx(3.0)
    timeout.back_off()
    assert timeout.value == pytest.approx(6.0)
    timeout.sample(2.0)  # RTTVAR = 3/4 * 0.5 + 1/4 * 1, SRTT = 7/8 * 1 + 1/8 * 2
    assert timeout.value == pytest.approx(1.125 + 4 * 0.625)


def test_a_chunk_asked_for_twice_is_not_timed() -> None:
    incoming = Incoming(MANIFEST, window=KIB)
    asked(incoming, 0.0)
    asked(incoming, 2.0)  # the same chunk again, the wait is now 4 s
    incoming.on_chunk(chunk_of(0), 2.001)
    asked(incoming, 2.001)
    assert incoming.next_poll - 2.001 == pytest.approx(4.0)


def test_a_duplicate_gives_nothing_to_store() -> None:
    incoming = Incoming(MANIFEST)
    assert incoming.on_chunk(chunk_of(3), 0.0) is not None
    assert incoming.on_chunk(chunk_of(3), 0.1) is None


def test_a_corrupt_chunk_leaves_what_is_held_and_is_asked_again_soon() -> None:
    incoming = Incoming(MANIFEST, window=KIB)
    asked(incoming, 0.0)
    before = incoming.held.to_bytes()
    with pytest.raises(TransferError, match="corrupt"):
        incoming.on_chunk(corrupt(0), 0.1)
    assert incoming.held.to_bytes() == before
    assert incoming.next_poll < 0.1 + MIN_TIMEOUT
    assert asked(incoming, incoming.next_poll) == [0]


def test_chunks_that_turn_out_to_be_damaged_in_the_end_are_asked_for_again() -> None:
    incoming = Incoming(MANIFEST, broadcast=True, verify=False)
    asked(incoming, 0.0)
    for index in range(COUNT):
        assert incoming.on_chunk(corrupt(index) if index in (2, 5) else chunk_of(index), 0.1) is not None
    assert incoming.complete
    incoming.take_back([2, 5], 0.1)
    assert len(incoming.held) == COUNT - 2
    assert asked(incoming, 0.11) == [], "not at once: what damaged them may go on for a moment"
    assert asked(incoming, 0.1 + 2 * CORRUPT_PAUSE) == [2, 5]
    assert not incoming.asks_broadcast, "the broadcast has gone by"


def test_a_burst_of_corrupt_chunks_is_one_fault_not_many() -> None:
    burst = Incoming(MANIFEST, window=4 * KIB)
    for index in asked(burst, 0.0):
        with pytest.raises(TransferError):
            burst.on_chunk(corrupt(index), 0.1)
    assert burst.next_poll == pytest.approx(0.1 + CORRUPT_PAUSE)
    assert asked(burst, burst.next_poll) == [0, 1, 2, 3]


def test_a_sender_that_only_sends_corrupt_chunks_is_asked_ever_more_rarely() -> None:
    incoming = Incoming(MANIFEST, window=KIB)
    now, pauses = 0.0, []
    for _ in range(12):
        assert asked(incoming, now) == [0]
        with pytest.raises(TransferError):
            incoming.on_chunk(corrupt(0), now)
        pauses.append(incoming.next_poll - now)
        now = incoming.next_poll
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(MAX_TIMEOUT)


@pytest.mark.parametrize(
    "foreign",
    [
        decode_chunk(encode_chunk(describe(b"other", 1024), 0, b"other")),
        Chunk(bytes.fromhex(MANIFEST.artifact)[:16], COUNT, memoryview(b"x")),
    ],
    ids=["of another artifact", "beyond the last chunk"],
)
def test_a_chunk_from_elsewhere_changes_nothing(foreign: Chunk) -> None:
    incoming = Incoming(MANIFEST)
    asked(incoming, 0.0)
    before = incoming.next_poll
    with pytest.raises(TransferError):
        incoming.on_chunk(foreign, 0.1)
    assert incoming.next_poll == before
    assert incoming.poll(0.2) is None


def test_the_data_of_a_new_chunk_is_a_view_into_its_frame() -> None:
    manifest = describe(bytes(MAX_CHUNK), MAX_CHUNK)
    frame = encode_chunk(manifest, 0, bytes(MAX_CHUNK))
    data = Incoming(manifest).on_chunk(decode_chunk(frame), 0.0)
    assert data is not None
    assert data.obj is frame


def test_a_listener_asks_for_everything_once_then_waits_for_the_broadcast() -> None:
    incoming = Incoming(MANIFEST, bitmap_of(0, 5), broadcast=True)
    assert incoming.poll(10.0) == [(1, 5), (6, COUNT)]
    assert incoming.asks_broadcast
    assert incoming.poll(10.0 + 0.9 * BROADCAST_WAIT) is None
    assert incoming.next_poll == 10.0 + BROADCAST_WAIT


def test_a_listener_that_hears_nothing_pulls() -> None:
    incoming = Incoming(MANIFEST, broadcast=True, window=4 * KIB)
    incoming.poll(0.0)
    assert asked(incoming, BROADCAST_WAIT) == [0, 1, 2, 3]
    assert not incoming.asks_broadcast


def test_a_listener_stays_quiet_while_chunks_flow_also_those_it_holds() -> None:
    incoming = Incoming(MANIFEST, bitmap_of(*range(15)), broadcast=True)
    incoming.poll(0.0)
    now = 0.0
    for index in range(COUNT - 1):  # it holds the first 15; the last is lost
        now += 0.9 * MIN_TIMEOUT
        incoming.on_chunk(chunk_of(index), now)
        assert incoming.poll(now) is None
    assert asked(incoming, incoming.next_poll) == [COUNT - 1]
    assert not incoming.asks_broadcast


def test_a_new_connection_asks_again_at_once() -> None:
    incoming = Incoming(MANIFEST, broadcast=True, window=4 * KIB)
    incoming.poll(0.0)
    incoming.restart()
    assert incoming.next_poll <= 0.1
    assert asked(incoming, 0.1) == [0, 1, 2, 3]
    assert not incoming.asks_broadcast


def test_a_new_connection_ends_the_back_off_of_the_old_one() -> None:
    incoming = Incoming(MANIFEST)
    for _ in range(6):
        incoming.poll(max(incoming.next_poll, 0.0))
    now = incoming.next_poll
    incoming.restart()
    incoming.poll(now)
    assert incoming.next_poll - now == pytest.approx(2.0)


def test_a_connection_renewed_before_the_first_ask_still_listens() -> None:
    incoming = Incoming(MANIFEST, broadcast=True)
    incoming.restart()
    incoming.poll(0.0)
    assert incoming.asks_broadcast


def test_a_complete_artifact_asks_for_nothing() -> None:
    for incoming in (Incoming(MANIFEST, bitmap_of(*range(COUNT)), broadcast=True), Incoming(describe(b""))):
        assert incoming.complete
        assert incoming.poll(0.0) is None
        assert incoming.next_poll == math.inf


def test_what_is_held_is_copied_and_must_fit() -> None:
    held = bitmap_of(1)
    Incoming(MANIFEST, held).on_chunk(chunk_of(2), 0.0)
    assert 2 not in held
    with pytest.raises(TransferError, match="does not fit"):
        Incoming(MANIFEST, Bitmap(COUNT + 8))


def test_a_stalled_transfer_says_so_in_words() -> None:
    incoming = Incoming(MANIFEST, bitmap_of(0))
    incoming.require_progress(1e9, 60.0)  # nothing was asked yet
    asked(incoming, 100.0)
    incoming.on_chunk(chunk_of(1), 130.0)
    incoming.require_progress(190.0, 60.0)
    with pytest.raises(TransferError, match=f"for 61 s, 2 of {COUNT} are here: check the connection"):
        incoming.require_progress(191.0, 60.0)


def large_chunk(index: int) -> Chunk:
    return decode_chunk(encode_chunk(LARGE, index, bytes(MAX_CHUNK)))


def test_a_listener_asks_for_one_segment_after_another_as_chunks_come() -> None:
    incoming = Incoming(LARGE, broadcast=True)
    assert incoming.poll(0.0) == [(0, PER_SEGMENT)]
    asked, came, most = PER_SEGMENT, 0, 0
    while not incoming.complete:
        most = max(most, asked - came)
        incoming.on_chunk(large_chunk(came), 0.01 * came)
        came += 1
        for start, stop in incoming.poll(0.01 * came) or []:
            assert start == asked
            assert incoming.asks_broadcast
            asked = stop
    assert asked == 5 * PER_SEGMENT
    assert most <= 1.5 * PER_SEGMENT


def test_a_listener_that_holds_the_beginning_asks_for_the_segment_that_it_lacks() -> None:
    held = Bitmap(5 * PER_SEGMENT)
    for index in range(3 * PER_SEGMENT + 1):
        held.add(index)
    incoming = Incoming(LARGE, held, broadcast=True)
    assert incoming.poll(0.0) == [(3 * PER_SEGMENT + 1, 4 * PER_SEGMENT)]
