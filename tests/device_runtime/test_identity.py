"""Joining a fleet, what is kept of it, and the certificate that renews itself."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime import identity, keys
from device_runtime.data import open_data
from device_runtime.edge.address import parse_url
from device_runtime.identity import Identity
from device_runtime.membership import membership
from device_runtime.runtime import Runtime, Settings
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.enrolment import Invitation, write_token
from mas_edge.protocol.errors import BrokerError, DeviceError
from tests.conftest import Connect
from tests.device_runtime.tiny_job import tiny_data
from tests.fleet.members import DAY, Clock, make_fleet
from tests.inbox import until


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Iterator[Fleet]:
    made = make_fleet(tmp_path / "fleet", clock)
    with Endpoint(made, "127.0.0.1"):
        yield made


def _never(reason: str) -> None:
    raise AssertionError(reason)


def test_what_a_device_keeps_is_for_its_owner_alone_and_ends_with_the_certificate(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    joined = identity.join(state, Enrolment(fleet).invite("pi-1"), _never)
    assert (joined.record.name, joined.record.fleet) == ("pi-1", "watch")
    kept = {path.name: path.stat().st_mode & 0o777 for path in (state / "identity").iterdir()}
    assert kept == {"device.pem": 0o600, "ca.pem": 0o600, "identity.json": 0o600}
    assert (state / "identity").stat().st_mode & 0o777 == 0o700


def test_a_device_that_lost_the_answer_joins_with_the_same_token(fleet: Fleet, tmp_path: Path) -> None:
    """Killed between the server's transaction and its own disk: the key is there, and the token is good for it."""
    invitation = Enrolment(fleet).invite("pi-1")
    mark = identity.fingerprint(tmp_path)
    identity.join(tmp_path, invitation, _never)
    folder = tmp_path / "identity"
    certificate = (folder / "device.pem").read_bytes()
    key = certificate[certificate.index(b"-----BEGIN PRIVATE") :]
    for name in ("device.pem", "ca.pem", "identity.json"):
        (folder / name).unlink()
    (folder / "joining.pem").write_bytes(key)
    assert identity.fingerprint(tmp_path) == mark
    identity.join(tmp_path, invitation, _never)
    assert (folder / "device.pem").read_bytes() == certificate


def test_a_key_that_was_damaged_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "joining.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    assert identity.fingerprint(tmp_path) == identity.fingerprint(tmp_path)


def test_a_device_in_one_fleet_does_not_join_another_by_accident(fleet: Fleet, tmp_path: Path) -> None:
    identity.join(tmp_path, Enrolment(fleet).invite("pi-1"), _never)
    with pytest.raises(DeviceError, match="belongs to pi-1"):
        identity.join(tmp_path, Enrolment(fleet).invite("pi-2"), _never)


def test_a_held_device_asks_again_until_it_is_approved(fleet: Fleet, tmp_path: Path) -> None:
    rules = Enrolment(fleet)
    invitation = rules.invite("pi-1", hold=True)
    reasons: list[str] = []

    def operator(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) == 2:
            rules.approve("pi-1", identity.fingerprint(tmp_path)[:16])

    identity.join(tmp_path, invitation, operator)
    assert len(reasons) == 2
    assert all(identity.fingerprint(tmp_path / "other")[:16] not in reason for reason in reasons)


