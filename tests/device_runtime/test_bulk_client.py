from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.edge.mqtt import Connected, Disconnected, Event, Frame, Link
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.protocol.errors import BrokerError
from tests.inbox import PATIENCE_S, Inbox, until


class Bulk:
    """A bulk link and what it heard."""

    def __init__(self, url: str, name: str, *topics: str, keepalive_s: int = 20) -> None:
        self.inbox = Inbox()
        self.link = Link(url, name, self._put, keepalive_s=keepalive_s, bulk=True)
        for topic in topics:
            self.link.subscribe(topic, qos=0)
        self.link.start()

    def _put(self, event: Event) -> None:
        self.inbox.put(event)

    def frames(self) -> list[tuple[str, bytes]]:
        return [(frame.topic, bytes(frame.data)) for frame in self.inbox.of(Frame)]

    def heard(self, topic: str, count: int) -> list[bytes]:
        """The first ``count`` payloads on a topic."""
        self.inbox.wait(lambda: sum(frame.topic == topic for frame in self.inbox.of(Frame)) >= count)
        return [payload for where, payload in self.frames() if where == topic]


def comes(sender: Bulk, receiver: Bulk, topic: str, payload: bytes) -> bool:
    """Send once more; whether anything has come. A subscription takes a moment."""
    sender.link.send_bulk(topic, payload)
    return bool(receiver.frames())


@pytest.fixture
def pair(mosquitto: ManagedBroker, topic: str) -> Iterator[tuple[Bulk, Bulk]]:
    """Two bulk links; the second hears what the first sends below the topic."""
    name = topic.replace("/", "-")
    sender, receiver = Bulk(mosquitto.url, f"{name}-s"), Bulk(mosquitto.url, f"{name}-r", f"{topic}/+")
    for each in (sender, receiver):
        each.link.wait_connected(PATIENCE_S)
    _settle(sender, receiver, topic)
    yield sender, receiver
    sender.link.stop()
    receiver.link.stop()


def _settle(sender: Bulk, receiver: Bulk, topic: str) -> None:
    """Return when the broker has acted on the subscription."""

    def through() -> bool:
        sender.link.send_bulk(f"{topic}/settle", b"?")
        return bool(receiver.frames())

    until(through)
    receiver.inbox.events.clear()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_000, 65_536, 262_168, 1_000_000])
def test_what_is_sent_arrives_byte_for_byte_and_in_order(pair: tuple[Bulk, Bulk], topic: str, size: int) -> None:
    sender, receiver = pair
    data = [os.urandom(size) for _ in range(8)]
    for each in data:
        sender.link.send_bulk(f"{topic}/up", each)
    assert receiver.heard(f"{topic}/up", 8) == data
    assert receiver.link.received_bytes >= 8 * size


def test_a_topic_that_is_left_stays_silent(pair: tuple[Bulk, Bulk], topic: str) -> None:
    sender, receiver = pair
    receiver.link.unsubscribe(f"{topic}/+")
    receiver.link.subscribe(f"{topic}/deeper/b", qos=0)  # which "+" is not: when it comes, the broker has acted on both
    until(lambda: _came(sender, receiver, f"{topic}/deeper/b"))
    sender.link.send_bulk(f"{topic}/a", b"unheard")
    sender.link.send_bulk(f"{topic}/deeper/b", b"heard")
    receiver.inbox.wait(lambda: (f"{topic}/deeper/b", b"heard") in receiver.frames())
    assert all(payload != b"unheard" for _, payload in receiver.frames())


def _came(sender: Bulk, receiver: Bulk, topic: str) -> bool:
    """Send once more; whether anything has come on this very topic."""
    sender.link.send_bulk(topic, b"?")
    return any(where == topic for where, _ in receiver.frames())


def test_a_bulk_link_refuses_what_asks_for_a_receipt(pair: tuple[Bulk, Bulk], topic: str) -> None:
    with pytest.raises(BrokerError, match="QoS 0"):
        pair[0].link.publish(topic, b"plan")


def test_an_idle_bulk_link_stays_up_by_asking_the_broker(mosquitto: ManagedBroker) -> None:
    bulk = Bulk(mosquitto.url, "idle-bulk", keepalive_s=1)
    bulk.link.wait_connected(PATIENCE_S)
    time.sleep(3)  # the broker hangs up after one and a half times the second that it was told
    assert len(bulk.inbox.of(Connected)) == 1
    assert not bulk.inbox.of(Disconnected)
    bulk.link.stop()


def test_a_broker_that_falls_silent_is_left() -> None:
    accepted = b"\x20\x03\x00\x00\x00"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard: list[bytes] = []

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                heard.append(sock.recv(4096))
                sock.sendall(accepted)
                while data := sock.recv(4096):
                    heard.append(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        bulk = Bulk(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", "lonely", keepalive_s=1)
        bulk.inbox.wait(lambda: len(bulk.inbox.of(Disconnected)) == 1)
        bulk.link.stop()
        thread.join(PATIENCE_S)
    assert b"\xc0\x00" in heard, "it asked before it left"


@pytest.mark.mosquitto
def test_a_bulk_link_comes_back_and_subscribes_again_when_its_broker_is_killed(
    mosquitto_is_here: None, tmp_path: Path, topic: str
) -> None:
    with ManagedBroker(tmp_path) as mortal:
        bulk = Bulk(mortal.url, topic.replace("/", "-"), topic)
        bulk.link.wait_connected(PATIENCE_S)
        assert mortal.pid is not None
        os.kill(mortal.pid, signal.SIGKILL)
        bulk.inbox.wait(lambda: len(bulk.inbox.of(Connected)) == 2)
        until(lambda: comes(bulk, bulk, topic, b"still there?"))
        bulk.link.stop()


def test_a_bulk_link_speaks_3_1_1_where_it_must(embedded_broker: EmbeddedBroker, topic: str) -> None:
    bulk = Bulk(embedded_broker.url_v311, topic.replace("/", "-"), topic)
    bulk.link.wait_connected(PATIENCE_S)
    payload = os.urandom(100_000)
    until(lambda: comes(bulk, bulk, topic, payload))
    assert bulk.frames()[0] == (topic, payload)
    bulk.link.stop()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x00", b"\x20\xff\xff\xff\xff\xff", b"\xf0\x01\x00", b"\x30\x00", b""],
)
def test_a_peer_that_is_no_broker_is_told_and_tried_again(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        turns: list[bytes] = []

        def serve() -> None:
            for _ in range(2):
                sock, _ = listener.accept()
                with sock:
                    turns.append(sock.recv(4096))
                    sock.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        bulk = Bulk(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", "stranger")
        bulk.inbox.wait(lambda: len(bulk.inbox.of(Disconnected)) >= 1)
        thread.join(PATIENCE_S)
        bulk.link.stop()
    assert len(turns) == 2
    assert not bulk.inbox.of(Connected)
