"""The transfer of one artifact as two state machines: no clock, no sockets, no disk.

The receiver drives. ``Incoming`` says which chunks to ask for and when; ``Outgoing`` says which chunks to send to whom.
The owner carries the wants and the frames, stores the chunks, and passes the time in (monotonic seconds).

A download may listen first: it asks with ``broadcast`` for one segment after another, each when half of the one before
has come, while chunks flow on the broadcast topic; after silence it pulls what it still misses. So a broadcast goes no
faster than its listeners, and neither the broker nor a device holds more than a segment and a half of it. An upload
only pulls. Pulling is bounded by a window, grows from a few chunks to the whole window, and falls back to one chunk
after silence, so that a slow link is not flooded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from mas_edge.protocol.artifact import (
    Bitmap,
    Chunk,
    check_data,
    check_length,
    check_place,
    chunk_count,
    chunk_span,
    from_ranges,
    to_ranges,
)
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest

WINDOW_BYTES = 2 * 1024 * 1024  # 8 of the largest chunks in flight: half of them are asked for while the others come
SEGMENT_BYTES = 2 * 1024 * 1024  # of a broadcast: some milliseconds of a fast network, small in any memory
START_CHUNKS = 4  # the first ask of a pull, before the link is known
START_BYTES = 512 * 1024  # ... of large chunks fewer: two of the largest
BROADCAST_WAIT = 2.0  # seconds until the broadcast must have begun: several times what the sender gathers for
INITIAL_TIMEOUT = 2.0  # seconds of silence before anything was measured
MIN_TIMEOUT = 0.5  # seconds; a busy single-board computer pauses this long without anything being lost
MAX_TIMEOUT = 15.0  # seconds between asks into a dead link: rare enough to be free, soon enough after it comes back
CORRUPT_PAUSE = 0.05  # seconds before a corrupt chunk is asked for again, doubled each time in a row


class Timeout:
    """How long to wait: RFC 6298 section 2, RTO = SRTT + 4 RTTVAR, between MIN_TIMEOUT and MAX_TIMEOUT."""

    def __init__(self, initial: float) -> None:
        self.value = initial
        self._measured = initial
        self._mean: float | None = None
        self._deviation = 0.0

    def sample(self, seconds: float) -> None:
        """Take one measured duration in; this also ends a back-off."""
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
        else:
            self._deviation += (abs(self._mean - seconds) - self._deviation) / 4
            self._mean += (seconds - self._mean) / 8
        self._measured = min(max(self._mean + 4 * self._deviation, MIN_TIMEOUT), MAX_TIMEOUT)
        self.value = self._measured

    def back_off(self) -> None:
        """Double the wait after silence (RFC 6298 section 5.5)."""
        self.value = min(2 * self.value, MAX_TIMEOUT)

    def restore(self) -> None:
        """End a back-off whose cause is known to be gone."""
        self.value = self._measured


class Ask(NamedTuple):
    """A chunk that was asked for and has not come."""

    serial: int  # which want it was in
    at: float
    first: bool  # only a chunk asked for once may be timed (Karn's rule)


class Incoming:
    """The receiver of one artifact.

    Args:
        manifest: what is received; checked by ``check_manifest`` before.
        held: the chunks that are there already; copied.
        broadcast: listen on the broadcast topic before pulling.
        window: bytes that may be asked for and not received, when pulling; at least one chunk always may.
        segment: bytes that are asked for at a time, when listening; the same on both sides.
        verify: check the digest of each chunk as it comes. Without it whoever keeps the chunks checks the whole, and
            gives back the ones that are damaged (``take_back``): every byte is hashed once, not twice.

    Attributes:
        held: the chunks that have come.
        stalled_since: when the last new chunk came, or the first ask went out; infinity before that.
    """

    def __init__(
        self,
        manifest: Manifest,
        held: Bitmap | None = None,
        *,
        broadcast: bool = False,
        window: int = WINDOW_BYTES,
        segment: int = SEGMENT_BYTES,
        verify: bool = True,
    ) -> None:
        self.manifest = manifest
        self._verify = verify
        count = chunk_count(manifest)
        self.held = Bitmap.from_bytes(bytes(-(-count // 8)) if held is None else held.to_bytes(), count)
        self._limit = max(1, window // manifest.chunk_size)
        self._allowed = self._first = min(START_CHUNKS, max(1, START_BYTES // manifest.chunk_size), self._limit)
        self._flight: dict[int, Ask] = {}
        self._asked = Bitmap(count)
        self._serial = 0
        self._listening = broadcast
        self._segment = segment_chunks(manifest, segment)
        self._asked_until, self._owed = 0, 0  # listening: where the last segment ended, what of them has not come
        self._last_arrival: float | None = None
        self._waiting_since: float | None = None  # the last ask or arrival; None before the first ask
        self._not_before = -math.inf
        self._corrupt_in_a_row = 0
        self._gap = Timeout(BROADCAST_WAIT)
        self._answer = Timeout(INITIAL_TIMEOUT)
        self.stalled_since = math.inf

    @property
    def complete(self) -> bool:
        """Whether every chunk has come."""
        return self.held.complete

    @property
    def begun(self) -> bool:
        """Whether anything was asked for yet."""
        return self._waiting_since is not None

    @property
    def asks_broadcast(self) -> bool:
        """Whether what ``poll`` just returned is to be sent with ``broadcast=True``: read it after ``poll``."""
        return self._listening

    @property
    def next_poll(self) -> float:
        """The time from which ``poll`` may have something; infinity when complete, minus infinity for at once."""
        if self.complete:
            return math.inf
        if self._waiting_since is None:
            return -math.inf
        if self._listening:
            return -math.inf if self._is_segment_due() else self._waiting_since + self._gap.value
        if self._room():
            return self._not_before
        return self._waiting_since + self._answer.value

    def poll(self, now: float) -> list[tuple[int, int]] | None:
        """The ranges to ask for now, or None when there is nothing to ask."""
        if self.complete:
            return None
        if not self._listening:
            return self._pull(now)
        if self._waiting_since is None:
            self._begin(now)
            return self._ask_segment()
        if now >= self._waiting_since + self._gap.value:
            self._listening = False
            return self._pull(now)
        return self._ask_segment() if self._is_segment_due() else None

    def _is_segment_due(self) -> bool:
        """Whether half of the last segment has come, and another one is missing."""
        return 2 * self._owed <= self._segment and self._owed < self.held.count - len(self.held)

    def _ask_segment(self) -> list[tuple[int, int]]:
        missing = [index for index in self.held.missing() if index >= self._asked_until]
        self._asked_until = (missing[0] // self._segment + 1) * self._segment
        asked = [index for index in missing if index < self._asked_until]
        self._owed += len(asked)
        return to_ranges(asked)

    def on_chunk(self, chunk: Chunk, now: float) -> memoryview | None:
        """Return the data of a new chunk, to be stored at its span, or None for one that is held already.

        Raises:
            TransferError: it is of another artifact, or corrupt. A corrupt one is asked for again soon.
        """
        check_place(self.manifest, chunk)
        self._heard(now)
        if chunk.index in self.held:
            return None
        try:
            check_length(self.manifest, chunk.index, chunk.data)
            if self._verify:
                check_data(self.manifest, chunk.index, chunk.data)
        except TransferError:
            self._drop_corrupt(chunk.index, now)
            raise
        self._accept(chunk.index, now)
        return chunk.data

    def take_back(self, indices: Sequence[int], now: float) -> None:
        """These chunks turned out to be damaged: they are missing again, and asked for again soon."""
        for index in indices:
            self.held.discard(index)
            self._drop_corrupt(index, now)
        self._listening = False  # a broadcast comes by once

    def restart(self) -> None:
        """The connection is a new one: what was in flight is lost, so ask for it at once."""
        if self._waiting_since is not None:
            self._listening = False
        self._flight.clear()
        self._allowed = self._first
        self._answer.restore()
        self._not_before = -math.inf

    def require_progress(self, now: float, patience_s: float) -> None:
        """Raise TransferError if no new chunk has come for ``patience_s`` seconds."""
        silence = now - self.stalled_since
        if not self.complete and silence > patience_s:
            message = (
                f"no new chunk of artifact {self.manifest.artifact[:12]} for {silence:.0f} s, "
                f"{len(self.held)} of {self.held.count} are here: check the connection to the broker and that the "
                "other side runs; what is here is kept and the next attempt goes on from it"
            )
            raise TransferError(message)

    def _begin(self, now: float) -> None:
        self._waiting_since = now
        self.stalled_since = min(self.stalled_since, now)

    def _room(self) -> int:
        """How many chunks may be asked for: none until half the window is free, so that wants stay few."""
        free = self._allowed - len(self._flight)
        worth_it = not self._flight or 2 * free >= self._allowed
        return min(free, self.held.count - len(self.held) - len(self._flight)) if worth_it else 0

    def _pull(self, now: float) -> list[tuple[int, int]] | None:
        if self._waiting_since is None:
            self._begin(now)
        elif self._flight and now >= self._waiting_since + self._answer.value:
            self._flight.clear()
            self._allowed = 1
            self._answer.back_off()
        room = self._room()
        if now < self._not_before or room <= 0:
            return None
        indices = [index for index in self.held.missing() if index not in self._flight][:room]
        if not self._flight:
            self._waiting_since = now
        self._serial += 1
        for index in indices:
            self._flight[index] = Ask(self._serial, now, index not in self._asked)
            self._asked.add(index)
        return to_ranges(indices)

    def _heard(self, now: float) -> None:
        """A duplicate counts too: while a broadcast goes through what is held here, the rest is still to come."""
        if not self._listening:
            return
        if self._last_arrival is not None:
            self._gap.sample(now - self._last_arrival)
        self._last_arrival = now
        if self._waiting_since is not None:
            self._waiting_since = now

    def _accept(self, index: int, now: float) -> None:
        self.held.add(index)
        self._owed -= index < self._asked_until
        self.stalled_since = now
        self._corrupt_in_a_row, self._not_before = 0, -math.inf
        if self._waiting_since is not None:
            self._waiting_since = now
        ask = self._flight.pop(index, None)
        if ask is None:
            return
        self._allowed = min(self._allowed + 1, self._limit)
        if ask.first:
            self._answer.sample(now - ask.at)
            self._drop_overtaken(ask.serial)

    def _drop_overtaken(self, serial: int) -> None:
        """Chunks keep their order through a broker: what an earlier want left out will not come."""
        lost = [index for index, ask in self._flight.items() if ask.serial < serial]
        for index in lost:
            del self._flight[index]
        if lost:
            self._allowed = max(1, self._allowed // 2)

    def _drop_corrupt(self, index: int, now: float) -> None:
        self._flight.pop(index, None)
        if now >= self._not_before:  # the rest of a corrupt burst does not make the pause longer
            self._not_before = now + min(CORRUPT_PAUSE * 2.0 ** min(self._corrupt_in_a_row, 10), MAX_TIMEOUT)
            self._corrupt_in_a_row += 1


class Send(NamedTuple):
    """Chunks to send now: to one receiver, or to all on the broadcast topic (None)."""

    receiver: str | None
    indices: tuple[int, ...]


class _Gathering:
    """The wants of one segment that wait for each other."""

    def __init__(self) -> None:
        self.pending: dict[str, set[int]] = {}
        self.by = math.inf  # when it waits no longer
        self.done = False  # it was broadcast

    def add(self, receiver: str, indices: Sequence[int], by: float) -> None:
        if not self.pending:
            self.by = by
        self.pending.setdefault(receiver, set()).update(indices)


class Outgoing:
    """The sender of one artifact; broadcasts a segment at most once, and answers other wants with just what they ask.

    Args:
        manifest: what is sent.
        audience: the receivers that are expected to want it, or to say that they hold it. Nobody for an upload.
        gather_s: how long the first want of a segment waits for the others, in seconds.
        segment: bytes that are broadcast at a time; the same on both sides.

    Attributes:
        broadcast_bytes: data handed out for broadcast so far, without frame headers.
        unicast_bytes: data handed out for single receivers so far, without frame headers.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        audience: frozenset[str] = frozenset(),
        gather_s: float = 0.25,
        segment: int = SEGMENT_BYTES,
    ) -> None:
        self.manifest = manifest
        self.audience = audience
        self.broadcast_bytes = 0
        self.unicast_bytes = 0
        self._gather_s = gather_s
        self._segment = segment_chunks(manifest, segment)
        self._gathering = [_Gathering() for _ in range(-(-chunk_count(manifest) // self._segment))]
        self._reached: dict[str, float] = {}  # by receiver, the last segment that it has spoken for

    def on_want(self, receiver: str, ranges: Sequence[tuple[int, int]], broadcast: bool, now: float) -> list[Send]:
        """Take a want in and return what to send because of it.

        Raises:
            TransferError: the ranges do not fit the artifact.
        """
        indices = from_ranges(ranges, chunk_count(self.manifest))
        if not broadcast or not indices:
            self.on_held(receiver)  # it waits for nobody: it pulls, or needs nothing
            at_once = indices
        else:
            at_once = self._gather(receiver, indices, now)
        return [*([self._unicast(receiver, at_once)] if at_once else []), *self.poll(now)]

    def _gather(self, receiver: str, indices: Sequence[int], now: float) -> list[int]:
        """Let wants wait for others of their segment; returns those whose segment was broadcast before."""
        late = []
        for number, group in groupby(indices, lambda index: index // self._segment):
            segment, wanted = self._gathering[number], list(group)
            self._reached[receiver] = max(self._reached.get(receiver, 0.0), number)
            if segment.done:
                late += wanted
            else:
                segment.add(receiver, wanted, now + self._gather_s)
        return late

    def on_held(self, receiver: str) -> None:
        """``receiver`` needs nothing; ``poll`` afterwards, it may have been the last one waited for."""
        self._reached[receiver] = math.inf
        for segment in self._gathering:
            segment.pending.pop(receiver, None)

    @property
    def next_poll(self) -> float:
        """The time from which ``poll`` has something; infinity for never, minus infinity for at once."""
        return min((self._due(number) for number in range(len(self._gathering))), default=math.inf)

    def _due(self, number: int) -> float:
        """When the gathered wants of a segment are answered: all of the audience have spoken, or had their time."""
        segment = self._gathering[number]
        if not segment.pending:
            return math.inf
        spoken = all(self._reached.get(receiver, -1.0) >= number for receiver in self.audience)
        return -math.inf if spoken else segment.by

    def poll(self, now: float) -> list[Send]:
        """What to send now."""
        return [self._answer(segment) for n, segment in enumerate(self._gathering) if now >= self._due(n)]

    def _answer(self, segment: _Gathering) -> Send:
        pending, segment.pending = segment.pending, {}
        if len(pending) == 1:
            [(receiver, wanted)] = pending.items()
            return self._unicast(receiver, sorted(wanted))
        segment.done = True
        indices = tuple(sorted(set[int]().union(*pending.values())))
        self.broadcast_bytes += self._bytes_of(indices)
        return Send(None, indices)

    def _unicast(self, receiver: str, indices: Sequence[int]) -> Send:
        self.unicast_bytes += self._bytes_of(indices)
        return Send(receiver, tuple(indices))

    def _bytes_of(self, indices: Sequence[int]) -> int:
        spans = (chunk_span(self.manifest, index) for index in indices)
        return sum(span.stop - span.start for span in spans)


def segment_chunks(manifest: Manifest, segment: int = SEGMENT_BYTES) -> int:
    """How many chunks a segment of ``segment`` bytes has."""
    return max(1, segment // manifest.chunk_size)
