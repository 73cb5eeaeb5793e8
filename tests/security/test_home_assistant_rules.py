"""What a fleet's broker permits for Home Assistant when it is asked to: each device its two topics, and one reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from device_runtime.home_assistant import topics_of
from mas_edge.orchestrator.broker import ManagedBroker, open_broker
from mas_edge.protocol.errors import BrokerError, DeviceError
from tests.security.ground import TOPICS, Ground, overheard, say_until_heard

CONFIG, STATE = topics_of("homeassistant", "watch", "a")
OF_ANOTHER = [*topics_of("homeassistant", "watch", "b"), "homeassistant/status", "homeassistant/sensor/a/config",
              *topics_of("homeassistant", "other", "a"), "homeassistant/device/watch/a/set"]  # fmt: skip


@pytest.fixture(scope="module")
def ground(mosquitto_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    ground = Ground(tmp_path_factory.mktemp("ground"))
    port = ground.fleet.settings.port
    ground.broker = ManagedBroker(
        ground.folder / "state", port=port, fleet=ground.fleet, home_assistant="homeassistant"
    )  # fmt: skip
    ground.enrol("home-assistant")
    with ground:
        yield ground


def by(client: paho.Client, topic: str) -> Callable[[bytes], None]:
    """How the bare client says a word."""

    def say(word: bytes) -> None:
        client.publish(topic, word, qos=0)

    return say


@pytest.mark.mosquitto
def test_home_assistant_sees_what_a_device_shows_and_nothing_else_of_the_fleet(ground: Ground) -> None:
    seen = ("homeassistant/#", "fl/v1/#")
    with ground.link(ground.url("home-assistant"), *seen) as (_, inbox), ground.link(ground.url("a")) as (device, _):
        for topic in (CONFIG, STATE, TOPICS.status("a")):
            say_until_heard(lambda word, topic=topic: device.publish(topic, word), inbox)  # type: ignore[misc]
        for topic in (TOPICS.birth("a"), TOPICS.response("a"), TOPICS.upload("a")):
            device.publish(topic, b"not for the house")
        say_until_heard(lambda word: device.publish(STATE, word), inbox)
        assert overheard(inbox) == []


@pytest.mark.mosquitto
def test_a_device_shows_nothing_in_anothers_name_and_sees_nothing_of_others(ground: Ground) -> None:
    with ground.link(ground.url("home-assistant"), "homeassistant/#") as (house, inbox):
        for topic in OF_ANOTHER:  # a client for each: mosquitto throws out who publishes with QoS 1 what it may not
            with ground.raw(ground.url("a")) as forger:
                forger.publish(topic, b"forged", qos=0)
                say_until_heard(by(forger, STATE), inbox)
        assert overheard(inbox) == []
        with ground.link(ground.url("b"), "homeassistant/#", TOPICS.command("b")) as (_, spied):
            with ground.link(ground.url("a")) as (device, _):
                say_until_heard(lambda word: device.publish(CONFIG, word), inbox)
            house.publish("homeassistant/status", b"online")
            with ground.orchestrator() as (orchestrator, _):
                say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), spied)
            assert overheard(spied) == []


@pytest.mark.mosquitto
def test_unless_it_is_asked_for_nobody_may(mosquitto_is_here: None, tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with ground, ground.orchestrator("homeassistant/#", "fl/v1/watch/#") as (_, inbox):
        assert "homeassistant" not in (ground.folder / "state" / "broker" / "acl").read_text()
        with ground.raw(ground.url("a")) as device:
            device.publish(STATE, b"hello", qos=0)
            say_until_heard(by(device, TOPICS.status("a")), inbox)
        assert overheard(inbox) == []


def test_a_broker_of_ones_own_is_told_by_its_owner(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="adds rules to the managed broker"):
        open_broker("mqtt://192.0.2.7", tmp_path, home_assistant="homeassistant")


def test_a_prefix_that_is_none_does_not_get_into_the_rules(mosquitto_is_here: None, tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    with pytest.raises(DeviceError, match="is no prefix of topics"):
        ManagedBroker(tmp_path / "state", fleet=ground.fleet, home_assistant="#\nuser a\ntopic readwrite #")
