"""Each fault of the proxy, between a real mosquitto and the kit's own connection."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

import pytest

from device_runtime.edge.backoff import FIRST_DELAY_S, SUSPICIOUS, TAKEOVER_DELAY_S
from device_runtime.edge.mqtt import Arrived, Connected, Disconnected, Link
from mas_edge.chaos.proxy import KINDS, Faults, Proxy
from mas_edge.orchestrator.broker import ManagedBroker
from tests.inbox import PATIENCE_S, Inbox, until

COUNT, RATE = 200, 0.2
END = b"the end"
Received = list[bytes]
SENT = [f"{number:04d} {'x' * 60}".encode() for number in range(COUNT)]


def through(mosquitto: ManagedBroker, faults: Faults, *, once: bool = False) -> tuple[Received, Counter[str]]:
    """What arrives of SENT, in order, when the sender is behind the proxy and the receiver is not."""

    def told(_time: float, _kind: str) -> None:
        proxy.faults = Faults() if once else faults

    topic, inbox = f"test/{secrets.token_hex(6)}", Inbox()
    receiver = Link(mosquitto.url, f"r-{secrets.token_hex(4)}", inbox.put, session_expiry_s=0)
    receiver.subscribe(topic)
    with Proxy(mosquitto.url, faults, 1, told) as proxy:
        sender = Link(proxy.url, f"s-{secrets.token_hex(4)}", lambda _: None, session_expiry_s=0)
        try:
            for link in (receiver, sender):
                link.start()
                link.wait_connected(PATIENCE_S)
            for payload in SENT:
                sender.publish(topic, payload)
            # Each has come, or the sender believes so: the broker has had all of them when this one is sent.
            until(lambda: proxy.counts["acknowledged"] >= COUNT + proxy.counts["duplicate"])
            if once:  # after a cut some are acknowledged twice, and all come
                inbox.wait(lambda: set(SENT) <= {arrived.payload for arrived in inbox.of(Arrived)})
            receiver.publish(topic, END)
            inbox.message(END)
            return [arrived.payload for arrived in inbox.of(Arrived) if arrived.payload != END], proxy.counts
        finally:
            sender.stop()
            receiver.stop()


def lost(received: Received) -> int:
    return len(set(SENT) - set(received))


def as_many_are_lost_as_were_dropped(received: Received, counts: Counter[str]) -> None:
    assert lost(received) == counts["drop"] > 0
    assert received == [payload for payload in SENT if payload in set(received)]


def everything_arrives_in_order(received: Received, counts: Counter[str]) -> None:
    assert received == SENT


def some_arrive_twice(received: Received, counts: Counter[str]) -> None:
    assert (len(received), lost(received)) == (COUNT + counts["duplicate"], 0)


def everything_arrives_in_another_order(received: Received, counts: Counter[str]) -> None:
    assert received != SENT
    assert sorted(received) == SENT


def some_arrive_short(received: Received, counts: Counter[str]) -> None:
    short = [payload for payload in received if payload not in SENT]
    assert len(short) == counts["truncate"]
    assert all(any(payload.startswith(piece) for payload in SENT) for piece in short)


def some_arrive_with_another_byte(received: Received, counts: Counter[str]) -> None:
    changed = [(got, sent) for got, sent in zip(received, SENT, strict=True) if got != sent]
    assert len(changed) == counts["corrupt"]
    assert all(sum(a != b for a, b in zip(got, sent, strict=True)) == 1 for got, sent in changed)


CASES: dict[str, tuple[Faults, Callable[[Received, Counter[str]], None]]] = {
    "drop": (Faults(drop=RATE), as_many_are_lost_as_were_dropped),
    "delay": (Faults(delay=RATE, delay_s=0.01), everything_arrives_in_order),
    "duplicate": (Faults(duplicate=RATE), some_arrive_twice),
    "reorder": (Faults(reorder=RATE), everything_arrives_in_another_order),
    "truncate": (Faults(truncate=RATE), some_arrive_short),
    "corrupt": (Faults(corrupt=RATE), some_arrive_with_another_byte),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_fault_befalls_about_as_many_packets_as_it_is_asked_to_and_does_what_it_says(
    kind: str, mosquitto: ManagedBroker
) -> None:
    faults, holds = CASES[kind]
    received, counts = through(mosquitto, faults)
    assert RATE / 2 < counts[kind] / COUNT < 2 * RATE
    assert set(counts) & set(KINDS) == {kind}
    holds(received, counts)


def test_without_faults_everything_passes(mosquitto: ManagedBroker) -> None:
    received, counts = through(mosquitto, Faults())
    assert received == SENT
    assert not set(counts) & set(KINDS)


@pytest.mark.parametrize("limit", [20_000, 128_000, 1_000_000])
def test_a_packet_above_the_limit_ends_the_connection_and_one_below_passes(
    limit: int, mosquitto: ManagedBroker
) -> None:
    topic, inbox = f"test/{secrets.token_hex(6)}", Inbox()
    with Proxy(mosquitto.url, Faults(limit_bytes=limit), 1) as proxy:
        link = Link(proxy.url, f"l-{secrets.token_hex(4)}", inbox.put, session_expiry_s=0)
        try:
            link.subscribe(topic)
            link.start()
            link.wait_connected(PATIENCE_S)
            link.publish(topic, bytes(limit - 200))
            inbox.wait(lambda: bool(inbox.of(Arrived)))
            link.publish(topic, bytes(limit))
            inbox.wait(lambda: bool(inbox.of(Disconnected)))
            assert proxy.counts["limit"] > 0
        finally:
            link.stop()


def test_a_connection_that_is_cut_is_made_again_and_nothing_is_lost(mosquitto: ManagedBroker) -> None:
    received, counts = through(mosquitto, Faults(cut=0.1), once=True)
    assert counts["cut"] == 1
    assert lost(received) == 0


@pytest.mark.alone
def test_cuts_in_a_row_cost_no_more_than_the_shortest_delay_doubled_at_each(
    mosquitto: ManagedBroker, topic: str
) -> None:
    def told(_time: float, _kind: str) -> None:
        proxy.faults = Faults()

    bounds = [FIRST_DELAY_S * 2.0**cut for cut in range(SUSPICIOUS - 1)]
    with Proxy(mosquitto.url, Faults(), 1, told) as proxy:
        link = Link(proxy.url, f"c-{secrets.token_hex(4)}", lambda _: None, session_expiry_s=0)
        try:
            link.start()
            for cut in range(len(bounds)):
                link.wait_connected(PATIENCE_S)
                proxy.faults = Faults(cut=1.0)
                link.publish(topic, b"cut me off", qos=0)
                until(lambda cut=cut: len(proxy.recoveries) > cut)  # type: ignore[misc]
        finally:
            link.stop()
    # Twice: a busy machine may take as long to connect as we wait. Who is taken for a rival waits three times that.
    assert sum(cut.seconds for cut in proxy.recoveries) <= 2 * sum(bounds) < TAKEOVER_DELAY_S + sum(bounds)
    assert [cut.longest_s for cut in proxy.recoveries] == bounds, "what a cut may cost is known beforehand"


def test_every_connection_can_be_cut_at_once(mosquitto: ManagedBroker) -> None:
    inboxes = [Inbox(), Inbox()]
    with Proxy(mosquitto.url, Faults(), 1) as proxy:
        links = [Link(proxy.url, f"c-{secrets.token_hex(4)}", inbox.put, session_expiry_s=0) for inbox in inboxes]
        try:
            for link in links:
                link.start()
                link.wait_connected(PATIENCE_S)
            proxy.cut_all()
            for inbox in inboxes:
                inbox.wait(lambda inbox=inbox: len(inbox.of(Connected)) == 2)  # type: ignore[misc]
        finally:
            for link in links:
                link.stop()


def test_a_client_finds_the_broker_gone_when_it_is_gone() -> None:
    inbox = Inbox()
    with Proxy("mqtt://127.0.0.1:1", Faults(), 1) as proxy:
        link = Link(proxy.url, "nobody", inbox.put)
        try:
            link.start()
            inbox.wait(lambda: bool(inbox.of(Disconnected)))
        finally:
            link.stop()
