"""The transfer machines, alone and against each other through a network that misbehaves; time is simulated."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.protocol.artifact import (
    MAX_CHUNK,
    Bitmap,
    Chunk,
    chunk_count,
    chunk_span,
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
    SEGMENT_BYTES,
    START_CHUNKS,
    Incoming,
    Outgoing,
    Send,
    Timeout,
    segment_chunks,
)

Ranges = list[tuple[int, int]]
DATA = random.Random(1).randbytes(20 * 1024 + 100)  # 21 chunks, the last one short
MANIFEST = describe(DATA, 1024)
COUNT = chunk_count(MANIFEST)
KIB = 1024


def frame_of(index: int) -> bytes:
    return encode_chunk(MANIFEST, index, DATA[chunk_span(MANIFEST, index)])


def chunk_of(index: int) -> Chunk:
    return decode_chunk(frame_of(index))


def corrupt(index: int) -> Chunk:
    good = chunk_of(index)
    return Chunk(good.artifact_prefix, index, memoryview(bytes(len(good.data))))


def bitmap_of(*indices: int) -> Bitmap:
    bitmap = Bitmap(COUNT)
    for index in indices:
        bitmap.add(index)
    return bitmap


def asked(incoming: Incoming, now: float) -> list[int]:
    return from_ranges(incoming.poll(now) or [], COUNT)


# --- the receiver


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


LARGE = describe(bytes(5 * SEGMENT_BYTES), MAX_CHUNK)
PER_SEGMENT = segment_chunks(LARGE)


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


def test_a_segment_is_broadcast_when_all_have_come_so_far_and_no_sooner() -> None:
    outgoing = Outgoing(LARGE, audience=frozenset({"a", "b"}))
    second = [(PER_SEGMENT, 2 * PER_SEGMENT)]
    assert outgoing.on_want("a", [(0, PER_SEGMENT)], True, 0.0) == []
    assert [send.receiver for send in outgoing.on_want("b", [(0, PER_SEGMENT)], True, 0.1)] == [None]
    assert outgoing.on_want("a", second, True, 0.2) == []
    assert outgoing.next_poll == pytest.approx(0.2 + 0.25)
    [send] = outgoing.on_want("b", second, True, 0.3)
    assert (send.receiver, len(send.indices)) == (None, PER_SEGMENT)


def test_who_is_further_on_or_pulls_is_not_waited_for() -> None:
    outgoing = Outgoing(LARGE, audience=frozenset({"a", "b", "c", "d"}))
    outgoing.on_want("a", [(4 * PER_SEGMENT, 5 * PER_SEGMENT)], True, 0.0)  # went on after a restart
    outgoing.on_want("b", [(7, 8)], False, 0.0)
    outgoing.on_want("c", [(0, PER_SEGMENT)], True, 0.0)
    [send] = outgoing.on_want("d", [(0, PER_SEGMENT)], True, 0.0)
    assert (send.receiver, send.indices) == (None, tuple(range(PER_SEGMENT)))


# --- the sender

ALL: Ranges = [(0, COUNT)]
THREE = frozenset({"a", "b", "c"})


def test_the_union_is_broadcast_once_when_all_of_the_audience_have_asked() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    assert outgoing.on_want("a", [(0, 2)], True, 0.0) == []
    assert outgoing.on_want("b", [(1, 3)], True, 0.1) == []
    assert outgoing.on_want("c", [(20, 21)], True, 0.2) == [Send(None, (0, 1, 2, 20))]
    assert (outgoing.broadcast_bytes, outgoing.unicast_bytes) == (3 * 1024 + 100, 0)
    assert outgoing.next_poll == math.inf


def test_the_first_want_waits_only_so_long() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE, gather_s=0.25)
    outgoing.on_want("a", [(0, 2)], True, 10.0)
    outgoing.on_want("b", [(2, 3)], True, 10.2)
    assert outgoing.poll(10.24) == []
    assert outgoing.next_poll == 10.25
    assert outgoing.poll(10.25) == [Send(None, (0, 1, 2))]
    assert outgoing.poll(11.0) == []


def test_one_that_needs_nothing_is_not_waited_for() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_held("a")
    outgoing.on_want("b", [(0, 1)], True, 0.0)
    assert outgoing.on_want("c", [(1, 2)], True, 0.1) == [Send(None, (0, 1))]


def test_the_last_word_may_be_that_nothing_is_needed() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("b", [(0, 1)], True, 0.0)
    outgoing.on_want("c", [(1, 2)], True, 0.1)
    outgoing.on_held("a")
    assert outgoing.next_poll == -math.inf
    assert outgoing.poll(0.1) == [Send(None, (0, 1))]


def test_an_empty_want_is_the_word_that_nothing_is_needed() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b"}))
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    assert outgoing.on_want("b", [], True, 0.1) == [Send("a", (0,))]


def test_a_single_asker_is_answered_alone() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a"}))
    assert outgoing.on_want("a", ALL, True, 0.0) == [Send("a", tuple(range(COUNT)))]
    assert (outgoing.broadcast_bytes, outgoing.unicast_bytes) == (0, len(DATA))


def test_after_a_lone_answer_those_who_come_later_can_still_share_a_broadcast() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", ALL, True, 0.0)
    assert outgoing.poll(1.0) == [Send("a", tuple(range(COUNT)))]
    outgoing.on_want("b", [(0, 1)], True, 5.0)
    assert outgoing.on_want("c", [(1, 2)], True, 5.1) == [Send(None, (0, 1))]


def test_wants_after_the_broadcast_get_exactly_what_they_ask_for() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b"}))
    outgoing.on_want("a", ALL, True, 0.0)
    outgoing.on_want("b", ALL, True, 0.0)
    assert outgoing.on_want("b", [(3, 5)], False, 1.0) == [Send("b", (3, 4))]
    assert outgoing.on_want("late", [(7, 8)], True, 1.0) == [Send("late", (7,))]


def test_there_is_no_second_broadcast_however_many_come_late() -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a", "b", "c", "d"}))
    outgoing.on_want("a", ALL, True, 0.0)
    outgoing.on_want("b", ALL, True, 0.0)
    assert outgoing.poll(1.0) == [Send(None, tuple(range(COUNT)))]
    assert outgoing.on_want("c", ALL, True, 1.0) == [Send("c", tuple(range(COUNT)))]
    assert outgoing.on_want("d", [(0, 1)], True, 1.0) == [Send("d", (0,))]
    assert outgoing.broadcast_bytes == len(DATA)


def test_one_that_asked_and_then_holds_it_after_all_is_sent_nothing() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    outgoing.on_held("a")
    assert outgoing.next_poll == math.inf
    outgoing.on_want("b", [(1, 2)], True, 5.0)
    assert outgoing.poll(6.0) == [Send("b", (1,))]


def test_a_pull_is_answered_while_a_broadcast_is_gathered() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE)
    outgoing.on_want("a", [(0, 1)], True, 0.0)
    assert outgoing.on_want("b", [(4, 5)], False, 0.1) == [Send("b", (4,))]
    assert outgoing.on_want("c", [(1, 2)], True, 0.1) == [Send(None, (0, 1))]


def test_a_want_repeated_while_the_broadcast_is_pending_is_merged() -> None:
    outgoing = Outgoing(MANIFEST, audience=THREE, gather_s=1.0)
    for now in (0.0, 0.5, 0.9):
        assert outgoing.on_want("a", [(0, 3)], True, now) == []
    outgoing.on_want("b", [(0, 3)], True, 0.95)
    assert outgoing.poll(1.0) == [Send(None, (0, 1, 2))]


def test_an_upload_has_no_audience_and_answers_at_once() -> None:
    outgoing = Outgoing(MANIFEST)
    assert outgoing.on_want("orchestrator", [(2, 4)], False, 0.0) == [Send("orchestrator", (2, 3))]
    assert outgoing.unicast_bytes == 2 * KIB


@pytest.mark.parametrize("ranges", [[(0, COUNT + 1)], [(2, 1)], [(-1, 1)], [(0, 2), (1, 3)]])
def test_a_want_that_does_not_fit_the_artifact_is_refused_and_forgotten(ranges: Ranges) -> None:
    outgoing = Outgoing(MANIFEST, audience=frozenset({"a"}))
    with pytest.raises(TransferError, match="range"):
        outgoing.on_want("a", ranges, True, 0.0)
    assert outgoing.poll(10.0) == []


# --- both, through a network that misbehaves


@dataclass
class Faults:
    """How often a message meets which fate, each from 0 to 1, and how long it takes, in seconds."""

    loss: float = 0.0
    duplication: float = 0.0
    truncation: float = 0.0
    corruption: float = 0.0
    delay: float = 0.01
    jitter: float = 0.0


faults = st.builds(
    Faults,
    loss=st.sampled_from([0.0, 0.05, 0.4]),
    duplication=st.sampled_from([0.0, 0.3]),
    truncation=st.sampled_from([0.0, 0.2]),
    corruption=st.sampled_from([0.0, 0.2]),
    delay=st.sampled_from([0.001, 0.1, 2.5]),
    jitter=st.sampled_from([0.0, 0.05, 3.0]),
)


@dataclass
class Receiver:
    """One end of a transfer with its memory in place of a disk."""

    incoming: Incoming
    stored: bytearray = field(default_factory=lambda: bytearray(len(DATA)))
    refused: int = 0

    def take(self, frame: bytes, now: float) -> None:
        try:
            chunk = decode_chunk(frame)
            data = self.incoming.on_chunk(chunk, now)
        except TransferError:
            self.refused += 1
            return
        if data is not None:
            self.stored[chunk_span(MANIFEST, chunk.index)] = data


class Network:
    """A sender and its receivers on one simulated clock; wants and frames meet the same faults."""

    def __init__(self, receivers: dict[str, Receiver], outgoing: Outgoing, fate: Faults, seed: int) -> None:
        self.receivers, self.outgoing, self.fate = receivers, outgoing, fate
        self.random = random.Random(seed)
        self.now = 0.0
        self.broadcasts = 0
        self.asked: dict[str, list[int]] = {name: [] for name in receivers}
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0

    def run(self, until: float) -> None:
        """Go from event to event until all is complete, or the time is over."""
        while not all(receiver.incoming.complete for receiver in self.receivers.values()):
            self.poll()
            polls = [self.outgoing.next_poll, *(r.incoming.next_poll for r in self.receivers.values())]
            event = self.events[0][0] if self.events else math.inf
            self.now = max(self.now, min(event, *polls))
            if self.now > until:
                return
            while self.events and self.events[0][0] <= self.now:
                heapq.heappop(self.events)[2]()

    def poll(self) -> None:
        self.dispatch(self.outgoing.poll(self.now))
        for name, receiver in self.receivers.items():
            ranges = receiver.incoming.poll(self.now)
            if ranges is not None:
                self.asked[name] += from_ranges(ranges, COUNT)
                self.deliver_want(name, ranges, receiver.incoming.asks_broadcast)

    def deliver_want(self, name: str, ranges: Ranges, broadcast: bool) -> None:
        def arrive() -> None:
            self.dispatch(self.outgoing.on_want(name, ranges, broadcast, self.now))

        for _ in range(self.copies()):
            self.later(arrive)

    def dispatch(self, sends: list[Send]) -> None:
        for send in sends:
            self.broadcasts += send.receiver is None
            for name in [send.receiver] if send.receiver else list(self.receivers):
                for index in send.indices:
                    for _ in range(self.copies()):
                        self.deliver_frame(self.receivers[name], frame_of(index))

    def deliver_frame(self, receiver: Receiver, frame: bytes) -> None:
        if self.random.random() < self.fate.truncation:
            frame = frame[: self.random.randrange(len(frame))]
        if self.random.random() < self.fate.corruption and frame:
            place = self.random.randrange(len(frame))
            frame = frame[:place] + bytes([frame[place] ^ 0x10]) + frame[place + 1 :]
        self.later(lambda: receiver.take(frame, self.now))

    def copies(self) -> int:
        return (self.random.random() >= self.fate.loss) + (self.random.random() < self.fate.duplication)

    def later(self, action: Callable[[], None]) -> None:
        self.serial += 1
        arrival = self.now + self.fate.delay + self.fate.jitter * self.random.random()
        heapq.heappush(self.events, (arrival, self.serial, action))


held_sets = st.sets(st.integers(0, COUNT - 1)).map(lambda indices: bitmap_of(*indices))


@settings(max_examples=60, deadline=None)
@given(
    faults,
    st.lists(held_sets, min_size=1, max_size=3),
    st.booleans(),
    st.sampled_from([3, 8, 100]),
    st.integers(0, 10**6),
)
def test_any_order_loss_duplication_truncation_and_corruption_ends_with_equal_bytes(
    fate: Faults, held: list[Bitmap], broadcast: bool, per_segment: int, seed: int
) -> None:
    segment = per_segment * KIB
    receivers = {}
    for number, bitmap in enumerate(held):
        receiver = Receiver(Incoming(MANIFEST, bitmap, broadcast=broadcast, window=6 * KIB, segment=segment))
        for index in set(range(COUNT)) - set(bitmap.missing()):
            receiver.stored[chunk_span(MANIFEST, index)] = DATA[chunk_span(MANIFEST, index)]
        receivers[f"d{number}"] = receiver
    outgoing = Outgoing(MANIFEST, audience=frozenset(receivers), segment=segment)
    network = Network(receivers, outgoing, fate, seed)
    network.run(until=3600.0)
    assert [bytes(receiver.stored) == DATA for receiver in receivers.values()] == [True] * len(receivers)
    assert network.broadcasts <= -(-COUNT // per_segment)
    assert outgoing.broadcast_bytes <= len(DATA)


@settings(max_examples=15, deadline=None)
@given(st.booleans(), st.integers(0, 10**6))
def test_a_network_that_drops_everything_ends_in_a_clear_error_after_few_asks(broadcast: bool, seed: int) -> None:
    receiver = Receiver(Incoming(MANIFEST, broadcast=broadcast))
    network = Network({"d": receiver}, Outgoing(MANIFEST), Faults(loss=1.0), seed)
    network.run(until=61.0)
    assert len(network.asked["d"]) <= COUNT + START_CHUNKS + 10
    with pytest.raises(TransferError, match="no new chunk"):
        receiver.incoming.require_progress(network.now, 60.0)


def test_through_a_good_network_each_byte_is_broadcast_once_to_any_number_of_receivers() -> None:
    receivers = {f"d{number}": Receiver(Incoming(MANIFEST, broadcast=True)) for number in range(20)}
    outgoing = Outgoing(MANIFEST, audience=frozenset(receivers))
    network = Network(receivers, outgoing, Faults(), seed=0)
    network.run(until=10.0)
    assert all(bytes(receiver.stored) == DATA for receiver in receivers.values())
    assert (network.broadcasts, outgoing.broadcast_bytes, outgoing.unicast_bytes) == (1, len(DATA), 0)


def test_a_pull_over_a_slow_link_is_not_flooded_with_repeats() -> None:
    receiver = Receiver(Incoming(MANIFEST, window=8 * KIB))
    outgoing = Outgoing(MANIFEST)
    network = Network({"d": receiver}, outgoing, Faults(delay=4.0), seed=0)  # a round trip of 8 s, no loss
    network.run(until=600.0)
    assert bytes(receiver.stored) == DATA
    assert outgoing.unicast_bytes < 1.5 * len(DATA)


@settings(max_examples=40, deadline=None)
@given(faults, st.floats(0.0, 20.0), st.integers(0, 10**6))
def test_a_receiver_that_crashed_at_any_point_asks_only_for_what_it_misses(
    fate: Faults, crash_at: float, seed: int
) -> None:
    before = Receiver(Incoming(MANIFEST, window=6 * KIB))
    Network({"d": before}, Outgoing(MANIFEST), fate, seed).run(until=crash_at)
    held = before.incoming.held
    after = Receiver(Incoming(MANIFEST, held, window=6 * KIB), before.stored)
    network = Network({"d": after}, Outgoing(MANIFEST), fate, seed + 1)
    network.run(until=3600.0)
    assert bytes(after.stored) == DATA
    assert not set(network.asked["d"]) - set(held.missing())
