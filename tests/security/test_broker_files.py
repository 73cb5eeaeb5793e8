"""The configurations for other people's brokers: the same rules everywhere, and mosquitto starts with its own."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from xml.etree import ElementTree

import pytest

from device_runtime.edge.address import parse_url
from device_runtime.edge.tls import context_for
from mas_edge.bundle import bundled
from mas_edge.orchestrator.broker.managed import find_mosquitto
from mas_edge.orchestrator.broker.supervisor import Supervisor, answers
from tests.inbox import until
from tests.security.ground import TOPICS, Ground

Rules = set[tuple[str, str]]


def _of_mosquitto() -> Rules:
    text = Template(bundled("broker", "mosquitto.acl.template").read_text()).substitute(fleet="watch")
    return {(way, topic.replace("%u", "NAME")) for way, topic in re.findall(r"^pattern (\w+) (\S+)$", text, re.M)}


def _of_emqx() -> Rules:
    text = re.sub(r"(?m)^%%.*$", "", bundled("broker", "emqx-acl.conf").read_text())
    found: Rules = set()
    for way, topics in re.findall(r"\{allow, all, (\w+), \[(.*?)\]\}\.", text, re.DOTALL):
        for topic in re.findall(r'"([^"]+)"', topics):
            found.add(({"publish": "write", "subscribe": "read"}[way], topic.replace("${username}", "NAME")))
    assert text.strip().endswith("{deny, all}.")
    return found


def _of_hivemq() -> Rules:
    tree = ElementTree.parse(bundled("broker", "hivemq-credentials.xml"))
    (role,) = (role for role in tree.iter("role") if role.findtext("id") == "device")
    ways = {"PUBLISH": "write", "SUBSCRIBE": "read"}
    return {
        (ways[one.findtext("activity", "")], one.findtext("topic", "").replace("${{username}}", "NAME"))
        for one in role.iter("permission")
    }


def test_every_broker_gets_the_rules_of_the_protocol() -> None:
    writes = {TOPICS.birth("NAME"), TOPICS.status("NAME"), TOPICS.response("NAME"), TOPICS.upload("NAME")}
    reads = {TOPICS.command("NAME"), TOPICS.chunk("NAME"), "fl/v1/watch/all/#", TOPICS.orchestrator}
    expected = {("write", topic) for topic in writes} | {("read", topic) for topic in reads}
    assert _of_mosquitto() == _of_emqx() == _of_hivemq() == expected


def test_the_configuration_of_hivemq_is_well_formed_and_asks_for_certificates() -> None:
    tree = ElementTree.parse(bundled("broker", "hivemq-config.xml"))
    assert tree.findtext(".//client-authentication-mode") == "REQUIRED"
    assert {one.text for one in tree.iter("protocol")} == {"TLSv1.2", "TLSv1.3"}


def _options(name: str) -> dict[str, str]:
    lines = bundled("broker", name).read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def test_the_two_dialects_of_mosquitto_differ_only_in_what_2_1_renamed() -> None:
    old, new = _options("mosquitto-2.0.conf"), _options("mosquitto-2.1.conf")
    assert old.pop("acl_file") == new.pop("plugin_opt_acl_file")
    assert old.pop("allow_anonymous") == new.pop("listener_allow_anonymous")
    assert new.pop("global_plugin").endswith("mosquitto_acl_file.so")
    assert old == new


@pytest.mark.mosquitto
def test_mosquitto_takes_the_file_for_your_own(mosquitto_is_here: None, tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    text = bundled("broker", "mosquitto-2.0.conf").read_text().replace("/etc/mas-edge/", f"{ground.fleet.folder}/")
    text = text.replace("listener 8883", f"listener {ground.fleet.settings.port} 127.0.0.1\nuser root")
    text = text.replace("/var/lib/mas-edge-broker/", f"{tmp_path}/")
    rules = Template(bundled("broker", "mosquitto.acl.template").read_text())
    ground.fleet.file("acl").write_text(rules.substitute(fleet="watch"))
    (tmp_path / "own.conf").write_text(text)
    context = context_for(parse_url(ground.url("a")))
    command = [str(find_mosquitto()), "-c", str(tmp_path / "own.conf")]
    port = ground.fleet.settings.port
    broker = Supervisor("mosquitto", command, "127.0.0.1", port, tmp_path, lambda: context)
    broker.start()
    try:
        until(lambda: answers("127.0.0.1", port, context))
        assert not answers("127.0.0.1", port)
    finally:
        broker.stop()
