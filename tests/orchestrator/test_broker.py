from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.edge.mqtt import Connected
from mas_edge.orchestrator import broker as brokers
from mas_edge.orchestrator.broker import EmbeddedBroker, ExternalBroker, ManagedBroker, embedded, managed, open_broker
from mas_edge.orchestrator.broker.supervisor import answers, free_port
from mas_edge.protocol.errors import BrokerError
from tests.conftest import Connect
from tests.inbox import until

OwnBroker = ManagedBroker | EmbeddedBroker


def _group_is_alive(group: int) -> bool:
    """Whether anything of the broker's process group lives: the broker, or the watcher that guards it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _pid(broker: OwnBroker) -> int:
    assert broker.pid is not None
    return broker.pid


def test_started_means_that_it_answers(own_broker: OwnBroker) -> None:
    assert own_broker.running
    assert answers("127.0.0.1", int(own_broker.url.rpartition(":")[2]))


def test_nothing_survives_stop(own_broker: OwnBroker) -> None:
    group = _pid(own_broker)
    own_broker.stop()
    assert not own_broker.running
    until(lambda: not _group_is_alive(group))
    own_broker.stop()  # a second time does no harm


def test_nothing_survives_the_death_of_the_orchestrator(own_broker: OwnBroker, tmp_path: Path) -> None:
    name = type(own_broker).__name__
    script = (
        f"import sys, time; from pathlib import Path; from mas_edge.orchestrator.broker import {name}\n"
        f"broker = {name}(Path(sys.argv[1])); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "other")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as orchestrator:
        assert orchestrator.stdout is not None
        group = int(orchestrator.stdout.readline())
        assert _group_is_alive(group)
        orchestrator.send_signal(signal.SIGKILL)
    until(lambda: not _group_is_alive(group))


def test_a_broker_that_dies_is_started_again_and_the_log_says_so(
    own_broker: OwnBroker, caplog: pytest.LogCaptureFixture
) -> None:
    first = _pid(own_broker)
    os.kill(first, signal.SIGKILL)
    until(lambda: own_broker.pid not in (None, first))
    until(lambda: answers("127.0.0.1", int(own_broker.url.rpartition(":")[2])))
    assert "ended with code -9; starting it again" in caplog.text
    until(lambda: not _group_is_alive(first))


def test_a_port_in_use_gives_one_clear_error(
    tmp_path: Path, mosquitto_is_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mas_edge.orchestrator.broker.supervisor.PORT_FREE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for broker in (ManagedBroker(tmp_path / "a", port=port), EmbeddedBroker(tmp_path / "b", port=port)):
            with pytest.raises(BrokerError, match=rf"port {port} on 127\.0\.0\.1 is not free"):
                broker.start()
            assert not broker.running


def test_the_managed_broker_keeps_its_port_and_what_it_retained(
    tmp_path: Path, mosquitto_is_here: None, connect: Connect, topic: str
) -> None:
    with ManagedBroker(tmp_path) as first:
        device, _ = connect(first.url)
        device.publish(topic, b"born", retain=True)
        device.stop()
    with ManagedBroker(tmp_path) as second:
        assert second.url == first.url
        _, inbox = connect(second.url, subscribe=topic)
        assert inbox.message(b"born").retained


def test_a_session_survives_a_restart_of_the_managed_broker(
    tmp_path: Path, mosquitto_is_here: None, connect: Connect, topic: str
) -> None:
    with ManagedBroker(tmp_path) as broker:
        _, inbox = connect(broker.url, subscribe=topic)
        broker.stop()
        broker.start()
        inbox.wait(lambda: len(inbox.of(Connected)) == 2)
        assert inbox.of(Connected)[1].session_present


def test_a_broker_that_does_not_come_up_says_its_last_words(tmp_path: Path, mosquitto_is_here: None) -> None:
    broker = ManagedBroker(tmp_path)
    (tmp_path / "broker" / "mosquitto.db").write_bytes(b"\0mosquitto db" + bytes(64))
    with pytest.raises(BrokerError, match=r"mosquitto ended with code \d+; its last words in .*mosquitto\.log: .+"):
        broker.start()
    assert not broker.running


def test_a_damaged_note_of_the_port_is_named(tmp_path: Path, mosquitto_is_here: None) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "port").write_text("many")
    with pytest.raises(BrokerError, match="holds 'many', expected a port number; delete the file"):
        ManagedBroker(tmp_path)


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(BrokerError, match=re.escape(f"cannot make the folder {tmp_path}/state/broker")):
        EmbeddedBroker(tmp_path / "state")


def test_the_network_is_only_served_when_asked(tmp_path: Path, mosquitto_is_here: None) -> None:
    with pytest.raises(BrokerError, match="--insecure"):
        ManagedBroker(tmp_path, host="0.0.0.0")


def test_on_the_network_there_is_a_warning_and_a_password(
    tmp_path: Path, mosquitto_is_here: None, connect: Connect, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ManagedBroker(tmp_path, host="0.0.0.0", insecure=True) as broker:
        assert "without TLS" in caplog.text
        link, inbox = connect(broker.url, subscribe=topic)
        link.publish(topic, b"let in")
        inbox.message(b"let in")
        for credentials in ("", "fleet:guess@"):
            stranger, _ = connect(re.sub("//.*@", f"//{credentials}", broker.url), wait=False)
            with pytest.raises(BrokerError, match=r"refuses the user name|does not let"):
                stranger.wait_connected(30)
        assert ManagedBroker(tmp_path, host="0.0.0.0", insecure=True).url == broker.url
    assert (tmp_path / "broker" / "password").stat().st_mode & 0o077 == 0


def test_the_embedded_broker_says_what_it_is_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), EmbeddedBroker(tmp_path):
        assert "for a first look: this machine only, nothing on disk" in caplog.text


def test_an_external_broker_is_checked_and_left_running(mosquitto: ManagedBroker) -> None:
    with open_broker(mosquitto.url, Path()) as broker:
        assert (broker.mode, broker.url, broker.running) == ("external", mosquitto.url, True)
    assert not broker.running
    assert mosquitto.running


def test_an_external_broker_that_is_not_there_gives_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mas_edge.orchestrator.broker.external.CONNECT_S", 0.5)
    with pytest.raises(BrokerError, match="nothing listens at mqtt://127"):
        ExternalBroker(f"mqtt://127.0.0.1:{free_port()}").start()


def test_auto_prefers_mosquitto_and_falls_back_to_the_embedded_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managed, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_broker("auto", tmp_path).mode == "embedded"
    program = tmp_path / "mosquitto"
    program.write_text("")
    program.chmod(0o755)
    assert open_broker("auto", tmp_path).mode == "managed"


def test_what_is_not_installed_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed, "_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded, "is_installed", lambda: False)
    monkeypatch.setattr(brokers, "is_installed", lambda: False)
    for spec, advice in {
        "managed": "apt install mosquitto",
        "embedded": "pip install",
        "auto": "install mosquitto",
    }.items():
        with pytest.raises(BrokerError, match=advice):
            open_broker(spec, tmp_path)


def test_an_unknown_broker_is_named_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="'rabbit' is not known: expected managed, embedded, auto or a URL"):
        open_broker("rabbit", tmp_path)


@pytest.mark.mosquitto
def test_the_managed_broker_listens_where_it_is_asked_to(mosquitto_is_here: None, tmp_path: Path) -> None:
    broker = open_broker("managed", tmp_path, "0.0.0.0:18999", insecure=True)
    assert re.fullmatch(r"mqtt://fleet:[\w-]+@127\.0\.0\.1:18999", broker.url)
    assert open_broker("managed", tmp_path, "[::1]").url.startswith("mqtt://[::1]:")


@pytest.mark.parametrize(
    ("spec", "listen", "reason"),
    [
        ("embedded", "0.0.0.0", "for the managed broker"),
        ("managed", "1:2:3", "expected HOST"),
        ("managed", "h:99999", "expected"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused(tmp_path: Path, spec: str, listen: str, reason: str) -> None:
    with pytest.raises(BrokerError, match=reason):
        open_broker(spec, tmp_path, listen)
