"""A device that joins a fleet which signs its plans is handed the root with its certificate."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from device_runtime import identity, keys
from device_runtime.cli import main as device
from device_runtime.trust import anchor
from device_runtime.trust.seals import Seals
from mas_edge.cli.fleet import root_of
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.keys import read_keys
from mas_edge.fleet.signing.publisher import Publisher
from mas_edge.fleet.signing.repository import Repository
from mas_edge.fleet.signing.roots import newest_root
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.enrolment import MAX_ROOT_BYTES, write_token
from mas_edge.protocol.errors import DeviceError, ServerError, TrustError
from mas_edge.protocol.signed import targets_of
from tests.device_runtime.one_device import plan
from tests.fleet.members import DAY, Clock, make_fleet


@pytest.fixture
def signing(tmp_path: Path) -> Repository:
    return ceremony.create(tmp_path / "signing", tmp_path / "offline", 3, 2)


@pytest.fixture
def fleet(tmp_path: Path, signing: Repository) -> Iterator[Fleet]:
    made = make_fleet(tmp_path / "fleet", Clock(time.time()))
    with Endpoint(made, "127.0.0.1", root_of(signing.folder)):
        yield made


def _never(reason: str) -> None:
    raise AssertionError(reason)


def join(fleet: Fleet, state: Path) -> None:
    identity.join(state, Enrolment(fleet).invite("pi-1"), _never)


def takes_a_plan_of(signing: Repository, state: Path) -> bool:
    """Whether the device, with what it was handed, opens a plan of an orchestrator that signs."""
    publisher, unsigned = Publisher(signing.folder), plan()
    publisher.list_targets(targets_of(unsigned))
    verifier = anchor.open_verifier(state, "watch", "pi-1")
    assert verifier is not None
    verifier.learn(digest_of(publisher.bundle), publisher.bundle)
    return verifier.open(publisher.sign("watch", "pi-1", unsigned)) == unsigned


def test_a_device_that_joins_takes_signed_plans_only_from_its_first_one(
    fleet: Fleet, signing: Repository, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    join(fleet, state)
    assert (state / "trust" / "root.json").read_bytes() == newest_root(signing.folder)
    assert Seals(anchor.open_verifier(state, "watch", "pi-1")).required
    assert takes_a_plan_of(signing, state)


def test_after_a_rotation_the_newest_root_is_handed_over(fleet: Fleet, signing: Repository, tmp_path: Path) -> None:
    ceremony.rotate_online(signing)
    assert ceremony.approve(signing, read_keys(tmp_path / "offline")) == ""
    state = tmp_path / "state"
    join(fleet, state)
    assert (state / "trust" / "root.json").read_bytes() == signing.file("2.root.json").read_bytes()
    assert takes_a_plan_of(signing, state)


def test_the_command_says_that_only_signed_plans_are_taken(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = write_token(Enrolment(fleet).invite("pi-1"))
    assert device(["join", token, "--state", str(tmp_path / "state")]) == 0
    assert "pi-1 is in fleet watch, and takes only plans that it signs; start it: " in capsys.readouterr().out


def test_a_root_that_the_owner_has_given_before_stays(fleet: Fleet, tmp_path: Path) -> None:
    another = ceremony.create(tmp_path / "another", tmp_path / "another-offline", 1, 1)
    state = tmp_path / "state"
    anchor.install(state, newest_root(another.folder))
    join(fleet, state)
    assert (state / "trust" / "root.json").read_bytes() == newest_root(another.folder)


def test_a_device_that_cannot_check_signatures_does_not_join_a_fleet_that_signs(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, invitation = tmp_path / "state", Enrolment(fleet).invite("pi-1")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "device_runtime.trust.client", None)
        without.delattr("device_runtime.trust.client", raising=False)
        with pytest.raises(DeviceError, match="needs the package tuf"):
            identity.join(state, invitation, _never)
        assert not identity.has_joined(state)
    assert identity.join(state, invitation, _never).record.name == "pi-1"  # the same token, when it is installed


def test_a_fleet_that_does_not_sign_hands_over_nothing(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path / "fleet", Clock(time.time()))
    with Endpoint(fleet, "127.0.0.1"):
        join(fleet, tmp_path / "state")
    assert not anchor.has_trust(tmp_path / "state")


def test_a_folder_without_a_repository_is_said_when_the_server_starts(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no signing repository in .*mas-edge sign init"):
        root_of(tmp_path)


def test_a_root_that_fits_into_no_answer_is_said_when_the_server_starts(signing: Repository) -> None:
    (signing.folder / "metadata" / "2.root.json").write_bytes(b" " * (MAX_ROOT_BYTES + 1))
    with pytest.raises(ServerError, match="are handed at most"):
        root_of(signing.folder)


# ---------------------------------------------------------------------- with a renewed certificate


def renewed(fleet: Fleet, signing: Repository | None, state: Path) -> bytes:
    """The root that comes with the certificate of a device that renews."""
    rules = Enrolment(fleet, root_of(signing.folder if signing else None))
    joined = identity.Identity(state)
    held = x509.load_pem_x509_certificate(joined.file("device.pem").read_bytes())
    assert isinstance(fleet.clock, Clock)
    fleet.clock.now += 20 * DAY
    try:
        return rules.renew(held, keys.signing_request(keys.new_key())).root
    finally:
        fleet.clock.now -= 20 * DAY


def test_a_renewed_certificate_comes_with_a_newer_root_which_is_taken_if_it_is_signed(
    fleet: Fleet, signing: Repository, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    join(fleet, state)
    assert takes_a_plan_of(signing, state)
    stolen = Publisher(signing.folder)
    ceremony.rotate_online(signing)
    assert ceremony.approve(signing, read_keys(tmp_path / "offline")) == ""
    root = renewed(fleet, signing, state)
    assert root == signing.file("2.root.json").read_bytes()
    verifier = anchor.open_verifier(state, "watch", "pi-1")
    assert verifier is not None
    with pytest.raises(TrustError):  # what the old keys listed is worth nothing from now on, and nothing else is here
        anchor.take_root(state, verifier, root)
    with pytest.raises(TrustError, match="no valid signing metadata"):
        verifier.open(stolen.sign("watch", "pi-1", plan()))
    assert takes_a_plan_of(signing, state)


def test_a_root_of_the_same_keys_leaves_everything_as_it_is(fleet: Fleet, signing: Repository, tmp_path: Path) -> None:
    state = tmp_path / "state"
    join(fleet, state)
    assert takes_a_plan_of(signing, state)
    ceremony.renew(signing)
    assert ceremony.approve(signing, read_keys(tmp_path / "offline")) == ""
    verifier = anchor.open_verifier(state, "watch", "pi-1")
    anchor.take_root(state, verifier, renewed(fleet, signing, state))
    anchor.take_root(state, verifier, renewed(fleet, signing, state))  # again: nothing is new
    assert takes_a_plan_of(signing, state)


def test_a_root_that_the_trusted_keys_have_not_signed_is_refused(
    fleet: Fleet, signing: Repository, tmp_path: Path
) -> None:
    """Whoever has the fleet's server may issue certificates, and not change whose plans are taken."""
    state, evil = tmp_path / "state", ceremony.create(tmp_path / "evil", tmp_path / "evil-offline", 1, 1)
    join(fleet, state)
    assert takes_a_plan_of(signing, state)
    ceremony.renew(evil)
    assert ceremony.approve(evil, read_keys(tmp_path / "evil-offline")) == ""
    verifier = anchor.open_verifier(state, "watch", "pi-1")
    with pytest.raises(TrustError, match="root was signed by"):
        anchor.take_root(state, verifier, renewed(fleet, evil, state))
    assert takes_a_plan_of(signing, state)


def test_a_fleet_that_begins_to_sign_is_believed_from_the_next_start_on(tmp_path: Path, signing: Repository) -> None:
    unsigned = make_fleet(tmp_path / "fleet", Clock(time.time()))
    state = tmp_path / "state"
    with Endpoint(unsigned, "127.0.0.1"):
        join(unsigned, state)
    assert renewed(unsigned, None, state) == b""
    anchor.take_root(state, None, b"")
    assert not anchor.has_trust(state)
    anchor.take_root(state, None, renewed(unsigned, signing, state))
    assert takes_a_plan_of(signing, state)
