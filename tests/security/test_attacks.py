"""What an outsider and what an enrolled device can do to others through a real mosquitto: nothing.

Nothing is believed of the broker's answers (2.0 grants every subscription): each test watches what arrives where, and
that what is permitted does arrive.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from device_runtime import keys
from device_runtime.edge import enrolment
from device_runtime.edge.events import Arrived, Connected, Disconnected
from device_runtime.edge.mqtt import Link
from device_runtime.edge.tls import fleet_context
from mas_edge.fleet.authority import ORCHESTRATOR, Use, key_of_request, pem
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.guard import Guard
from mas_edge.protocol.enrolment import MAX_BODY_BYTES
from mas_edge.protocol.errors import BrokerError, DeviceError
from tests.fleet.members import Clock, make_fleet
from tests.inbox import Inbox, until
from tests.security.ground import TOPICS, Ground, hang_up, overheard, say_until_heard

pytestmark = pytest.mark.mosquitto


@pytest.fixture(scope="module")
def ground(mosquitto_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("ground")) as ready:
        yield ready


# --- reading ---------------------------------------------------------------------------------------------------------

FILTERS = [
    TOPICS.command("b"), TOPICS.chunk("b"), TOPICS.response("b"), TOPICS.upload("b"), TOPICS.birth("b"),
    TOPICS.status("b"), TOPICS.every("cmd"), TOPICS.every("rsp"), "fl/v1/watch/dev/b/#", "fl/v1/watch/dev/#",
    "fl/v1/#", "fl/#", "#", "+/+/+/+/+/+", "$SYS/#", f"$share/thieves/{TOPICS.command('b')}", "$share/thieves/#",
]  # fmt: skip


def test_a_device_reads_nothing_that_is_for_or_from_another(ground: Ground) -> None:
    theirs = (TOPICS.birth("b"), TOPICS.status("b"), TOPICS.response("b"), TOPICS.upload("b"))
    with (
        ground.orchestrator("fl/v1/watch/#") as (orchestrator, heard),
        ground.link(ground.url("b"), TOPICS.command("b"), TOPICS.chunk("b")) as (victim, received),
    ):
        victim.publish(theirs[0], b"retained", retain=True)
        heard.message(b"retained")
        # Its own topic comes last: once that is served, the others have been asked for.
        with ground.link(ground.url("a"), *FILTERS, TOPICS.command("a")) as (_, spied):
            say_until_heard(lambda word: orchestrator.publish(TOPICS.command("a"), word), spied)
            for topic in theirs:
                victim.publish(topic, f"from {topic}".encode())
                heard.message(f"from {topic}".encode())
            for topic in (TOPICS.command("b"), TOPICS.chunk("b")):
                orchestrator.publish(topic, f"for {topic}".encode())
                received.message(f"for {topic}".encode())
            say_until_heard(lambda word: orchestrator.publish(TOPICS.command("a"), word), spied)
            assert overheard(spied) == []


def test_a_device_hears_what_is_for_all(ground: Ground) -> None:
    topics = (TOPICS.command_all, TOPICS.broadcast("0" * 64), TOPICS.orchestrator)
    with ground.orchestrator() as (orchestrator, _), ground.link(ground.url("a"), *topics) as (_, inbox):
        for topic in topics:
            say_until_heard(lambda word, topic=topic: orchestrator.publish(topic, word), inbox)  # type: ignore[misc]


# --- writing ---------------------------------------------------------------------------------------------------------

FORBIDDEN = [
    TOPICS.birth("b"), TOPICS.status("b"), TOPICS.response("b"), TOPICS.upload("b"), TOPICS.command("b"),
    TOPICS.chunk("b"), TOPICS.command("a"), TOPICS.chunk("a"), TOPICS.command_all, TOPICS.broadcast("0" * 64),
    TOPICS.orchestrator, "fl/v1/watch/dev/a/other", "fl/v1/watch/dev/a/rsp/more", "fl/v1/watch/dev//rsp", "fl/v1/watch",
]  # fmt: skip


@pytest.mark.parametrize("qos", [0, 1])
def test_a_device_writes_nothing_but_its_own(ground: Ground, qos: int) -> None:
    victims = (TOPICS.command("b"), TOPICS.chunk("b"), TOPICS.command_all, TOPICS.orchestrator)
    with (
        ground.orchestrator("fl/v1/watch/#") as (orchestrator, heard),
        ground.link(ground.url("b"), *victims) as (_, received),
    ):
        say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), received)
        for topic in FORBIDDEN:
            with ground.raw(ground.url("a")) as attacker:  # mosquitto hangs up on a publication that it denies
                attacker.publish(topic, f"forged {topic}".encode(), qos).wait_for_publish(30)
        with ground.link(ground.url("a")) as (own, _):
            say_until_heard(lambda word: own.publish(TOPICS.response("a"), word), heard)
        say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), received)
    assert [one for one in heard.of(Arrived) if one.payload.startswith(b"forged")] == []
    assert overheard(received) == []


def test_a_last_will_speaks_only_for_its_own_device(ground: Ground) -> None:
    with ground.orchestrator(TOPICS.every("status")) as (_, heard):
        for topic in (TOPICS.status("b"), TOPICS.status("a")):
            with ground.raw(ground.url("a"), will=topic) as attacker:
                hang_up(attacker)
                until(lambda attacker=attacker: not attacker.is_connected())  # type: ignore[misc]
        heard.message(b"forged")
        assert {one.topic for one in heard.of(Arrived)} == {TOPICS.status("a")}


# --- getting in ------------------------------------------------------------------------------------------------------


def _issued(ground: Ground, name: str, use: Use, *, age: timedelta = timedelta(), life: timedelta) -> str:
    """A file for somebody who got a certificate of the fleet's authority past its rules."""
    key = keys.new_key()
    public = key_of_request(keys.signing_request(key))
    made = ground.fleet.authority.issue(public, name, use, ground.fleet.now - age, life)
    ground.keep(f"got-{use}", pem(made) + key)
    return ground.url(f"got-{use}")


