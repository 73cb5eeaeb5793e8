"""The live stream: one look a second at the run, whoever listens, and the same bytes to everybody (server-sent events).

A listener is behind by nothing but its own slowness: it holds the number of the last event that it was sent, and no
queue of its own. Who was away for long, or comes from another life of this server, is told to read everything anew.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec
from msgspec.structs import replace

from mas_edge.protocol.errors import ServerError
from mas_edge.web.answers import device_views, progress_of
from mas_edge.web.library import Library, versions_of
from mas_edge.web.mirror import PARTS, Known, Part
from mas_edge.web.shapes import DeviceView, EventView, OpenRoundView, Progress, RoundView, Shape

# A page is a second behind at most: the look itself and the way to it take the rest.
TICK_S = 0.9
# Five minutes of a busy run: a laptop that was closed for longer has to read a few hundred kilobytes anew.
KEPT = 300
# A proxy drops a connection that is silent; the shortest default among the usual ones is 60 s (nginx), phones' is 30.
KEEP_ALIVE_S = 15.0
MAX_LISTENERS = 64  # at 1 Hz: more is not people but a loop


class Change(Shape, frozen=True, kw_only=True):
    """What is another than before: ``parts`` says what to read again, the rest is what changes most often."""

    parts: list[Part]
    time: float  # of the server's look
    phase: str
    control: str
    served: bool
    finished: float | None
    progress: Progress
    open_rounds: list[OpenRoundView]
    rounds: list[RoundView] = msgspec.field(default_factory=list)  # closed since
    devices: list[DeviceView] = msgspec.field(default_factory=list)  # those that are not what they were
    events: list[EventView] = msgspec.field(default_factory=list)  # new lines of the log


class Live:
    """The stream of one run."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._boot = uuid.uuid4().hex[:8]
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._number = 0
        self._before: _Moment | None = None
        self._why_not = ""  # the state could not be read at the last look
        self._news = asyncio.Condition()
        self._looking: asyncio.Task[None] | None = None
        self.listeners = 0

    @property
    def is_full(self) -> bool:
        """Whether nobody more may listen."""
        return self.listeners >= MAX_LISTENERS

    async def listen(self, last: str, may: Callable[[], bool] = lambda: True) -> AsyncIterator[bytes]:
        """The events after the one with the id ``last``; with another, or none: from now on.

        ``may``: whether the listener still may; asked before anything is said, so that a token that was revoked hears
        no more.
        """
        if self.is_full:  # many have come at the same moment: each was let in before any of them was counted
            yield b": too many listen\n\n"
            return
        self.listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            number = self._place(last)
            if number is None:
                number = self._number
                kind = "reset" if last else "hello"
                yield _event(kind, self._id(number), msgspec.json.encode({"time": time.time()}))
            else:
                yield b": goes on\n\n"
            while may():
                if number + 1 < self._oldest:  # it was slower than what is kept
                    number = self._number
                    yield _event("reset", self._id(number), msgspec.json.encode({"time": time.time()}))
                for place, data in [each for each in self._sent if each[0] > number]:
                    number = place
                    yield data
                if not await self._wait(number):
                    yield b": still here\n\n"
        finally:
            self.listeners -= 1
            if self.listeners == 0 and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def _id(self, number: int) -> str:
        return f"{self._boot}-{number}"

    def _place(self, last: str) -> int | None:
        """The number in an id, if everything after it is still here."""
        boot, _, number = last.partition("-")
        if boot != self._boot or not number.isdecimal() or len(number) > 12:
            return None
        return int(number) if self._oldest - 1 <= int(number) <= self._number else None

    @property
    def _oldest(self) -> int:
        """The number of the oldest event that is kept, or of the next one if there is none."""
        return self._sent[0][0] if self._sent else self._number + 1

    async def _wait(self, number: int) -> bool:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: self._number > number), KEEP_ALIVE_S)
            except asyncio.TimeoutError:
                return False
        return True

    async def _look(self) -> None:
        while True:
            try:
                kind, data, why_not = "change", await self._library.ask(self._change), ""
            except ServerError as error:
                kind, data, why_not = "unavailable", b"", str(error)
                self._before = None
            if why_not != self._why_not and why_not:  # said once
                data = msgspec.json.encode({"time": time.time(), "detail": why_not})
            self._why_not = why_not
            if data:
                self._number += 1
                self._sent.append((self._number, _event(kind, self._id(self._number), data)))
                async with self._news:
                    self._news.notify_all()
            await asyncio.sleep(TICK_S)

    def _change(self, known: Known) -> bytes:
        """What is another than at the last look; empty if nothing is."""
        before, (boot, versions) = self._before, versions_of(known)
        if before is not None and (before.boot, before.versions) == (boot, versions):
            return b""
        self._before = now = _Moment(known, before)
        change = Change(
            parts=list(PARTS), time=time.time(), phase=known.state.phase, control=known.control, served=known.served,
            finished=known.finished, progress=progress_of(known), open_rounds=known.open_rounds,
        )  # fmt: skip
        if before is not None and before.boot == boot:  # else everything is to be read anew
            change = replace(
                change, parts=[part for part in PARTS if before.versions[part] != versions[part]],
                rounds=list(known.ledger.rounds.values())[before.rounds :],
                devices=[view for name, view in now.devices.items() if before.devices.get(name) != view],
                events=[event for event in known.events if event.number > before.event],
            )  # fmt: skip
        return msgspec.json.encode(change)


class _Moment:
    """What the last look has seen."""

    def __init__(self, known: Known, before: _Moment | None) -> None:
        self.boot, self.versions = versions_of(known)
        self.rounds = len(known.ledger.rounds)
        self.event = known.events[-1].number if known.events else 0
        same = before is not None and (before.boot, before.versions["devices"]) == (self.boot, self.versions["devices"])
        self.devices: dict[str, DeviceView] = before.devices if before and same else device_views(known)


def _event(kind: str, number: str, data: bytes) -> bytes:
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), number.encode(), data)
