"""Both halves of a transfer against each other through a network that misbehaves; time is simulated."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.protocol.artifact import Bitmap, chunk_span, decode_chunk, from_ranges
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.transfer import START_CHUNKS, Incoming, Outgoing, Send
from tests.protocol.pieces import COUNT, DATA, KIB, MANIFEST, Ranges, bitmap_of, frame_of


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