def _no_certificate(ground: Ground) -> str:
    return ground.url()


def _expired(ground: Ground) -> str:
    return _issued(ground, "a", "client", age=timedelta(days=3), life=timedelta(days=1))


def _a_servers(ground: Ground) -> str:
    return _issued(ground, ORCHESTRATOR, "server", life=timedelta(days=1))


def _other_authority(ground: Ground) -> str:
    """The same name by another fleet's authority, which calls itself the same."""
    folder = ground.folder / "other"
    if not folder.exists():
        make_fleet(folder, Clock(ground.clock.now)).close()
    ground.keep("stranger", (folder / "orchestrator.pem").read_bytes())
    return ground.url("stranger")


def _revoked(ground: Ground) -> str:
    ground.enrol("lost")
    ground.rules.revoke("lost")
    before = ground.broker.pid
    ground.broker.renew()
    until(lambda: ground.broker.pid not in (None, before))
    return ground.url("lost")


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (_no_certificate, "only who has a certificate"),
        (_expired, "has expired"),
        (_a_servers, "does not accept a certificate of this kind"),
        (_other_authority, "does not know who issued"),
        (_revoked, "is revoked"),
    ],
)
def test_who_is_not_a_member_does_not_get_in_and_is_told_why(
    ground: Ground, who: Callable[[Ground], str], words: str
) -> None:
    inbox = Inbox()
    link = Link(who(ground), "stranger", inbox.put)
    link.start()
    inbox.wait(lambda: any(words in event.reason for event in inbox.of(Disconnected)))
    link.stop()
    assert inbox.of(Connected) == []
    with ground.link(ground.url("a")):
        pass  # a member gets in all the while


def test_without_tls_nobody_gets_in(ground: Ground) -> None:
    link = Link(f"mqtt://127.0.0.1:{ground.fleet.settings.port}", "plain", lambda _: None)
    link.start()
    with pytest.raises(BrokerError, match="is it mqtt:// or mqtts://"):
        link.wait_connected(2)
    link.stop()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(ground: Ground) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")  # else our own side would not even try
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.load_verify_locations(ground.fleet.file("ca.pem"))
    context.load_cert_chain(ground.folder / "a.pem")
    port = ground.fleet.settings.port
    with socket.create_connection(("127.0.0.1", port), 30) as plain, pytest.raises(ssl.SSLError, match=r"(?i)version"):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("name", ["+", "#", "b/cmd", "+/cmd", "$SYS"])
