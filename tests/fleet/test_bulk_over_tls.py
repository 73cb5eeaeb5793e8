"""Artifacts over the bulk connection of a fleet: mutual TLS, both ways, through a cut, and what is said to strangers.

python -m pytest tests/fleet/test_bulk_over_tls.py -s -k throughput      # prints the ratio to plain text
"""

from __future__ import annotations

import os
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from device_runtime.edge.mqtt import Connected, Disconnected, Event, Frame, Link
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.artifact import chunk_count, chunk_span, decode_chunk, describe, digest_of, encode_chunk
from mas_edge.protocol.errors import BrokerError
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.transfer import Incoming
from tests.fleet.members import Clock, make_fleet, member_file
from tests.inbox import PATIENCE_S, Inbox

TOPICS = Topics("watch")
LARGE = 24 * 1024 * 1024  # a dozen windows of what may be in flight
TIMES = 3  # a measurement is repeated so often, in turn, and the best counts: others are at work on the machine, too

pytestmark = pytest.mark.usefixtures("mosquitto_is_here")


class Side:
    """One end of a bulk connection; ``frames`` are the pieces that came."""

    def __init__(self, url: str, name: str, topic: str) -> None:
        self.frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.inbox = Inbox()
        self.link = Link(url, name, self._put, bulk=True)
        self.link.subscribe(topic, qos=0)
        self.link.start()

    def _put(self, event: Event) -> None:
        if isinstance(event, Frame):
            self.frames.put(bytes(event.data))
        else:
            self.inbox.put(event)

    def __enter__(self) -> Side:
        self.link.wait_connected(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()


class World:
    """A fleet with its broker, and one member of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet = make_fleet(folder / "fleet", Clock(time.time()))
        self.broker = ManagedBroker(folder / "state", port=self.fleet.settings.port, fleet=self.fleet)

    def url(self, name: str, *, authority: Fleet | None = None, life: timedelta = timedelta(days=1)) -> str:
        """How ``name`` connects that believes in the ``authority`` of a fleet, its own if none is given."""
        believed = quote(str((authority or self.fleet).file("ca.pem")))
        own = quote(str(member_file(self.fleet, name, self.folder, life=life)))
        return f"mqtts://127.0.0.1:{self.fleet.settings.port}?ca={believed}&cert={own}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    there = World(tmp_path)
    with there.broker:
        yield there


@pytest.fixture
def ends(world: World) -> Iterator[tuple[Side, Side]]:
    """The orchestrator's end and that of the device "pi-1"."""
    with (
        Side(world.broker.url, "orchestrator-data", TOPICS.every("up")) as server,
        Side(world.url("pi-1"), "pi-1-data", TOPICS.chunk("pi-1")) as device,
    ):
        yield server, device


def carry(
    data: bytes, sender: Side, receiver: Side, topic: str, halfway: Callable[[], None] = lambda: None
) -> tuple[bytes, int]:
    """Move an artifact as the transfer protocol does; returns what arrived, and how many pieces came in all.

    Asking is done by hand, so that nothing but the bulk connections is under test.
    """
    manifest = describe(data)
    incoming, arrived, pieces = Incoming(manifest), bytearray(len(data)), 0
    until_ = time.monotonic() + PATIENCE_S
    while not incoming.complete:
        assert time.monotonic() < until_, f"{len(incoming.held)} of {incoming.held.count} pieces came"
        for first, last in incoming.poll(time.monotonic()) or ():
            for index in range(first, last):
                sender.link.send_bulk(topic, encode_chunk(manifest, index, data[chunk_span(manifest, index)]))
        try:
            chunk = decode_chunk(receiver.frames.get(timeout=0.05))
        except queue.Empty:
            continue
        pieces += 1
        piece = incoming.on_chunk(chunk, time.monotonic())
        if piece is not None:
            arrived[chunk_span(manifest, chunk.index)] = piece
        if piece is not None and len(incoming.held) == incoming.held.count // 2:
            halfway()
            incoming.restart()
    return bytes(arrived), pieces


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_large_artifact_arrives_over_mutual_tls(ends: tuple[Side, Side], way: str) -> None:
    server, device = ends
    data = os.urandom(LARGE)
    if way == "down":
        arrived, pieces = carry(data, server, device, TOPICS.chunk("pi-1"))
    else:
        arrived, pieces = carry(data, device, server, TOPICS.upload("pi-1"))
    assert digest_of(arrived) == digest_of(data)
    assert pieces < 1.5 * chunk_count(describe(data))


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_cut_in_the_middle_costs_what_was_on_its_way_and_no_more(
    world: World, ends: tuple[Side, Side], way: str
) -> None:
    server, device = ends
    data = os.urandom(LARGE)

    def cut() -> None:
        assert world.broker.pid is not None
        os.kill(world.broker.pid, signal.SIGKILL)
        for side in ends:
            side.inbox.wait(lambda side=side: len(side.inbox.of(Connected)) == 2)  # type: ignore[misc]

    if way == "down":
        arrived, pieces = carry(data, server, device, TOPICS.chunk("pi-1"), cut)
    else:
        arrived, pieces = carry(data, device, server, TOPICS.upload("pi-1"), cut)
    assert [len(side.inbox.of(Disconnected)) >= 1 for side in ends] == [True, True]
    assert digest_of(arrived) == digest_of(data)
    assert pieces < 1.5 * chunk_count(describe(data)), "what was held is not sent again"


def test_a_broker_with_the_certificate_of_another_authority_is_refused_by_a_clear_word(
    world: World, tmp_path: Path
) -> None:
    other = make_fleet(tmp_path / "other", Clock(time.time()))
    side = Side(world.url("pi-1", authority=other), "pi-1-data", TOPICS.chunk("pi-1"))
    with pytest.raises(BrokerError, match=r"the certificate of mqtts://127\.0\.0\.1:\d+ is not trusted.*the CA"):
        side.link.wait_connected(3.0)
    side.link.stop()
    assert not side.inbox.of(Connected)


def test_a_device_whose_certificate_the_broker_does_not_accept_is_told_on_its_bulk_connection_too(
    world: World,
) -> None:
    side = Side(world.url("pi-1", life=timedelta(days=-1)), "pi-1-data", TOPICS.chunk("pi-1"))
    side.inbox.wait(lambda: bool(side.inbox.of(Disconnected)))
    side.link.stop()
    assert "our certificate has expired" in side.inbox.of(Disconnected)[0].reason
    assert not side.inbox.of(Connected)


@pytest.mark.alone
def test_throughput_over_tls_is_a_fair_part_of_that_in_plain_text(
    world: World, mosquitto: ManagedBroker, ends: tuple[Side, Side], capsys: pytest.CaptureFixture[str]
) -> None:
    data = os.urandom(LARGE)
    plain_topic = TOPICS.chunk("plain")
    seconds: dict[str, list[float]] = {"plain": [], "tls": []}
    with ExitStack() as stack:
        plain = [
            stack.enter_context(Side(mosquitto.url, f"{name}-{os.getpid()}", topic))
            for name, topic in (("from", TOPICS.upload("plain")), ("to", plain_topic))
        ]
        for _ in range(TIMES):
            for kind, (sender, receiver), topic in (
                ("plain", plain, plain_topic), ("tls", ends, TOPICS.chunk("pi-1")),
            ):  # fmt: skip
                began = time.monotonic()
                carry(data, sender, receiver, topic)
                seconds[kind].append(time.monotonic() - began)
    ratio = min(seconds["plain"]) / min(seconds["tls"])
    with capsys.disabled():
        print(f"\nthroughput over mutual TLS: {ratio:.2f} of plain text")
    # Both ends and the broker, twice, encrypt; the processor does that at some GB/s. Ten times slower is a defect, such
    # as a read of a socket for every record.
    assert ratio > 0.1
