from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_runtime.edge import attempts, backoff
from device_runtime.edge.address import Address, parse_url
from device_runtime.edge.mqtt import Arrived, Connected, Disconnected, Event, Link, Will
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.errors import BrokerError
from tests.brokers import PlainMosquitto, Running
from tests.conftest import Connect
from tests.inbox import PATIENCE_S, Inbox, until

# Cheap, and brokers differ most here.
pytestmark = pytest.mark.every_broker
HURRY = 0.2  # of the waits between two connections: the shortest, 50 ms, is still ten times an answer


def _settled_subscription(link: Link, inbox: Inbox, topic: str) -> None:
    """Return when the broker has acted on the link's subscription to ``topic``: its own message comes back."""
    probe = b"probe %d" % len(inbox.events)
    link.publish(topic, probe)
    inbox.message(probe)


def test_messages_go_both_ways(broker: Running, connect: Connect, topic: str) -> None:
    server, server_inbox = connect(broker.url, subscribe=f"{topic}/up")
    device, device_inbox = connect(broker.url, subscribe=f"{topic}/down")
    server.publish(f"{topic}/down", b"plan")
    device.publish(f"{topic}/up", b"offer")
    assert device_inbox.message(b"plan") == Arrived(f"{topic}/down", b"plan", retained=False)
    assert server_inbox.message(b"offer").topic == f"{topic}/up"


def test_a_retained_birth_reaches_who_comes_later(broker: Running, connect: Connect, topic: str) -> None:
    device, _ = connect(broker.url)
    device.publish(f"{topic}/birth", b"born", retain=True)
    device.stop()
    _, inbox = connect(broker.url, subscribe=f"{topic}/+")
    assert inbox.message(b"born").retained


def test_payloads_and_topics_are_counted(broker: Running, connect: Connect, topic: str) -> None:
    receiver, inbox = connect(broker.url, subscribe=topic)
    before = receiver.sent_bytes, receiver.received_bytes
    receiver.publish(topic, b"12345")
    inbox.message(b"12345")
    size = len(topic) + 5
    assert (receiver.sent_bytes, receiver.received_bytes) == (before[0] + size, before[1] + size)


def test_a_message_of_half_a_mebibyte_passes(broker: Running, connect: Connect, topic: str) -> None:
    payload = bytes(range(256)) * 2048
    link, inbox = connect(broker.url, subscribe=topic)
    link.publish(topic, payload)
    assert inbox.message(payload).payload == payload