def test_a_name_with_wildcards_gets_at_nothing_even_with_a_certificate(ground: Ground, name: str) -> None:
    """No invitation gives such a name; this is what is left if the authority's key was used by hand."""
    url = _issued(ground, name, "client", life=timedelta(days=1))
    inbox = Inbox()
    odd = Link(url, "odd", inbox.put)
    for topic in (*FILTERS, TOPICS.command_all):
        odd.subscribe(topic)
    odd.start()
    with (
        ground.orchestrator("fl/v1/watch/#") as (orchestrator, heard),
        ground.link(ground.url("b"), TOPICS.command("b")) as (_, received),
    ):
        until(lambda: bool(inbox.events))  # it is in, or it is told that it is not
        if odd.connected:
            for topic in FORBIDDEN:
                odd.publish(topic, b"forged", qos=0)
        say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), received)
        orchestrator.publish(TOPICS.command("b"), b"secret")
        received.message(b"secret")
        say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), received)
        assert [one for one in heard.of(Arrived) if one.payload == b"forged"] == []
    odd.stop()
    assert [one for one in inbox.of(Arrived) if one.topic != TOPICS.command_all] == []


# --- being somebody else ---------------------------------------------------------------------------------------------


def test_a_device_that_takes_the_session_of_another_gets_none_of_its_messages(ground: Ground) -> None:
    """Even if it knows the secret end of the other's connection name."""
    with ground.orchestrator() as (orchestrator, _):
        with ground.link(ground.url("b"), TOPICS.command("b"), client_id="b-secret") as (_, first):
            say_until_heard(lambda word: orchestrator.publish(TOPICS.command("b"), word), first)
        orchestrator.publish(TOPICS.command("b"), b"waits in the session")
        with ground.link(ground.url("a"), TOPICS.command("a"), client_id="b-secret") as (_, stolen):
            say_until_heard(lambda word: orchestrator.publish(TOPICS.command("a"), word), stolen)
            assert overheard(stolen) == []


def test_a_device_does_not_throw_out_another_whose_secret_it_does_not_know(ground: Ground) -> None:
    with ground.link(ground.url("b") + "&suffix=0123456789abcdef", client_id="b") as (victim, inbox):
        for guess in ("", "&suffix=0", "&suffix=0123456789abcdee"):
            with ground.link(ground.url("a") + guess, client_id="b"):
                pass
        assert victim.connected
        assert inbox.of(Disconnected) == []


def _serve_once(listener: socket.socket, context: ssl.SSLContext) -> None:
    plain, _ = listener.accept()
    with plain:
        try:
            context.wrap_socket(plain, server_side=True).close()
        except OSError:
            return


