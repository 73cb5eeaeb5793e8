"""The rules of inviting, joining, renewing, approving and revoking, with a clock that the test turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from device_runtime import keys
from mas_edge.fleet.enrolment import Enrolment, RefusedError, WaitsError
from mas_edge.fleet.folder import Fleet
from mas_edge.protocol.enrolment import Invitation, JoinRequest
from mas_edge.protocol.errors import MessageError, ServerError
from tests.fleet.members import DAY, Clock, ask, enrol, make_fleet


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Fleet:
    return make_fleet(tmp_path / "fleet", clock)


@pytest.fixture
def rules(fleet: Fleet) -> Enrolment:
    return Enrolment(fleet)


def test_a_certificate_says_the_invited_name_and_is_good_for_a_client_alone(rules: Enrolment) -> None:
    key, certificate = enrol(rules, "pi-1")
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "pi-1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert keys.is_certificate_of(certificate.public_bytes(serialization.Encoding.PEM), key)


def test_the_answer_that_was_lost_is_given_again_to_the_same_key(rules: Enrolment) -> None:
    invitation, key = rules.invite("pi-1"), keys.new_key()
    assert ask(rules, invitation, key) == ask(rules, invitation, key)


def other_key(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1")
    ask(rules, invitation, keys.new_key())
    return invitation


def expired(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1", valid_s=60.0)
    clock.now += 61
    return invitation


def replaced(rules: Enrolment, clock: Clock) -> Invitation:
    first = rules.invite("pi-1")
    rules.invite("pi-1")
    return first


def withdrawn(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1")
    rules.revoke("pi-1")
    return invitation


def guessed(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1")
    return Invitation(invitation.name, invitation.address, invitation.pin, bytes(16))


def of_another_name(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1")
    rules.invite("pi-2")
    return Invitation("pi-2", invitation.address, invitation.pin, invitation.secret)


def of_nobody(rules: Enrolment, clock: Clock) -> Invitation:
    invitation = rules.invite("pi-1")
    return Invitation("nobody", invitation.address, invitation.pin, invitation.secret)


@pytest.mark.parametrize(
    ("attack", "answer"),
    [
        (other_key, "has been used already, with another key"),
        (expired, "has expired"),
        (replaced, "is not known"),
        (withdrawn, "is not known"),
        (guessed, "is not known"),
        (of_another_name, "is not known"),
        (of_nobody, "is not known"),
    ],
)
def test_a_token_that_is_not_good_is_refused(
    rules: Enrolment, clock: Clock, attack: Callable[[Enrolment, Clock], Invitation], answer: str
) -> None:
    invitation = attack(rules, clock)
    with pytest.raises(RefusedError, match=answer):
        ask(rules, invitation, keys.new_key())


@pytest.mark.parametrize("name", ["a/b", "+", "#", "$SYS", "@orchestrator", "", "a" * 65, "a\nb", ".hidden"])
def test_nobody_is_invited_by_a_name_that_would_match_the_topics_of_others(rules: Enrolment, name: str) -> None:
    with pytest.raises(MessageError, match="not a valid name"):
        rules.invite(name)


def _rsa_request() -> str:
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _other_curve() -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _tampered() -> str:
    """A request whose signature is of another one: a key that the sender need not have."""
    requests = [x509.load_pem_x509_csr(keys.signing_request(keys.new_key()).encode()) for _ in range(2)]
    wires = [bytearray(request.public_bytes(serialization.Encoding.DER)) for request in requests]
    wires[0][-20:] = wires[1][-20:]
    return x509.load_der_x509_csr(bytes(wires[0])).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("request_of", "answer"),
    [
        (lambda: "", "cannot be read"),
        (lambda: "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "cannot be read"),
        (_rsa_request, "another kind of key"),
        (_other_curve, "another kind of key"),
        (_tampered, "not signed by its own key"),
    ],
)
def test_a_request_that_proves_no_key_is_refused_and_uses_up_nothing(
    rules: Enrolment, request_of: Callable[[], str], answer: str
) -> None:
    invitation = rules.invite("pi-1")
    with pytest.raises(MessageError, match=answer):
        rules.join(JoinRequest("pi-1", invitation.secret.hex(), request_of()))
    ask(rules, invitation, keys.new_key())


def test_the_subject_of_a_request_is_not_believed(rules: Enrolment) -> None:
    key = keys.new_key()
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "@orchestrator")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private, hashes.SHA256())
    invitation = rules.invite("pi-1")
    text = request.public_bytes(serialization.Encoding.PEM).decode()
    issued = rules.join(JoinRequest("pi-1", invitation.secret.hex(), text))
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert [name.value for name in certificate.subject] == ["watch", "pi-1"]


def test_a_held_invitation_waits_for_the_operator_who_compares_keys(rules: Enrolment) -> None:
    invitation, key = rules.invite("pi-1", hold=True), keys.new_key()
    mark = keys.fingerprint(key)
    for _ in range(2):
        with pytest.raises(WaitsError, match=mark[:16]):
            ask(rules, invitation, key)
    with pytest.raises(RefusedError, match="with another key"):  # while it waits, nobody else takes its place
        ask(rules, invitation, keys.new_key())
    assert [(member.state, member.key) for member in rules.members()] == [("waiting", mark)]
    for wrong in ("0" * 16, mark[:8], ""):
        with pytest.raises(ServerError, match="has the key"):
            rules.approve("pi-1", wrong)
    rules.approve("pi-1", mark[:16])
    assert ask(rules, invitation, key).name == "pi-1"
    with pytest.raises(ServerError, match="no device waits"):
        rules.approve("pi-1", mark[:16])


def test_a_certificate_is_renewed_in_the_second_half_of_its_life_for_a_new_key(rules: Enrolment, clock: Clock) -> None:
    _, first = enrol(rules, "pi-1")
    key = keys.new_key()
    with pytest.raises(RefusedError, match="renew it later"):
        rules.renew(first, keys.signing_request(key))
    clock.now += 16 * DAY
    issued = rules.renew(first, keys.signing_request(key))
    second = x509.load_pem_x509_certificate(issued.certificate.encode())
    assert (issued.name, keys.is_certificate_of(issued.certificate.encode(), key)) == ("pi-1", True)
    assert second.not_valid_after_utc > first.not_valid_after_utc


def test_what_is_revoked_or_expired_or_not_a_device_is_not_renewed(
    rules: Enrolment, fleet: Fleet, clock: Clock
) -> None:
    _, revoked = enrol(rules, "pi-1")
    _, old = enrol(rules, "pi-2")
    servers = x509.load_pem_x509_certificate(fleet.file("orchestrator.pem").read_bytes())
    rules.revoke("pi-1")
    clock.now += 31 * DAY
    request = keys.signing_request(keys.new_key())
    for certificate, answer in ((revoked, "revoked"), (old, "expired"), (servers, "not one of the fleet's devices")):
        with pytest.raises(RefusedError, match=answer):
            rules.renew(certificate, request)


def _listed(fleet: Fleet) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl(fleet.file("crl.pem").read_bytes())}


def test_revoking_lists_every_certificate_that_a_name_holds(rules: Enrolment, fleet: Fleet, clock: Clock) -> None:
    _, first = enrol(rules, "pi-1")
    _, other = enrol(rules, "pi-2")
    clock.now += 16 * DAY
    renewed = rules.renew(first, keys.signing_request(keys.new_key()))
    second = x509.load_pem_x509_certificate(renewed.certificate.encode())
    assert _listed(fleet) == set()
    assert rules.revoke("pi-1") == 2
    assert _listed(fleet) == {first.serial_number, second.serial_number}
    clock.now += 15 * DAY  # the first has expired by itself, and leaves the list
    fleet.refresh()
    assert _listed(fleet) == {second.serial_number}
    assert other.serial_number not in _listed(fleet)
    with pytest.raises(ServerError, match="no device 'nobody'"):
        rules.revoke("nobody")


@pytest.mark.parametrize("copied", ["before it joined", "before it was revoked"])
def test_a_registry_restored_from_a_copy_lets_nobody_in_who_was_revoked(
    tmp_path: Path, clock: Clock, copied: str
) -> None:
    fleet = make_fleet(tmp_path / "fleet", clock)
    before = fleet.file("fleet.db").read_bytes()
    _, shut_out = enrol(Enrolment(fleet), "pi-1")
    fleet.close()
    if copied == "before it was revoked":
        before = fleet.file("fleet.db").read_bytes()
    fleet = Fleet(fleet.folder, clock)
    Enrolment(fleet).revoke("pi-1")
    fleet.close()
    fleet.file("fleet.db").write_bytes(before)
    fleet = Fleet(fleet.folder, clock)
    enrol(Enrolment(fleet), "pi-2")
    assert _listed(fleet) == {shut_out.serial_number}
    clock.now += 20 * DAY
    with pytest.raises(RefusedError):
        Enrolment(fleet).renew(shut_out, keys.signing_request(keys.new_key()))
    clock.now += 366 * DAY
    fleet.refresh()
    assert _listed(fleet) == set(), "it has expired by itself, however long it was good for"


def test_a_list_of_another_authority_revokes_nobody(tmp_path: Path, clock: Clock) -> None:
    fleet, other = (make_fleet(tmp_path / name, clock) for name in ("fleet", "other"))
    enrol(Enrolment(other), "pi-1")
    Enrolment(other).revoke("pi-1")
    fleet.file("crl.pem").write_bytes(other.file("crl.pem").read_bytes())
    fleet.refresh()
    assert _listed(fleet) == set()


def test_a_device_that_joins_again_takes_the_place_of_what_it_held(rules: Enrolment, fleet: Fleet) -> None:
    _, lost = enrol(rules, "pi-1")
    with pytest.raises(ServerError, match="--again"):
        rules.invite("pi-1")
    rules.invite("pi-1", again=True)
    assert _listed(fleet) == set()  # the old one serves until the new one is there
    enrol(rules, "pi-1")
    assert _listed(fleet) == {lost.serial_number}


def test_members_are_shown_with_where_they_stand(rules: Enrolment, clock: Clock) -> None:
    rules.invite("a-late", valid_s=1.0)
    enrol(rules, "b-in")
    enrol(rules, "c-out")
    rules.revoke("c-out")
    rules.invite("d-asked", valid_s=DAY)
    clock.now += 2
    stand = {member.name: member.state for member in rules.members()}
    assert stand == {"a-late": "expired", "b-in": "enrolled", "c-out": "revoked", "d-asked": "invited"}
    clock.now += 31 * DAY
    assert {member.name: member.state for member in rules.members()}["b-in"] == "expired"


def test_no_secret_is_on_disk(rules: Enrolment, fleet: Fleet) -> None:
    invitation, key = rules.invite("pi-1"), keys.new_key()
    ask(rules, invitation, key)
    everything = b"".join(path.read_bytes() for path in fleet.folder.iterdir())
    for secret in (invitation.secret, invitation.secret.hex().encode(), key.splitlines()[1]):
        assert secret not in everything


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf"), 1e6])
def test_a_token_that_would_be_good_never_or_for_ever_is_not_made(rules: Enrolment, hours: float) -> None:
    with pytest.raises(ServerError, match="expected more than 0, at most 8760"):
        rules.invite("pi-1", valid_s=hours * 3600)
    assert rules.members() == []
