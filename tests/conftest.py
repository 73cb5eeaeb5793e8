"""Real brokers for the tests, each started once: a managed mosquitto, the embedded one, and one of MQTT 3.1.1 only.

A test that asks for ``broker``, ``running_broker`` or ``mortal_broker`` belongs to the acceptance suite of brokers. It
runs on mosquitto; if it is marked ``every_broker``, on each one that is here; and with MAS_EDGE_BROKERS, a list such as
``mosquitto,embedded,amqtt``, on each that is named there (`make test-brokers`: all of them).
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from device_runtime.edge.mqtt import Arrived, Event, Link, Will
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.orchestrator.broker.managed import find_mosquitto
from tests.brokers import AMQTT_PYTHON, AmqttBroker, Running
from tests.inbox import PATIENCE_S, Inbox

Connect = Callable[..., tuple[Link, Inbox]]
BROKERS = ("mosquitto", "embedded", "amqtt")
# By fixture: how long one of these brokers lives.
_OF_THE_MATRIX = {"broker": "function", "running_broker": "module", "mortal_broker": "function"}

# A machine with other work draws and runs examples slowly: neither is a fault of what is tested.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of the sample; let Ctrl-C reach what tests start, also if they run in the background of a shell.

    (Such a process ignores it, and so would its children.)
    """
    config.addinivalue_line("markers", "every_broker: runs on each broker that is here, also without MAS_EDGE_BROKERS")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the acceptance suite once for each broker."""
    for fixture, scope in _OF_THE_MATRIX.items():
        if fixture in metafunc.fixturenames:
            sample = metafunc.definition.get_closest_marker("every_broker") is not None
            names = [pytest.param(name, marks=_MARKS.get(name, ())) for name in _brokers(sample=sample)]
            metafunc.parametrize(fixture, names, indirect=True, scope=scope)  # type: ignore[arg-type]


_MARKS = {"mosquitto": pytest.mark.mosquitto}


def _brokers(*, sample: bool) -> list[str]:
    """The brokers a test runs on. One that is asked for by name and is not here fails the test, it is not skipped."""
    if asked := os.environ.get("MAS_EDGE_BROKERS"):
        names = [name.strip() for name in asked.split(",")]
        if unknown := set(names) - set(BROKERS):
            message = f"MAS_EDGE_BROKERS names {', '.join(sorted(unknown))}; expected some of {', '.join(BROKERS)}"
            raise pytest.UsageError(message)
        return names
    required = os.environ.get("MAS_EDGE_REQUIRE_MOSQUITTO") == "1"
    here = {
        "mosquitto": required or find_mosquitto() is not None, "embedded": True, "amqtt": AMQTT_PYTHON.is_file(),
    }  # fmt: skip
    names = [name for name in BROKERS if here[name]]
    return names if sample else names[:1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs the mosquitto binary, and what is never tried again; deal out long modules first.

    (Else one process is at the last long module while the others have nothing left.)
    """
    for item in items:
        if "mosquitto_is_here" in getattr(item, "fixturenames", ()) or "mosquitto" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.mosquitto)
        if _room(item) == "security" or item.get_closest_marker("never") is not None:  # see .ci/run
            item.add_marker(pytest.mark.flaky(reruns=0))
    if hasattr(config, "workerinput"):  # a process of pytest-xdist; the sort is stable, modules stay together
        items.sort(key=lambda item: _RANKS.get(_room(item), len(_RANKS)))


_LONG_ROOMS = ("faults", "e2e", "docs", "security", "micro", "cli", "device_runtime", "web", "tools", "simulation")
_RANKS = {room: rank for rank, room in enumerate(_LONG_ROOMS)}


def _room(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


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


@pytest.fixture(scope="session")
def amqtt_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AmqttBroker]:
    """The broker of MQTT 3.1.1 only, for the whole run; who asks for it by name is skipped without it."""
    if not AMQTT_PYTHON.is_file() and "amqtt" not in os.environ.get("MAS_EDGE_BROKERS", ""):
        pytest.skip("amqtt is not installed: make environments")
    running = AmqttBroker(tmp_path_factory.mktemp("amqtt"))
    running.start()
    yield running
    running.stop()


_SHARED = {"mosquitto": "mosquitto", "embedded": "embedded_broker", "amqtt": "amqtt_broker"}


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Running:
    """Each broker in turn."""
    running: Running = request.getfixturevalue(_SHARED[request.param])
    return running


@pytest.fixture(scope="module")
def running_broker(request: pytest.FixtureRequest) -> Running:
    """Each broker in turn, for all tests of a module at once."""
    running: Running = request.getfixturevalue(_SHARED[request.param])
    return running


@pytest.fixture
def mortal_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """Each broker in turn, started for one test that may harm it."""
    if request.param == "mosquitto":
        request.getfixturevalue("mosquitto_is_here")
    kinds: dict[str, Callable[[Path], Running]] = {
        "mosquitto": ManagedBroker, "embedded": EmbeddedBroker, "amqtt": AmqttBroker,
    }  # fmt: skip
    running = kinds[request.param](tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.fixture(params=[pytest.param("managed", marks=pytest.mark.mosquitto), "embedded"])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ManagedBroker | EmbeddedBroker]:
    """Each of the two that we supervise in turn, started for one test that may harm it."""
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
