"""A proxy between clients and a broker that spoils what passes, by a seed.

It works on whole PUBLISH packets, both ways: TCP would not let through half a packet or a changed byte, brokers and
gateways do. A dropped packet is acknowledged, as by a broker whose queue is full: its sender believes it arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from device_runtime.edge.address import parse_url
from device_runtime.edge.backoff import Backoff
from mas_edge.chaos.packets import (
    CONNACK,
    CONNECT,
    FIVE,
    PUBACK,
    PUBLISH,
    Malformed,
    Publish,
    Splitter,
    client_of,
    kind_of,
    parse_publish,
    version_of,
)
from mas_edge.protocol.errors import ServerError

READ_BYTES = 64 * 1024  # a read at a time; what waits is bounded by this and by one packet
HOLD_S = 0.2  # a packet that is held back to be overtaken goes on after this, if none comes to overtake it
START_S = 10.0


@dataclass(frozen=True)
class Faults:
    """How often each fault befalls a PUBLISH, from 0 to 1; ``cut`` closes the connection. 0 everywhere: a plain proxy.

    ``delay_s``: the longest delay. ``limit_bytes``: any packet above it ends the connection, as many gateways do it;
    0 = none.
    """

    drop: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    truncate: float = 0.0
    corrupt: float = 0.0
    cut: float = 0.0
    delay_s: float = 0.5
    limit_bytes: int = 0


class CutOff(NamedTuple):
    """A client that was cut off: the seconds until it was let in again, and the longest that it may have waited."""

    seconds: float
    longest_s: float
    broker_away: bool  # meanwhile


KINDS = ("drop", "delay", "duplicate", "reorder", "truncate", "corrupt", "cut")


class Proxy:
    """Listens on a loopback port of its own and connects to the broker at ``url``; use as a context manager.

    ``faults`` may be replaced at any time. ``counts``: how often each fault (and ``limit``) happened; ``passed`` counts
    the packets, ``acknowledged`` the PUBACKs of either side. ``largest``: bytes of the largest packet that passed.
    ``told`` is called with (time, kind) of each fault, on the proxy's thread. ``recoveries``: of each cut, how long
    until the same client was let in again.

    Raises:
        BrokerError: ``url`` is malformed.
    """

    def __init__(
        self, url: str, faults: Faults, seed: int, told: Callable[[float, str], None] = lambda _time, _kind: None
    ) -> None:
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.largest = 0
        self.recoveries: list[CutOff] = []
        self.port = 0
        self._address = parse_url(url)
        self._draw = random.Random(seed)  # noqa: S311 - not for secrets
        self._told = told
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._pairs: set[_Pair] = set()
        self._cut: dict[str, tuple[float, float]] = {}  # by client, when it was cut off, and the longest it then waits
        self._let_in: dict[str, float] = {}  # by client, when
        self._backoffs: defaultdict[str, Backoff] = defaultdict(Backoff)  # by client, what it knows of its connections
        self._unreached_at = -math.inf  # when the broker was last away
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients connect; user and password are those of the broker's URL."""
        user = f"{self._address.user}:{self._address.password}@" if self._address.user is not None else ""
        return f"mqtt://{user}127.0.0.1:{self.port}"

    def __enter__(self) -> Proxy:
        self._thread.start()
        if not self._ready.wait(START_S):
            message = f"the fault proxy did not start to listen within {START_S:g} s; is this machine overloaded?"
            raise ServerError(message)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def cut_all(self) -> None:
        """Close every connection that there is now."""
        self._loop.call_soon_threadsafe(self._close_pairs)

    # ------------------------------------------------------------------ on the proxy's thread

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._close_pairs()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _close_pairs(self) -> None:
        for pair in self._pairs:
            pair.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection(self._address.host, self._address.port)
        except OSError:
            self._unreached_at = time.monotonic()
            writer.transport.abort()
            return
        pair = _Pair(writer, up_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, reader, up_writer, writer), self._pump(pair, up_reader, writer, up_writer)
            )
        finally:
            self._ended(pair)
            pair.end()
            self._pairs.discard(pair)

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, onward: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        """Carry packets one way until the connection ends; the other way ends with it."""
        splitter, way = Splitter(), _Way(onward, back)
        try:
            while not pair.closed:
                data = await _read(reader, way)
                if data is None:
                    way.release()
                    continue
                if not data:
                    way.release()
                    pair.end()
                    break
                for packet in splitter.feed(data):
                    if not pair.closed:
                        await self._pass(pair, packet, way)
                await onward.drain()
        except (OSError, Malformed):  # either side is gone, or sends what is not MQTT: it is hung up on
            pair.close()

    async def _pass(self, pair: _Pair, packet: bytes, way: _Way) -> None:
        kind = kind_of(packet)
        if kind == CONNECT:
            pair.version = version_of(packet)
            pair.client = client_of(packet, pair.version)
        elif kind == CONNACK:
            self._on_let_in(pair.client)
        self.counts["passed"] += 1
        self.counts["acknowledged"] += kind == PUBACK
        if self.faults.limit_bytes and len(packet) > self.faults.limit_bytes:
            self._note("limit")
            pair.close()
            return
        self.largest = max(self.largest, len(packet))
        if kind == PUBLISH and (fault := self._drawn()):
            self._note(fault)
            await self._spoil(fault, pair, parse_publish(packet, pair.version), way)
        else:
            way.send(packet)

    def _on_let_in(self, client: str) -> None:
        now = time.monotonic()
        self._let_in[client] = now
        if client in self._cut:
            since, longest_s = self._cut.pop(client)
            self.recoveries.append(CutOff(now - since, longest_s, broker_away=self._unreached_at > since))

    def _ended(self, pair: _Pair) -> None:
        """A connection is over: its client counts as we do here."""
        if (since := self._let_in.pop(pair.client, None)) is not None:
            self._backoffs[pair.client].lost(time.monotonic() - since, explained=False)

    def _drawn(self) -> str:
        """The fault that befalls the next packet; most have none."""
        chance = self._draw.random()
        for kind in KINDS:
            chance -= getattr(self.faults, kind)
            if chance < 0:
                return kind
        return ""

    async def _spoil(self, fault: str, pair: _Pair, publish: Publish, way: _Way) -> None:
        match fault:
            case "drop":
                if publish.packet_id:
                    self.counts["acknowledged"] += 1
                    way.answer(publish.acknowledgement())
            case "delay":
                await asyncio.sleep(self._draw.random() * self.faults.delay_s)
                way.send(publish.packet())
            case "duplicate":
                way.send(publish.packet() + publish.packet())
            case "reorder":
                way.hold(publish.packet())
            case "truncate":
                end = self._draw.randrange(len(publish.payload) or 1)
                way.send(replace(publish, payload=publish.payload[:end]).packet())
            case "corrupt":
                way.send(replace(publish, payload=self._corrupted(publish.payload)).packet())
            case "cut":
                self._ended(pair)
                self._cut[pair.client] = time.monotonic(), self._backoffs[pair.client].longest_s
                pair.close()

    def _corrupted(self, payload: bytes) -> bytes:
        """One byte is another: one that stands in no JSON, for a digit that became another digit nobody could tell."""
        if not payload:
            return payload
        place = self._draw.randrange(len(payload))
        return payload[:place] + (b"\xfe" if payload[place] == 0xFF else b"\xff") + payload[place + 1 :]

    def _note(self, kind: str) -> None:
        self.counts[kind] += 1
        self._told(time.monotonic(), kind)