def test_a_certificate_near_its_end_is_renewed_with_a_new_key_and_serves_at_once(
    tmp_path: Path, clock: Clock, mosquitto_is_here: None, connect: Connect
) -> None:
    clock.now -= 25 * DAY  # it joined 25 days ago; its certificate has five left
    fleet = make_fleet(tmp_path / "fleet", clock)
    with Endpoint(fleet, "127.0.0.1"), ManagedBroker(tmp_path, port=fleet.settings.port, fleet=fleet) as broker:
        joined = identity.join(tmp_path / "state", Enrolment(fleet).invite("pi-1"), _never)
        first = joined.file("device.pem").read_bytes()
        link, _ = connect(joined.url)
        clock.now += 25 * DAY
        stop = threading.Event()
        thread = threading.Thread(target=joined.keep_fresh, args=(stop,))
        thread.start()
        until(lambda: joined.file("device.pem").read_bytes() != first)
        stop.set()
        thread.join()
        second = joined.file("device.pem").read_bytes()
        assert keys.validity(second)[1] > keys.validity(first)[1]
        assert second[second.index(b"-----BEGIN PRIVATE") :] not in first
        # Whatever the first one was good for, from now on the second one is what is shown.
        with fleet.registry.transaction():
            fleet.registry._rows("UPDATE certificates SET revoked = ? WHERE serial = ?", clock(), _serial(first))
        fleet.list_revocations()
        before = broker.pid
        broker.renew()
        until(lambda: broker.pid not in (None, before))
        until(lambda: link.connected)


def _serial(certificate: bytes) -> str:
    from cryptography import x509

    return str(x509.load_pem_x509_certificate(certificate).serial_number)


def test_a_server_that_is_away_leaves_the_certificate_as_it_is(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now -= 25 * DAY
    fleet = make_fleet(tmp_path / "fleet", clock)
    with Endpoint(fleet, "127.0.0.1"):
        joined = identity.join(tmp_path / "state", Enrolment(fleet).invite("pi-1"), _never)
    first = joined.file("device.pem").read_bytes()
    stop = threading.Event()
    thread = threading.Thread(target=joined.keep_fresh, args=(stop,))
    thread.start()
    until(lambda: "nothing listens" in caplog.text)
    stop.set()
    thread.join()
    assert joined.file("device.pem").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "named", "url", "words"),
    [
        ("pi-2", "fleet", "", "belongs to pi-1"),
        ("pi-1", "other", "", "has joined fleet watch"),
        ("pi-1", "fleet", "mqtt://127.0.0.1", "is encrypted"),
    ],
)
def test_an_owner_who_contradicts_the_identity_is_told(
    fleet: Fleet, tmp_path: Path, name: str, named: str, url: str, words: str
) -> None:
    identity.join(tmp_path, Enrolment(fleet).invite("pi-1"), _never)
    with pytest.raises(DeviceError, match=words):
        membership(name, named, url, tmp_path)


def test_where_a_device_connects(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="has not joined"):
        membership("pi-1", "fleet", "", tmp_path)
    assert membership("pi-1", "home", "mqtt://h", tmp_path).broker == "mqtt://h"
    joined = identity.join(tmp_path, Enrolment(fleet).invite("pi-1"), _never)
    own = membership("pi-1", "fleet", "", tmp_path)
    assert (own.broker, own.fleet) == (joined.url, "watch")
    assert membership("pi-1", "watch", "mqtts://moved:1", tmp_path).broker == joined.url_at("mqtts://moved:1")
    assert parse_url(joined.url_at("mqtts://moved:1?ca=x")).cert == parse_url(joined.url).cert
    own_certificate = "mqtts://moved:1?ca=/ca.pem&cert=/mine.pem"
    assert membership("pi-1", "watch", own_certificate, tmp_path).broker == own_certificate
    with pytest.raises(BrokerError, match="not valid"):
        membership("pi-1", "watch", "http://moved", tmp_path)


def test_a_damaged_identity_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="has not joined a fleet"):
        Identity(tmp_path)
    (tmp_path / "identity").mkdir()
    (tmp_path / "identity" / "identity.json").write_text("{}")
    with pytest.raises(DeviceError, match="join again"):
        Identity(tmp_path)