def test_the_last_will_is_published_when_the_process_is_killed(broker: Running, connect: Connect, topic: str) -> None:
    _, inbox = connect(broker.url, subscribe=topic)
    script = (
        "import sys, time; from device_runtime.edge.mqtt import Link, Will\n"
        "link = Link(sys.argv[1], 'doomed', lambda _: None, will=Will(sys.argv[2], b'gone'))\n"
        "link.start(); link.wait_connected(30); link.publish(sys.argv[2], b'here'); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, broker.url, topic]) as process:
        inbox.message(b"here")
        process.send_signal(signal.SIGKILL)
        inbox.message(b"gone")
    _, later = connect(broker.url, subscribe=topic)
    assert later.message(b"gone").retained


def heard_on(topic: str, inbox: Inbox) -> list[Arrived]:
    """amqtt 0.12 sends a client that connects what is retained on the topics of all others, too."""
    return [arrived for arrived in inbox.of(Arrived) if arrived.topic == topic]


def test_stop_sends_the_last_message_and_no_will(broker: Running, connect: Connect, topic: str) -> None:
    _, inbox = connect(broker.url, subscribe=topic)
    device, _ = connect(broker.url, will=Will(topic, b"gone"))
    device.publish(topic, b"goodbye")
    device.stop()
    inbox.message(b"goodbye")
    witness, _ = connect(broker.url)
    witness.publish(topic, b"after it")
    inbox.message(b"after it")
    assert b"gone" not in [arrived.payload for arrived in heard_on(topic, inbox)]


def test_control_messages_wait_for_a_device_that_is_away(broker: Running, connect: Connect, topic: str) -> None:
    if broker.mode == "amqtt":
        pytest.skip("over MQTT 3.1.1 no session is kept")
    name = topic.replace("/", "-")
    device, _ = connect(broker.url, name, subscribe=topic)
    device.stop()
    server, _ = connect(broker.url)
    for number in range(50):
        server.publish(topic, b"plan %d" % number)
    server.stop()
    _, inbox = connect(broker.url, name, subscribe=topic)
    inbox.message(b"plan 49")
    assert inbox.of(Connected)[0].session_present
    assert [arrived.payload for arrived in inbox.of(Arrived)][:50] == [b"plan %d" % number for number in range(50)]


def test_over_mqtt_3_1_1_a_client_begins_anew(amqtt_broker: Running, connect: Connect, topic: str) -> None:
    name = topic.replace("/", "-")
    device, _ = connect(amqtt_broker.url, name, subscribe=topic)
    device.stop()
    server, _ = connect(amqtt_broker.url)
    server.publish(topic, b"while it was away")
    server.stop()
    # With a session that is taken up, this broker would not hear the subscription.
    _, inbox = connect(amqtt_broker.url, name, subscribe=topic)
    assert [event.session_present for event in inbox.of(Connected)] == [False]
    assert heard_on(topic, inbox) == []


def test_a_link_comes_back_when_its_broker_is_killed(mortal_broker: Running, connect: Connect, topic: str) -> None:
    _, inbox = connect(mortal_broker.url, subscribe=topic)
    _kill(mortal_broker)
    inbox.wait(lambda: len(inbox.of(Connected)) == 2)
    assert len(inbox.of(Disconnected)) >= 1
    other, _ = connect(mortal_broker.url)

    def heard() -> bool:
        """Said again until then: a broker without sessions may get the message before the subscription."""
        other.publish(topic, b"still there?")
        return len(heard_on(topic, inbox)) > 0

    until(heard)


def test_what_is_published_while_the_broker_is_down_arrives_in_order(
    mortal_broker: Running, connect: Connect, topic: str
) -> None:
    link, inbox = connect(mortal_broker.url, subscribe=topic)
    mortal_broker.stop()
    inbox.wait(lambda: len(inbox.of(Disconnected)) > 0)
    seen = len(inbox.of(Arrived))
    # More than the 20 messages that a broker lets be unacknowledged.
    for number in range(300):
        link.publish(topic, b"update %d" % number)
    mortal_broker.start()
    inbox.message(b"update 299")
    assert [arrived.payload for arrived in inbox.of(Arrived)][seen:] == [b"update %d" % number for number in range(300)]


def test_messages_and_subscriptions_from_before_the_start_are_kept(
    broker: Running, connect: Connect, topic: str
) -> None:
    _, inbox = connect(broker.url, subscribe=topic)
    early_inbox = Inbox()
    early = Link(broker.url, f"early-{topic[5:]}", early_inbox.put)
    early.subscribe(topic)
    early.publish(topic, b"early")
    early.start()
    early_inbox.message(b"early")
    inbox.message(b"early")
    early.stop()


def test_an_unsubscribed_topic_stays_silent(broker: Running, connect: Connect, topic: str) -> None:
    link, inbox = connect(broker.url, subscribe=f"{topic}/a")
    link.subscribe(f"{topic}/b")
    _settled_subscription(link, inbox, f"{topic}/a")
    link.unsubscribe(f"{topic}/a")
    link.publish(f"{topic}/a", b"unheard")
    _settled_subscription(link, inbox, f"{topic}/b")
    assert all(arrived.payload != b"unheard" for arrived in inbox.of(Arrived))


def test_sending_64_mebibytes_in_bulk_keeps_memory_bounded(broker: Running, connect: Connect, topic: str) -> None:
    _, inbox = connect(broker.url, subscribe=f"{topic}/end")
    script = (
        "import resource, sys; from device_runtime.edge.mqtt import Link\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "link = Link(sys.argv[1], 'bulk', lambda _: None); link.start(); link.wait_connected(30)\n"
        "before, chunk = peak(), bytes(256 * 1024)\n"
        "for _ in range(256): link.send_bulk(sys.argv[2], chunk)\n"
        "link.publish(sys.argv[2] + '/end', str(peak() - before).encode()); link.stop()\n"
        "assert link.sent_bytes > 2**26, link.sent_bytes"
    )
    subprocess.run([sys.executable, "-c", script, broker.url, topic], check=True, timeout=4 * PATIENCE_S)
    inbox.wait(lambda: len(inbox.of(Arrived)) == 1)
    grown_mib = int(inbox.of(Arrived)[0].payload)
    assert grown_mib < 32


def test_bulk_reaches_a_subscriber_that_keeps_up(broker: Running, connect: Connect, topic: str) -> None:
    _, inbox = connect(broker.url, subscribe=topic)
    sender, _ = connect(broker.url)
    chunks = [bytes([number]) * 65536 for number in range(16)]
    for chunk in chunks:
        sender.send_bulk(topic, chunk)
        inbox.message(chunk)
    assert [arrived.payload for arrived in inbox.of(Arrived)] == chunks


def test_bulk_is_dropped_silently_when_there_is_no_connection(connect: Connect) -> None:
    link, _ = connect(f"mqtt://127.0.0.1:{free_port()}", wait=False)
    for _ in range(64):
        link.send_bulk("chunk", bytes(256 * 1024))
    assert link.sent_bytes == 0


def test_bulk_from_the_event_callback_is_refused_instead_of_waiting_for_itself(broker: Running) -> None:
    errors: list[str] = []
    told = threading.Event()

    def on_event(_: object) -> None:
        try:
            link.send_bulk("chunk", b"x")
        except BrokerError as error:
            errors.append(str(error))
        told.set()

    link = Link(broker.url, "reentrant", on_event)
    link.start()
    assert told.wait(PATIENCE_S)
    link.stop()
    assert "on_event" in errors[0]


def test_an_error_in_the_event_callback_does_not_end_the_link(
    broker: Running, connect: Connect, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()

    def on_event(event: Event) -> None:
        inbox.put(event)
        if isinstance(event, Arrived) and event.payload == b"poison":
            raise RuntimeError("cannot digest this")

    link = Link(broker.url, f"fragile-{topic[5:]}", on_event)
    link.subscribe(topic)
    link.start()
    link.publish(topic, b"poison")
    link.publish(topic, b"bread")
    inbox.message(b"bread")
    link.stop()
    assert "cannot digest this" in caplog.text


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait between two connections a fifth as long, and so what counts as a connection that lasted."""
    for name in ("FIRST_DELAY_S", "LAST_DELAY_S", "TAKEOVER_DELAY_S", "LAST_TAKEOVER_DELAY_S", "STABLE_S"):
        monkeypatch.setattr(backoff, name, getattr(backoff, name) * HURRY)


@pytest.mark.usefixtures("hurried")
def test_two_clients_with_one_name_are_told_and_do_not_fight(broker: Running, connect: Connect, topic: str) -> None:
    if broker.mode == "amqtt":
        pytest.skip("amqtt does not end the older connection of a clean session")
    name = topic.replace("/", "-")
    _, first = connect(broker.url, name)
    _, second = connect(broker.url, name, wait=False)
    told = f"another client has connected with the name '{name}'"
    until(lambda: any(told in event.reason for event in first.of(Disconnected) + second.of(Disconnected)))
    connections = len(first.of(Connected)) + len(second.of(Connected))
    time.sleep(3 * HURRY)  # at the speed of an ordinary reconnect there would be eight more by then
    assert len(first.of(Connected)) + len(second.of(Connected)) <= connections + 2


@pytest.mark.usefixtures("hurried")
def test_a_broker_that_tells_of_the_takeover_is_believed_at_once(connect: Connect) -> None:
    accepted, session_taken_over = b"\x20\x03\x00\x00\x00", b"\xe0\x01\x8e"
    with _peer(accepted + session_taken_over) as (url, heard):
        link, inbox = connect(url, "twin", wait=False)
        inbox.wait(lambda: len(inbox.of(Disconnected)) == 1)
        time.sleep(4 * backoff.FIRST_DELAY_S)  # at least two ordinary reconnects
        link.stop()
    assert inbox.of(Disconnected)[0].reason.startswith("another client has connected with the name 'twin'")
    assert len(heard) == 1


def test_the_limit_that_the_broker_tells_is_respected(mosquitto: ManagedBroker, connect: Connect, topic: str) -> None:
    link, inbox = connect(mosquitto.url, subscribe=topic)
    assert link.packet_limit == 1024 * 1024
    large = os.urandom(1024 * 1024)
    for send in (link.publish, link.send_bulk):
        send(topic, large)
        inbox.message(large)
        inbox.events.clear()
    with pytest.raises(BrokerError, match="retained message of 1048576 bytes"):
        link.publish(topic, large, retain=True)
    assert not inbox.of(Disconnected)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("limit", [20480, 131072])
def test_a_link_gets_large_messages_through_a_broker_of_small_packets(
    limit: int, version: str, mosquitto_is_here: None, tmp_path: Path, connect: Connect, topic: str
) -> None:
    with PlainMosquitto(tmp_path, f"max_packet_size {limit}") as broker:
        url = f"{broker.url}?version={version}" + (f"&max_packet={limit}" if version == "3.1.1" else "")
        sender, _ = connect(url)
        _, inbox = connect(url, subscribe=topic)
        for size in (limit - 100, limit, 524288):
            payload = os.urandom(size)
            sender.publish(topic, payload)
            sender.send_bulk(topic, payload)
            inbox.wait(lambda payload=payload: sum(a.payload == payload for a in inbox.of(Arrived)) == 2)  # type: ignore[misc]
        assert len(inbox.of(Connected)) == 1


def test_a_link_finds_the_limit_of_a_broker_that_does_not_tell(
    mosquitto_is_here: None, tmp_path: Path, connect: Connect, topic: str
) -> None:
    with PlainMosquitto(tmp_path, "max_packet_size 30000") as broker:
        link, inbox = connect(f"{broker.url}?version=3.1.1", subscribe=topic)
        large = os.urandom(65536)

        def arrived() -> bool:
            if not any(event.payload == large for event in inbox.of(Arrived)):
                link.send_bulk(topic, large)  # as the protocol does: what is missing is sent again
                time.sleep(0.1)
                return False
            return True

        until(arrived)
        assert link.packet_limit == 20 * 1024
        assert "none of ours is larger than 20480 bytes" in inbox.of(Disconnected)[-1].reason


def test_a_broker_that_hangs_up_on_version_5_is_spoken_to_in_3_1_1(
    embedded_broker: EmbeddedBroker, connect: Connect, topic: str
) -> None:
    modern, modern_inbox = connect(embedded_broker.url, subscribe=f"{topic}/up")
    old, old_inbox = connect(embedded_broker.url_v311, subscribe=f"{topic}/down", will=Will(f"{topic}/up", b"gone"))
    modern.publish(f"{topic}/down", b"plan")
    old_inbox.message(b"plan")
    old.publish(f"{topic}/up", b"offer")
    modern_inbox.message(b"offer")


@contextmanager
def _peer(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers the n-th CONNECT with the n-th answer, then hangs up; the last answer is repeated."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock, contextlib.suppress(ConnectionError):
                    heard.append(sock.recv(4096))
                    sock.sendall(answers[min(len(heard), len(answers)) - 1])
                    sock.recv(4096)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"mqtt://127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


def test_a_broker_that_refuses_version_5_is_spoken_to_in_3_1_1(connect: Connect) -> None:
    unacceptable_version, accepted = b"\x20\x02\x00\x01", b"\x20\x02\x00\x00"
    with _peer(unacceptable_version, accepted) as (url, heard):
        link, inbox = connect(url, wait=False)
        inbox.wait(lambda: len(inbox.of(Connected)) > 0)
        link.stop()
    assert [connect[2:9] for connect in heard[:2]] == [b"\0\4MQTT\5", b"\0\4MQTT\4"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"\x20\x03\x00\x86\x00", "user name or password", id="bad credentials, MQTT 5"),
        pytest.param(b"\x20\x03\x00\x87\x00", "does not let", id="not authorised, MQTT 5"),
        pytest.param(b"\x20\x03\x00\x8a\x00", "banned", id="banned"),
    ],
)
def test_a_refusal_for_good_is_told_at_once(answer: bytes, words: str, connect: Connect) -> None:
    with _peer(answer) as (url, _):
        link, inbox = connect(url, wait=False)
        with pytest.raises(BrokerError, match=words):
            link.wait_connected(PATIENCE_S)
        inbox.wait(lambda: len(inbox.of(Disconnected)) > 0)
        link.stop()
    assert words in inbox.of(Disconnected)[0].reason


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x00", b"\x20\xff\xff\xff\xff\xff", b"\xf0\x01\x00", b""]
)
def test_a_peer_that_is_no_broker_gives_a_clear_error_and_no_dead_thread(
    answer: bytes, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "CONNACK_S", 0.5)
    with _peer(answer) as (url, heard):
        link, inbox = connect(url, wait=False)
        inbox.wait(lambda: len(inbox.of(Disconnected)) > 0)
        with pytest.raises(BrokerError, match=r"cannot connect to the broker at mqtt://127\.0\.0\.1"):
            link.wait_connected(0.1)
        until(lambda: len(heard) > 1)
        link.stop()


def test_an_unreachable_broker_gives_a_clear_error(connect: Connect) -> None:
    link, inbox = connect(f"mqtt://127.0.0.1:{free_port()}", wait=False)
    with pytest.raises(BrokerError, match=r"nothing listens at mqtt://127\.0\.0\.1:\d+; start the broker"):
        link.wait_connected(1.0)
    assert len(inbox.of(Disconnected)) == 1  # said once, not at every attempt


def test_an_unknown_host_gives_a_clear_error(connect: Connect) -> None:
    link, inbox = connect("mqtt://nowhere.invalid", wait=False)
    inbox.wait(lambda: len(inbox.of(Disconnected)) == 1)
    with pytest.raises(BrokerError, match=r"'nowhere\.invalid' is not known"):
        link.wait_connected(0.1)


def test_a_plain_port_is_told_from_tls(broker: Running, connect: Connect) -> None:
    _, inbox = connect(broker.url.replace("mqtt://", "mqtts://"), wait=False)
    inbox.wait(lambda: len(inbox.of(Disconnected)) > 0)
    assert "TLS" in inbox.of(Disconnected)[0].reason or "cannot be reached" in inbox.of(Disconnected)[0].reason


@pytest.mark.parametrize("topic", ["", "a/+/b", "a/#", "a\0b"])
def test_no_message_goes_to_an_invalid_topic(topic: str) -> None:
    link = Link("mqtt://127.0.0.1", "idle", lambda _: None)
    with pytest.raises(BrokerError, match="cannot publish"):
        link.publish(topic, b"")


@pytest.mark.parametrize("topic", ["", "a/#/b", "a+", "a#", "a\0b"])
def test_an_invalid_subscription_is_refused(topic: str) -> None:
    link = Link("mqtt://127.0.0.1", "idle", lambda _: None)
    with pytest.raises(BrokerError, match="cannot subscribe"):
        link.subscribe(topic)


def test_an_endless_queue_is_refused() -> None:
    link = Link("mqtt://127.0.0.1", "idle", lambda _: None)
    for _ in range(10_000):
        link.publish("topic", b"")
    with pytest.raises(BrokerError, match="10000 messages wait"):
        link.publish("topic", b"")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", Address("broker", 1883)),
        ("mqtts://broker", Address("broker", 8883, tls=True)),
        ("mqtt://10.0.0.1:2883/", Address("10.0.0.1", 2883)),
        ("mqtt://[::1]:1884", Address("::1", 1884)),
        ("mqtts://me:p%40ss@broker:1", Address("broker", 1, tls=True, user="me", password="p@ss")),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "broker:1883", "http://broker", "mqtt://", "mqtt://:1883", "mqtt://broker:x", "mqtt://b:99999", "mqtt://b:0",
     "mqtt://b/topic", "mqtt://[::1"],
)  # fmt: skip
def test_a_malformed_url_is_named(url: str) -> None:
    with pytest.raises(BrokerError) as error:
        Link(url, "anybody", lambda _: None)
    assert repr(url) in str(error.value)


def test_no_password_is_shown() -> None:
    with pytest.raises(BrokerError) as error:
        parse_url("mqtt://me:secret@broker:x")
    address = parse_url("mqtt://me:secret@broker")
    assert "secret" not in f"{error.value} {address} {address!r}"


def test_only_the_edge_of_the_network_knows_the_client_library() -> None:
    root = Path(__file__).parents[2]
    sources = [path for room in ("mas_edge", "device_runtime") for path in (root / room).rglob("*.py")]
    knowing = [path.relative_to(root).as_posix() for path in sources if "import paho" in path.read_text()]
    assert sorted(knowing) == ["device_runtime/edge/library_client.py", "device_runtime/edge/mqtt.py"]


def _kill(broker: Running) -> None:
    pid = broker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