@pytest.mark.parametrize("who", ["a", "another fleet's broker"])
def test_nobody_passes_as_the_broker(ground: Ground, who: str) -> None:
    if who != "a":
        _other_authority(ground)
        ground.keep(who, (ground.folder / "other" / "broker.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ground.folder / f"{who}.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve_once, args=(listener, context))
        thread.start()
        port = listener.getsockname()[1]
        inbox = Inbox()
        victim = Link(ground.url("b").replace(f":{ground.fleet.settings.port}", f":{port}"), "b", inbox.put)
        victim.start()
        inbox.wait(lambda: any("is not trusted" in event.reason for event in inbox.of(Disconnected)))
        victim.stop()
        thread.join()


# --- enrolling -------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(ground: Ground) -> Iterator[Ground]:
    with Endpoint(ground.fleet, "127.0.0.1"):
        yield ground


def _refuse_to_wait(reason: str) -> None:
    raise AssertionError(reason)


def test_a_token_lets_one_device_in_once(endpoint: Ground, tmp_path: Path) -> None:
    invitation = endpoint.rules.invite("new", again=True)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(enrolment.fetch_ca(invitation.address, invitation.pin))
    key = keys.new_key()
    issued = enrolment.join(invitation, ca, keys.signing_request(key), _refuse_to_wait)
    endpoint.keep("new", issued.certificate.encode() + key)
    with endpoint.link(endpoint.url("new")):
        pass
    with pytest.raises(DeviceError, match="has been used already, with another key"):
        enrolment.join(invitation, ca, keys.signing_request(keys.new_key()), _refuse_to_wait)


def test_an_expired_token_lets_nobody_in(endpoint: Ground, tmp_path: Path) -> None:
    endpoint.clock.now -= 2.0
    invitation = endpoint.rules.invite("late", valid_s=1.0)
    endpoint.clock.now += 2.0
    with pytest.raises(DeviceError, match="has expired"):
        enrolment.join(invitation, endpoint.fleet.file("ca.pem"), keys.signing_request(keys.new_key()), _refuse_to_wait)


def test_who_has_no_certificate_renews_none(endpoint: Ground) -> None:
    address = endpoint.fleet.enrolment_address
    request = keys.signing_request(keys.new_key())
    ca = endpoint.fleet.file("ca.pem")
    with pytest.raises(DeviceError, match="needs the device's present certificate"):
        enrolment._issued(
            *enrolment._exchange(address, fleet_context(ca), "POST", "/v1/renew", json.dumps({"csr": request}).encode())
        )
    _issued(endpoint, "a", "client", age=timedelta(days=3), life=timedelta(days=1))
    with pytest.raises(DeviceError, match="expired"):
        enrolment.renew(address, ca, endpoint.folder / "got-client.pem", request)
    _issued(endpoint, "a", "client", life=timedelta(days=1))
    with pytest.raises(DeviceError, match="not one of the fleet's devices"):
        enrolment.renew(address, ca, endpoint.folder / "got-client.pem", request)


def test_a_token_goes_to_nobody_but_the_authority_that_made_it(ground: Ground, tmp_path: Path) -> None:
    """A server in between that even shows the true authority's certificate gets no secret."""
    other = make_fleet(tmp_path / "other", Clock(ground.clock.now))
    invitation = ground.rules.invite("careful", again=True)
    misled = type(invitation)(invitation.name, other.enrolment_address, invitation.pin, invitation.secret)
    with Endpoint(other, "127.0.0.1") as between:
        with pytest.raises(DeviceError, match="not the one that made this token"):
            enrolment.fetch_ca(misled.address, misled.pin)
        assert between._server is not None
        seen: list[object] = []
        between._server.rules.join = seen.append  # type: ignore[method-assign, assignment]
        other.file("ca.pem").write_bytes(ground.fleet.file("ca.pem").read_bytes())
        ca = tmp_path / "ca.pem"
        ca.write_bytes(enrolment.fetch_ca(misled.address, misled.pin))
        with pytest.raises(DeviceError, match="is not trusted"):
            enrolment.join(misled, ca, keys.signing_request(keys.new_key()), _refuse_to_wait)
        assert seen == []


def test_connections_that_say_nothing_keep_nobody_from_joining(endpoint: Ground) -> None:
    where = ("127.0.0.1", endpoint.fleet.settings.enrolment_port)
    silent = [socket.create_connection(where) for _ in range(20)]
    try:
        assert enrolment.fetch_ca(endpoint.fleet.enrolment_address, endpoint.fleet.pin)
    finally:
        for sock in silent:
            sock.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", b"", 404),
        ("GET", "/v1/../../etc/passwd", b"", 404),
        ("POST", "/v1/ca", b"{}", 404),
        ("POST", "/v1/join", b"", 400),
        ("POST", "/v1/join", b"{" * (MAX_BODY_BYTES + 1), 413),
        ("POST", "/v1/join", b"\xff", 400),
        ("POST", "/v1/join", b'{"name": "x", "secret": "zz", "csr": ""}', 400),
        ("POST", "/v1/join", b'{"name": "x", "secret": "00", "csr": "", "more": 1}', 400),
    ],
)
def test_odd_requests_get_a_short_refusal(endpoint: Ground, method: str, path: str, body: bytes, status: int) -> None:
    context = fleet_context(endpoint.fleet.file("ca.pem"))
    answered, text = enrolment._exchange(endpoint.fleet.enrolment_address, context, method, path, body)
    assert answered == status
    assert len(text) < 300


# --- being thrown out ------------------------------------------------------------------------------------------------


def test_a_revoked_device_is_disconnected_and_stays_out_while_the_others_come_back(ground: Ground) -> None:
    ground.enrol("gone")
    with Guard(ground.fleet, ground.broker.renew), ground.link(ground.url("a")) as (other, others):
        with ground.link(ground.url("gone")) as (gone, inbox):
            ground.rules.revoke("gone")
            inbox.wait(lambda: any("is revoked" in event.reason for event in inbox.of(Disconnected)))
            assert len(inbox.of(Connected)) == 1
            assert not gone.connected
        others.wait(lambda: len(others.of(Connected)) >= 2)
        until(lambda: other.connected)
