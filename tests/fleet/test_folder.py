"""A fleet's directory: who may read it, what is renewed by itself, and what is said when it is damaged."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.settings import FleetSettings, check_settings
from mas_edge.protocol.enrolment import (
    PIN_BYTES,
    SECRET_BYTES,
    Invitation,
    join_address,
    read_token,
    split_address,
    write_token,
)
from mas_edge.protocol.errors import EdgeError, MessageError, ServerError
from tests.fleet.members import DAY, Clock, make_fleet


def test_everything_is_for_the_owner_alone(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", Clock(time.time()))
    assert fleet.folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in fleet.folder.iterdir()}
    expected = {"ca.key", "ca.pem", "orchestrator.pem", "broker.pem", "crl.pem", "fleet.json", "fleet.db"}
    assert expected <= set(modes)
    assert {name: mode for name, mode in modes.items() if mode & 0o077 and not name.startswith("fleet.db-")} == {}


def test_a_fleet_is_not_made_over_another(tmp_path: Path) -> None:
    made = make_fleet(tmp_path, Clock(time.time()))
    before = made.file("ca.key").read_bytes()
    with pytest.raises(ServerError, match="holds a fleet already"):
        Fleet.create(tmp_path, FleetSettings("other", ["h"]))
    assert made.file("ca.key").read_bytes() == before


def test_a_directory_that_others_use_is_not_closed_to_them(tmp_path: Path) -> None:
    used, empty = tmp_path / "used", tmp_path / "empty"
    for folder in (used, empty):
        folder.mkdir()
        folder.chmod(0o755)
    (used / "letter.txt").touch()
    with pytest.raises(ServerError, match="holds other files"):
        make_fleet(used, Clock(time.time()))
    assert (used.stat().st_mode & 0o777, [path.name for path in used.iterdir()]) == (0o755, ["letter.txt"])
    make_fleet(empty, Clock(time.time()))
    assert empty.stat().st_mode & 0o777 == 0o700


def _certificate(fleet: Fleet, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(fleet.file(name).read_bytes())


@pytest.mark.parametrize("name", ["orchestrator.pem", "broker.pem"])
def test_servers_are_certified_anew_in_the_last_third_and_not_before(tmp_path: Path, name: str) -> None:
    clock = Clock(time.time())
    fleet = make_fleet(tmp_path, clock)
    first = _certificate(fleet, name)
    clock.now += 119 * DAY
    fleet.refresh()
    assert _certificate(fleet, name) == first
    clock.now += 2 * DAY
    fleet.refresh()
    assert _certificate(fleet, name).not_valid_after_utc > first.not_valid_after_utc


def test_another_host_in_the_settings_gets_into_the_certificates(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, Clock(time.time()))
    text = fleet.file("fleet.json").read_text()
    fleet.file("fleet.json").write_text(text.replace('"127.0.0.1"', '"192.0.2.7", "broker.example"'))
    names = _certificate(Fleet(tmp_path), "broker.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert {str(name.value) for name in names.value} == {"192.0.2.7", "broker.example", "localhost", "127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fleet.json", None, "there is no fleet"),
        ("fleet.json", b"{", "correct it"),
        ("fleet.json", b'{"name": "a/b", "hosts": ["h"]}', "not a valid name"),
        ("fleet.json", b'{"name": "a", "hosts": []}', "correct it"),
        ("ca.key", None, "restore both"),
        ("ca.key", b"-----BEGIN PRIVATE KEY-----\n", "restore both"),
        ("ca.pem", b"", "restore both"),
        ("fleet.db", b"not a database" * 100, "fleet.db cannot be used"),
        ("fleet.db", None, "fleet.db is lost.*restore it from a copy"),
        ("fleet.db", b"", "fleet.db is lost.*restore it from a copy"),
    ],
)
def test_a_damaged_directory_is_told_in_one_line(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    make_fleet(tmp_path, Clock(time.time())).close()
    path = tmp_path / name
    if content is None:
        path.unlink()
    else:
        for side in tmp_path.glob("fleet.db-*"):
            side.unlink()
        path.write_bytes(content)
    with pytest.raises(EdgeError, match=words) as caught:
        Fleet(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_key_of_another_authority_is_noticed(tmp_path: Path) -> None:
    one, two = (make_fleet(tmp_path / name, Clock(time.time())) for name in ("one", "two"))
    one.file("ca.key").write_bytes(two.file("ca.key").read_bytes())
    with pytest.raises(ServerError, match="is not the key of"):
        Fleet(tmp_path / "one")


_names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_hosts = st.one_of(st.ip_addresses().map(str), st.from_regex(r"\A[a-z][a-z0-9.-]{0,30}\Z"))
_secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


@given(_names, _hosts, st.integers(1, 65535), _secrets)
def test_a_token_says_what_was_written_into_it(name: str, host: str, port: int, secret: bytes) -> None:
    invitation = Invitation(name, join_address(host, port), secret[:PIN_BYTES], secret)
    token = write_token(invitation)
    assert read_token(f"  {token[:40]}\n{token[40:]} ") == invitation
    assert split_address(invitation.address) == (host, port)


@given(st.data())
def test_a_token_with_a_wrong_letter_is_told_as_damaged(data: st.DataObject) -> None:
    token = write_token(Invitation("pi-1", "192.0.2.7:8884", bytes(PIN_BYTES), bytes(SECRET_BYTES)))
    at = data.draw(st.integers(5, len(token) - 2))
    letter = data.draw(st.sampled_from("ABCxyz019_-").filter(lambda letter: letter != token[at]))
    with pytest.raises(MessageError, match="damaged"):
        read_token(token[:at] + letter + token[at + 1 :])


@pytest.mark.parametrize("text", ["", "hello", "mas2.AAAA", "mas1.", "mas1.*", "mas1.AAAAAAAAAAAA"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(MessageError, match="token"):
        read_token(text)


def test_a_token_does_not_print_its_secret() -> None:
    invitation = Invitation("pi-1", "192.0.2.7:8884", bytes(PIN_BYTES), b"0123456789abcdef")
    assert "0123456789" not in repr(invitation)


@pytest.mark.parametrize("host", ["server.example", "raspberrypi", "192.0.2.7", "::1", "my_service", "7.example"])
def test_a_host_that_a_certificate_can_name_is_taken(host: str) -> None:
    assert check_settings(FleetSettings("f", [host])).hosts == [host]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        *((FleetSettings("f", [host]), "is no host: expected a name such as") for host in (
            "", "bad host", "http://h", "h:8883", "hütte.example", "300.0.2.7", "fe80::1%eth0", "-h", "h..example", "*",
        )),
        (FleetSettings("f", ["h"], port=0), "0 is no port: expected 1 to 65535"),
        (FleetSettings("f", ["h"], enrolment_port=65536), "65536 is no port"),
        (FleetSettings("f", ["h"], 8884), "cannot both have port 8884"),
        (FleetSettings("f", ["h"], device_days=0), "cannot last 0 days: expected up to 365"),
        (FleetSettings("f", ["h"], device_days=float("nan")), "cannot last nan days"),
        (FleetSettings("f/g", ["h"]), "not a valid name"),
    ],
)  # fmt: skip
def test_settings_that_no_device_could_use_make_no_fleet(tmp_path: Path, settings: FleetSettings, words: str) -> None:
    with pytest.raises(EdgeError, match=re.escape(words)):
        Fleet.create(tmp_path / "fleet", settings)
    assert not (tmp_path / "fleet").exists()
