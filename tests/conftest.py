"""Real brokers for the tests: a managed mosquitto and the embedded one, each started once."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_runtime.edge.mqtt import Arrived, Event, Link, Will
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.orchestrator.broker.managed import find_mosquitto
from tests.inbox import PATIENCE_S, Inbox

Connect = Callable[..., tuple[Link, Inbox]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever needs the mosquitto binary."""
    for item in items:
        if "mosquitto_is_here" in getattr(item, "fixturenames", ()) or "mosquitto" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.mosquitto)


@pytest.fixture(scope="session")
def mosquitto_is_here() -> None:
    """Skip, or fail where it is required, if there is no mosquitto."""
    if find_mosquitto() is not None:
        return
    if os.environ.get("MAS_EDGE_REQUIRE_MOSQUITTO") == "1":
        pytest.fail("mosquitto is required (MAS_EDGE_REQUIRE_MOSQUITTO=1) but is not installed")
    pytest.skip("mosquitto is not installed")


@pytest.fixture(scope="session")
def mosquitto(mosquitto_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedBroker]:
    """A managed mosquitto for the whole run."""
    with ManagedBroker(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """The embedded broker for the whole run."""
    with EmbeddedBroker(tmp_path_factory.mktemp("embedded")) as running:
        yield running


@pytest.fixture(params=[pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded_broker"])
def broker(request: pytest.FixtureRequest) -> ManagedBroker | EmbeddedBroker:
    """Each of the two in turn."""
    running: ManagedBroker | EmbeddedBroker = request.getfixturevalue(request.param)
    return running


@pytest.fixture(params=[pytest.param("managed", marks=pytest.mark.mosquitto), "embedded"])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ManagedBroker | EmbeddedBroker]:
    """Each of the two in turn, started for one test that may harm it."""
    if request.param == "managed":
        request.getfixturevalue("mosquitto_is_here")
    with (ManagedBroker if request.param == "managed" else EmbeddedBroker)(tmp_path) as running:
        yield running


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect a Link to a URL; returns it, subscribed, with the Inbox of its events. It is stopped after the test."""
    links: list[Link] = []

    def make(
        url: str, name: str = "", *, subscribe: str = "", will: Will | None = None, wait: bool = True
    ) -> tuple[Link, Inbox]:
        inbox = Inbox()
        probe = f"probe/{secrets.token_hex(6)}"
        settled = threading.Event()

        def put(event: Event) -> None:
            if isinstance(event, Arrived) and event.topic == probe:
                settled.set()
            else:
                inbox.put(event)

        link = Link(url, name or f"test-{secrets.token_hex(4)}", put, will=will)
        links.append(link)
        if subscribe:
            link.subscribe(subscribe)
        link.start()
        if wait:
            link.wait_connected(PATIENCE_S)
        if wait and subscribe:
            # A broker serves one connection's packets in order: with this message back, it has acted on the
            # subscription, and what others publish from now on arrives.
            link.subscribe(probe)
            link.publish(probe, b"")
            assert settled.wait(PATIENCE_S), "the subscription was not acted on"
            link.unsubscribe(probe)
        return link, inbox

    yield make
    for link in links:
        link.stop()


@pytest.fixture
def topic() -> str:
    """A topic of this test alone."""
    return f"test/{secrets.token_hex(6)}"
