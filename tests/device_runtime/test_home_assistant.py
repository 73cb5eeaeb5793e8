"""What Home Assistant is told: held to the keys that it documents, and heard on a real broker from a device at work.

The tables below are those of Home Assistant's documentation of MQTT discovery (device discovery payload), of the MQTT
sensor and binary sensor, and of the device classes of sensors, as of its release 2024.12, the first with this payload.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from device_runtime.edge.mqtt import Arrived, Link
from device_runtime.home_assistant import HomeAssistant, topics_of
from device_runtime.runtime import Runtime, Settings
from mas_edge.export.gate import released
from mas_edge.export.trace import trace_program
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Energy, Report, Status, encode
from mas_edge.protocol.topics import Topics
from tests.device_runtime.boards import host_of
from tests.device_runtime.one_device import plan
from tests.device_runtime.test_work import JOB, Place
from tests.device_runtime.tiny_job import TASKS
from tests.inbox import Inbox

# (required, optional) keys
ROOT_KEYS = (
    {"device", "origin", "components"},
    {"availability", "availability_mode", "state_topic", "command_topic", "qos", "encoding"},
)
DEVICE_KEYS = (
    {"identifiers"},
    {
        "connections", "manufacturer", "model", "model_id", "name", "hw_version", "serial_number", "sw_version",
        "via_device", "suggested_area", "configuration_url",
    },
)  # fmt: skip
ORIGIN_KEYS = ({"name"}, {"sw_version", "support_url"})
AVAILABILITY_KEYS = ({"topic"}, {"payload_available", "payload_not_available", "value_template"})
ENTITY = {
    "name", "icon", "entity_category", "enabled_by_default", "json_attributes_topic", "json_attributes_template",
    "value_template", "device_class", "expire_after", "force_update", "qos", "encoding",
}  # fmt: skip
COMPONENT_KEYS = {  # in a device's payload every component needs these two
    "sensor": (
        {"platform", "unique_id"},
        ENTITY
        | {
            "state_class", "unit_of_measurement", "suggested_display_precision", "options",
            "last_reset_value_template",
        },
    ),
    "binary_sensor": ({"platform", "unique_id"}, ENTITY | {"payload_on", "payload_off", "off_delay"}),
}  # fmt: skip
# Of sensors, by device class
UNITS: dict[str | None, set[str | None]] = {"energy": {"Wh", "kWh", "MWh", "MJ", "GJ"}, "enum": {None}, None: {None}}
STATE_CLASSES: dict[str | None, set[str | None]] = {
    "energy": {"total", "total_increasing"},
    "enum": {None},
    None: {None, "measurement"},
}


def home(fleet: str = "watch", device: str = "pi-1") -> HomeAssistant:
    return HomeAssistant("homeassistant", fleet, device, model="Raspberry Pi 5", runtime="0.1.0")


def check(keys: tuple[set[str], set[str]], found: dict[str, Any]) -> None:
    required, optional = keys
    assert required <= found.keys() <= required | optional


def test_the_payload_has_the_keys_that_home_assistant_documents() -> None:
    payload = json.loads(home().config())
    check(ROOT_KEYS, payload)
    check(DEVICE_KEYS, payload["device"])
    check(ORIGIN_KEYS, payload["origin"])
    for each in payload["availability"]:
        check(AVAILABILITY_KEYS, each)
    for component in payload["components"].values():
        check(COMPONENT_KEYS[component["platform"]], component)
        if component["platform"] == "sensor":
            assert component.get("unit_of_measurement") in UNITS[component.get("device_class")]
            assert component.get("state_class") in STATE_CLASSES[component.get("device_class")]
            assert ("options" in component) == (component.get("device_class") == "enum")
        else:
            assert component["device_class"] == "problem"


def test_no_two_devices_of_any_fleets_share_an_id_or_a_topic() -> None:
    ids, topics = [], []
    for fleet, device in (("a", "pi-1"), ("a", "pi-2"), ("b", "pi-1")):
        told = home(fleet, device)
        payload = json.loads(told.config())
        ids += payload["device"]["identifiers"]
        ids += [component["unique_id"] for component in payload["components"].values()]
        topics += [told.config_topic, told.state_topic]
    assert len(set(ids)) == len(ids)
    assert len(set(topics)) == len(topics)


def test_the_topic_is_one_that_home_assistant_looks_for() -> None:
    """Its own pattern, below the prefix."""
    config, state = topics_of("homeassistant", "watch", "pi-1")
    looked_for = re.compile(r"(?P<component>\w+)/(?:(?P<node_id>[a-zA-Z0-9_-]+)/)?(?P<object_id>[a-zA-Z0-9_-]+)/config")
    found = looked_for.fullmatch(config.removeprefix("homeassistant/"))
    assert found
    assert (found["component"], found["node_id"], found["object_id"]) == ("device", "watch", "pi-1")
    assert not looked_for.fullmatch(state.removeprefix("homeassistant/"))


@pytest.mark.parametrize(
    ("prefix", "fleet", "device", "says"),
    [
        ("home/#", "watch", "pi-1", "'home/#' is no prefix of topics"),
        ("/home", "watch", "pi-1", "'/home' is no prefix of topics"),
        ("homeassistant", "watch.v2", "pi-1", "finds no fleet called 'watch.v2'"),
        ("homeassistant", "watch", "pi.1", "finds no device called 'pi.1'"),
    ],
)
def test_a_name_that_home_assistant_would_not_find_is_refused(prefix: str, fleet: str, device: str, says: str) -> None:
    with pytest.raises(DeviceError, match=re.escape(says)):
        topics_of(prefix, fleet, device)


def rendered(payload: dict[str, Any], message: bytes) -> dict[str, str]:
    """What each sensor shows after a message with the values, its attributes in brackets."""
    told: Any = json.loads(message)
    shown = {}
    for name, component in payload["components"].items():
        value = jinja2.Template(component["value_template"]).render(value_json=told)
        attributes = jinja2.Template(component["json_attributes_template"]).render(value_json=told)
        shown[name] = f"{value} {json.dumps(json.loads(attributes), sort_keys=True)}"
    return shown


ENERGY = Energy(quality="measured", joules={"train": 30.0, "other": 6.0}, source="ina3221 VDD_IN")


def test_each_sensor_shows_what_happened() -> None:
    told = home()
    payload = json.loads(told.config())
    before = rendered(payload, told.state())
    assert before["training"].startswith("idle ")
    assert before["loss"].startswith("None "), "which Home Assistant shows as unknown"
    assert before["energy"].startswith("None ")
    told.began(plan())
    assert rendered(payload, told.state())["training"].startswith("training ")
    told.ended(Report(samples={"a": 3}, losses={"a": 0.5, "b": 1.5}, energy=ENERGY))
    told.began(plan("merged-0001"))
    told.ended(Report(samples={"a": 3}, losses={"a": 0.25, "b": 0.75}, energy=ENERGY))
    assert rendered(payload, told.state()) == {
        "training": 'idle {"rules": ""}',
        "round": 'merged-0001 {"job": "j-1"}',
        "loss": '0.5 {"losses": {"a": 0.25, "b": 0.75}}',
        "energy": '0.02 {"energy_quality": "measured", "energy_source": "ina3221 VDD_IN"}',  # 2 x 36 J
        "problem": 'OFF {"reason": ""}',
    }


def test_energy_that_nothing_measures_is_unknown_and_not_zero() -> None:
    told = home()
    told.began(plan())
    told.ended(Report(samples={"a": 3}, losses={"a": 0.5}, energy=Energy(quality="none", problem="no sensor")))
    assert json.loads(told.state())["energy"] is None


def test_a_failure_is_a_problem_until_the_next_success_and_an_interruption_is_none() -> None:
    told = home()
    told.began(plan())
    told.failed("")
    assert json.loads(told.state())["problem"] == "OFF"
    told.began(plan())
    told.failed("not enough memory \udcff" + 500 * "x")
    shown = json.loads(told.state())
    assert (shown["problem"], shown["state"]) == ("ON", "idle")
    assert shown["reason"].startswith("not enough memory ?xxx")
    assert len(shown["reason"]) == 200
    told.ended(Report(samples={}, losses={}, healthy=False, health_reason="wrong answers"))
    assert json.loads(told.state())["reason"] == "wrong answers"
    told.ended(Report(samples={}, losses={}, healthy=True))
    assert json.loads(told.state())["problem"] == "OFF"


def test_the_owners_rules_are_shown_while_nothing_is_done() -> None:
    told = home()
    told.held_back("its owner's rules: it is not charging")
    assert json.loads(told.state())["state"] == "not allowed"
    told.began(plan())
    assert json.loads(told.state())["state"] == "training"
    options = json.loads(told.config())["components"]["training"]["options"]
    assert {"idle", "not allowed", "training"} <= set(options)


def test_whether_it_is_there_is_read_from_its_status_which_the_last_will_sets() -> None:
    (availability,) = json.loads(home().config())["availability"]
    assert availability["topic"] == Topics("watch").status("pi-1")
    for online, shown in ((True, "online"), (False, "offline")):  # what Home Assistant expects unless told otherwise
        said = json.loads(encode(Status(sender="pi-1", boot_id="b", seq=0, online=online)))
        assert jinja2.Template(availability["value_template"]).render(value_json=said) == shown


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A device's state with the artifacts of a plan in it."""
    return Place(
        tmp_path, program_format.load(released(trace_program(JOB, "merged", TASKS), "torch", JOB, None).program)
    )


