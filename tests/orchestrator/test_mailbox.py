"""The bound between the network and the loop: who cannot put in waits, and nothing that a broker holds is lost."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

import pytest

from device_runtime.edge.mqtt import Arrived, Event, Link
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.mailbox import ITEM_BYTES, Mailbox
from tests.conftest import Connect
from tests.inbox import PATIENCE_S, until


def emptied(box: Mailbox[int]) -> list[int]:
    found = []
    try:
        while True:
            found.append(box.get())
    except queue.Empty:
        return found


def put_in(box: Mailbox[int], count: int) -> None:
    for number in range(count):
        box.put(number, 0)


def in_the_background(what: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    return thread


def test_what_is_put_in_comes_out_in_its_order_and_frees_its_room() -> None:
    box: Mailbox[int] = Mailbox()
    for number in range(100):
        box.put(number, size=number)
    assert box.held_bytes == 100 * ITEM_BYTES + sum(range(100))
    assert emptied(box) == list(range(100))
    assert box.held_bytes == 0


def test_who_finds_it_full_waits_and_goes_on_when_there_is_room() -> None:
    box: Mailbox[int] = Mailbox(most_bytes=4 * ITEM_BYTES)
    senders = [in_the_background(lambda: put_in(box, 50)) for _ in range(3)]
    taken: list[int] = []
    while len(taken) < 150:
        assert box.held_bytes <= 4 * ITEM_BYTES
        taken.append(box.get(PATIENCE_S))
    for sender in senders:
        sender.join(PATIENCE_S)
    assert sorted(taken) == sorted(3 * list(range(50)))


def test_empty_messages_fill_it_too() -> None:
    box: Mailbox[int] = Mailbox(most_bytes=4 * ITEM_BYTES)
    sender = in_the_background(lambda: put_in(box, 5))
    until(lambda: box.held_bytes == 4 * ITEM_BYTES)
    sender.join(0.1)
    assert sender.is_alive()
    box.get()
    sender.join(PATIENCE_S)
    assert not sender.is_alive()


def test_what_is_larger_than_it_passes_alone() -> None:
    box: Mailbox[int] = Mailbox(most_bytes=10)
    box.put(1, size=1000)
    second = in_the_background(lambda: box.put(2, size=1000))
    assert box.get(PATIENCE_S) == 1
    assert box.get(PATIENCE_S) == 2
    second.join(PATIENCE_S)


def test_the_loop_s_own_words_never_wait() -> None:
    box: Mailbox[int] = Mailbox(most_bytes=1)
    box.put(1, 0)
    box.put_own(2)
    assert emptied(box) == [1, 2]


def test_closing_lets_go_of_who_waits() -> None:
    box: Mailbox[int] = Mailbox(most_bytes=1)
    box.put(1, 0)
    waiting = in_the_background(lambda: box.put(2, 0))
    box.close()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    assert emptied(box) == [1]


def test_an_empty_one_says_so() -> None:
    with pytest.raises(queue.Empty):
        Mailbox[int]().get()


def test_while_the_loop_stands_still_the_broker_keeps_what_is_sent_and_memory_stays_bounded(
    mosquitto: ManagedBroker, connect: Connect, topic: str
) -> None:
    payloads = [bytes([number % 256]) * 4096 for number in range(2000)]
    box: Mailbox[Event] = Mailbox(most_bytes=64 * 1024)

    def hear(event: Event) -> None:
        box.put(event, len(event.payload) if isinstance(event, Arrived) else 0)

    listener = Link(mosquitto.url, f"{topic.replace('/', '-')}-loop", hear)
    listener.subscribe(topic)
    listener.start()
    listener.wait_connected(PATIENCE_S)
    sender, _ = connect(mosquitto.url)
    listener.publish(topic, b"")
    until(lambda: box.held_bytes > ITEM_BYTES)  # that it is connected, and this: the broker has acted on what it wants
    for payload in payloads:
        sender.publish(topic, payload)
    sender.stop()  # returns when the broker has acknowledged everything
    assert box.held_bytes <= 64 * 1024
    got: list[bytes] = []
    while len(got) < len(payloads):
        event = box.get(PATIENCE_S)
        got += [event.payload] if isinstance(event, Arrived) and event.payload else []
    box.close()
    listener.stop()
    assert got == payloads
