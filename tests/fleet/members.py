"""A fleet whose time can be turned, and devices that join it without a network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509

from device_runtime import keys
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.settings import FleetSettings
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.enrolment import Invitation, Issued, JoinRequest

DAY = 86400.0


@dataclass
class Clock:
    """Seconds since 1970, as the test wants them."""

    now: float

    def __call__(self) -> float:
        return self.now


def make_fleet(folder: Path, clock: Clock, *, days: float = 30.0) -> Fleet:
    """A fleet on this machine with ports of its own."""
    settings = FleetSettings("watch", ["127.0.0.1"], free_port(), free_port(), days)
    return Fleet.create(folder, settings, clock)


def ask(rules: Enrolment, invitation: Invitation, key: bytes) -> Issued:
    """What a device with this token and key gets."""
    return rules.join(JoinRequest(invitation.name, invitation.secret.hex(), keys.signing_request(key)))


def enrol(rules: Enrolment, name: str) -> tuple[bytes, x509.Certificate]:
    """A device that has joined: its key and its certificate."""
    key = keys.new_key()
    issued = ask(rules, rules.invite(name, again=True), key)
    return key, x509.load_pem_x509_certificate(issued.certificate.encode())


def member_file(fleet: Fleet, name: str, folder: Path, *, life: timedelta = timedelta(days=1)) -> Path:
    """Key and certificate of ``name`` signed by the fleet's authority, without having joined."""
    key = keys.new_key()
    from mas_edge.fleet.authority import key_of_request, pem

    public = key_of_request(keys.signing_request(key))
    made = fleet.authority.issue(public, name, "client", fleet.now, life)
    path = folder / f"{name.strip('@#+/').replace('/', '_') or 'odd'}.pem"
    path.write_bytes(pem(made) + key)
    return path