class Device:
    """A device process' runtime in a thread, and a client that hears everything that Home Assistant could hear."""

    def __init__(self, broker: ManagedBroker, place: Place, fleet: str, prefix: str) -> None:
        self.inbox = Inbox()
        self.link = Link(broker.url, f"home-{fleet}", self.inbox.put)
        self.topics = Topics(fleet)
        for topic in (f"homeassistant/+/{fleet}/#", self.topics.status("pi-1"), self.topics.response("pi-1")):
            self.link.subscribe(topic)
        settings = Settings("pi-1", fleet, broker.url, place.deployed.parent, "torch", home_assistant=prefix)
        runtime = Runtime(settings, place.data, host=host_of("raspberry-pi-4", place.deployed.parent / "board"))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=runtime.run, args=(self._stop,))

    def __enter__(self) -> Device:
        self.link.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self.link.stop()

    def heard(self, leaf: str) -> Iterator[Any]:
        return (json.loads(one.payload) for one in self.inbox.of(Arrived) if one.topic.endswith(leaf))

    def wait_state(self, state: str, **values: object) -> dict[str, Any]:
        def fits(shown: dict[str, Any]) -> bool:
            return bool(shown["state"] == state and values.items() <= shown.items())

        self.inbox.wait(lambda: any(map(fits, self.heard("/state"))))
        return next(shown for shown in self.heard("/state") if fits(shown))