@pytest.mark.parametrize(
    ("days", "words"),
    [(10, "not yet valid; set this machine's clock"), (-5000, "expired; set this machine's clock, if")],
)
def test_a_device_whose_clock_is_wrong_is_told_so_when_it_joins(
    tmp_path: Path, clock: Clock, days: int, words: str
) -> None:
    clock.now += days * DAY  # the server's; what differs is the same
    fleet = make_fleet(tmp_path / "fleet", clock)
    with Endpoint(fleet, "127.0.0.1"), pytest.raises(DeviceError, match=words):
        identity.join(tmp_path, Enrolment(fleet).invite("pi-1"), _never)


@pytest.mark.parametrize("name", ["device.pem", "ca.pem"])
@pytest.mark.parametrize("content", [None, b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nMIIB"])
def test_a_damaged_certificate_is_told_before_anything_is_tried(
    fleet: Fleet, tmp_path: Path, name: str, content: bytes | None
) -> None:
    file = identity.join(tmp_path, Enrolment(fleet).invite("pi-1"), _never).file(name)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DeviceError, match=f"{name}.*; join again with a new token"):
        membership("pi-1", "fleet", "", tmp_path)
    identity.join(tmp_path, Enrolment(fleet).invite("pi-1", again=True), _never)
    assert membership("pi-1", "fleet", "", tmp_path).fleet == "watch"


def test_no_secret_of_the_brokers_url_is_logged(
    tmp_path: Path, clock: Clock, mosquitto_is_here: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Who knows the secret end of a connection's name can throw the device out: see the threat model."""
    fleet, state, stop = make_fleet(tmp_path / "fleet", clock), tmp_path / "state", threading.Event()
    tiny_data(tmp_path / "data", train=4, test=1)
    with Endpoint(fleet, "127.0.0.1"), ManagedBroker(tmp_path, port=fleet.settings.port, fleet=fleet):
        joined = identity.join(state, Enrolment(fleet).invite("pi-1"), _never)
        url = joined.url.replace("mqtts://", "mqtts://pi-1:password-of-pi-1@")
        runtime = Runtime(Settings("pi-1", "watch", url, state, "torch"), open_data(tmp_path / "data"))
        with caplog.at_level(logging.DEBUG):
            thread = threading.Thread(target=runtime.run, args=(stop,))
            thread.start()
            until(lambda: any(record.name == "device_runtime.runtime" for record in caplog.records))
            stop.set()
            thread.join()
    for secret in (joined.record.suffix, "password-of-pi-1"):
        assert secret not in caplog.text


def _device(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "device_runtime", *words]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_command_joins_and_shows_no_secret(fleet: Fleet, tmp_path: Path) -> None:
    invitation: Invitation = Enrolment(fleet).invite("pi-1")
    token = write_token(invitation)
    ended = _device("join", token, XDG_STATE_HOME=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    assert "pi-1 is in fleet watch" in ended.stdout
    kept = (tmp_path / "mas-edge" / "pi-1" / "identity" / "device.pem").read_text()
    for secret in (token, invitation.secret.hex(), *kept[kept.index("-----BEGIN PRIVATE") :].splitlines()[1:-1]):
        assert secret not in ended.stdout + ended.stderr
    again = _device("join", token, "--state", str(tmp_path / "second"))
    assert (again.returncode, again.stdout.count("\n")) == (7, 1)
    assert "has been used already, with another key" in again.stderr
    other = _device("join", write_token(Enrolment(fleet).invite("pi-2")), "--state", str(tmp_path / "pi-2"), "--json")
    member = json.loads(other.stdout)
    assert (member["name"], member["fleet"], member["signed"]) == ("pi-2", "watch", False)
    assert f"key {member['key']} of pi-2" in other.stderr


def test_without_the_package_the_command_says_what_to_install(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography" / "__init__.py").write_text("raise ImportError")
    token = write_token(Enrolment(fleet).invite("pi-1"))
    ended = _device("join", token, "--state", str(tmp_path / "state"), PYTHONPATH=str(tmp_path))
    assert ended.returncode == 7
    assert "pip install 'mas-edge[secure]'" in ended.stderr
    assert "Traceback" not in ended.stderr
