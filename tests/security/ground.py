"""A fleet with a real mosquitto, two enrolled devices, and clients that do what no device of ours would."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import paho.mqtt.client as paho
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from device_runtime.edge.address import parse_url
from device_runtime.edge.events import Arrived
from device_runtime.edge.mqtt import Link
from device_runtime.edge.tls import context_for
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.topics import Topics
from tests.fleet.members import Clock, enrol, make_fleet
from tests.inbox import PATIENCE_S, Inbox

TOPICS = Topics("watch")


class Ground:
    """``broker`` serves ``fleet``; devices "a" (the attacker) and "b" (the victim) are enrolled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock(time.time())
        self.fleet = make_fleet(folder / "fleet", self.clock)
        self.rules = Enrolment(self.fleet)
        self.broker = ManagedBroker(folder / "state", port=self.fleet.settings.port, fleet=self.fleet)
        self._open = ExitStack()
        for name in ("a", "b"):
            self.enrol(name)

    def __enter__(self) -> Ground:
        self._open.enter_context(self.broker)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def enrol(self, name: str) -> Path:
        """A member's file with certificate and key."""
        key, certificate = enrol(self.rules, name)
        return self.keep(name, certificate.public_bytes(serialization.Encoding.PEM) + key)

    def keep(self, name: str, content: bytes) -> Path:
        """A file of a client."""
        path = self.folder / f"{name}.pem"
        path.write_bytes(content)
        return path

    def url(self, name: str = "", fleet: Fleet | None = None) -> str:
        """How to connect with the file of ``name``; "" = without a certificate."""
        host = f"mqtts://127.0.0.1:{self.fleet.settings.port}?ca={quote(str((fleet or self.fleet).file('ca.pem')))}"
        return f"{host}&cert={quote(str(self.folder / f'{name}.pem'))}" if name else host

    @contextmanager
    def link(self, url: str, *topics: str, client_id: str = "") -> Iterator[tuple[Link, Inbox]]:
        """A client that has subscribed to ``topics``."""
        inbox = Inbox()
        link = Link(url, client_id or f"client-{secrets.token_hex(4)}", inbox.put)
        for topic in topics:
            link.subscribe(topic)
        link.start()
        try:
            link.wait_connected(PATIENCE_S)
            yield link, inbox
        finally:
            link.stop()

    @contextmanager
    def orchestrator(self, *topics: str) -> Iterator[tuple[Link, Inbox]]:
        """The one who may do everything."""
        with self.link(self.broker.url, *topics) as pair:
            yield pair

    @contextmanager
    def raw(self, url: str, client_id: str = "", will: str = "") -> Iterator[paho.Client]:
        """The bare client library, connected: for what a Link does not do."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id or f"raw-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.tls_set_context(context_for(parse_url(url)))
        if will:
            client.will_set(will, b"forged", qos=1)
        address = parse_url(url)
        client.connect(address.host, address.port)
        client.loop_start()
        try:
            until_connected(client)
            yield client
        finally:
            client.disconnect()
            client.loop_stop()


def until_connected(client: paho.Client) -> None:
    """Wait for the CONNACK."""
    deadline = time.monotonic() + PATIENCE_S
    while not client.is_connected():
        assert time.monotonic() < deadline, "the broker does not let us in"
        time.sleep(0.01)


def hang_up(client: paho.Client) -> None:
    """End the connection without goodbye: the broker publishes the last will."""
    sock = client.socket()
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)


def say_until_heard(say: Callable[[bytes], None], inbox: Inbox) -> None:
    """Say a word until it is heard once: whatever came to that client before is in the inbox then."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        word = b"sentinel " + secrets.token_hex(4).encode()
        say(word)
        pause = time.monotonic() + 0.3
        while time.monotonic() < pause:
            if any(word == arrived.payload for arrived in inbox.of(Arrived)):
                return
            time.sleep(0.01)
        assert time.monotonic() < deadline, "a message that is permitted does not arrive"


def overheard(inbox: Inbox) -> list[Arrived]:
    """What arrived beside the sentinels."""
    return [arrived for arrived in inbox.of(Arrived) if not arrived.payload.startswith(b"sentinel")]


def serial(path: Path) -> int:
    """Of a certificate."""
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number