@pytest.mark.mosquitto
def test_a_device_at_work_is_seen_from_its_first_connect_to_its_end(mosquitto: ManagedBroker, place: Place) -> None:
    with Device(mosquitto, place, "seen", "homeassistant") as device:
        device.wait_state("idle")
        (payload,) = device.heard("/config")
        assert payload["device"]["name"] == "pi-1"
        assert payload["device"]["model"].startswith("Raspberry Pi 4")
        device.link.publish(device.topics.command("pi-1"), encode(place.plan()))
        device.wait_state("training", round="merged-0000", loss=None)
        shown = device.wait_state("idle", round="merged-0000", problem="OFF")
        assert set(shown["losses"]) == set(TASKS)
        assert shown["loss"] == pytest.approx(sum(shown["losses"].values()) / 3, abs=1e-5)
        assert shown["energy"] > 0
        assert shown["energy_quality"] == "estimated"
        device.link.publish(device.topics.command("pi-1"), encode(place.plan(round_id="merged-0001", tasks=["way"])))
        assert "is for tasks" in device.wait_state("idle", problem="ON")["reason"]
    (topic,) = {one.topic for one in device.inbox.of(Arrived) if one.topic.endswith("/config")}
    late = Inbox()
    link = Link(mosquitto.url, "home-late", late.put)
    for each in (topic, topic.replace("/config", "/state"), device.topics.status("pi-1")):
        link.subscribe(each)
    link.start()
    late.wait(lambda: len(late.of(Arrived)) == 3)
    link.stop()
    kept = {one.topic: one for one in late.of(Arrived)}
    assert all(one.retained for one in kept.values()), "Home Assistant may start later than the device"
    assert json.loads(kept[device.topics.status("pi-1")].payload)["online"] is False


@pytest.mark.mosquitto
def test_unless_its_owner_asks_for_it_home_assistant_hears_nothing(mosquitto: ManagedBroker, place: Place) -> None:
    with Device(mosquitto, place, "unseen", "") as device:
        device.inbox.wait(lambda: any(said["online"] for said in device.heard("/status")))
        device.link.publish(device.topics.command("pi-1"), encode(place.plan(tasks=["way"])))
        device.inbox.wait(lambda: any(said["type"] == "refusal" for said in device.heard("/rsp")))
    assert not [one.topic for one in device.inbox.of(Arrived) if one.topic.startswith("homeassistant")]