class _Pair:
    """The two connections of one client."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.version = FIVE
        self.client = ""
        self.closed = False
        self._writers = writers

    def close(self) -> None:
        """Cut both at once, whatever is on the way."""
        self.closed = True
        for writer in self._writers:
            writer.transport.abort()

    def end(self) -> None:
        """Close both when what was sent has left: one side has said goodbye."""
        self.closed = True
        for writer in self._writers:
            writer.close()


class _Way:
    """One direction of a connection, with at most one packet that is held back."""

    def __init__(self, onward: asyncio.StreamWriter, back: asyncio.StreamWriter) -> None:
        self._onward, self._back = onward, back
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether a packet waits to be overtaken."""
        return bool(self._held)

    def send(self, packet: bytes) -> None:
        """Send a packet on, and then the one that it overtakes."""
        self._onward.write(packet)
        self.release()

    def hold(self, packet: bytes) -> None:
        """Let the next packet overtake this one."""
        self.release()
        self._held = packet

    def release(self) -> None:
        """Send on what was held back."""
        if self._held:
            self._onward.write(self._held)
            self._held = b""

    def answer(self, packet: bytes) -> None:
        """Answer in place of the other side."""
        self._back.write(packet)


async def _read(reader: asyncio.StreamReader, way: _Way) -> bytes | None:
    """The next bytes; None if a packet is held back and none came to overtake it."""
    try:
        return await asyncio.wait_for(reader.read(READ_BYTES), HOLD_S if way.holds else None)
    except asyncio.TimeoutError:
        return None
