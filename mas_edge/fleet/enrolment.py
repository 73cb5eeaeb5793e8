"""Who gets a certificate: the rules of inviting, joining, renewing, approving and revoking.

A token is good for one key. The device that holds this key may ask again with it (its answer may have been lost on
the way) until the token expires; any other key is refused. What a signing request says about names is not looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mas_edge.fleet.authority import fingerprint, key_of_request, pem
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.registry import Certified, Invited, Member
from mas_edge.protocol.enrolment import SECRET_BYTES, Invitation, Issued, JoinRequest
from mas_edge.protocol.errors import DeviceError, ServerError
from mas_edge.protocol.topics import check_name

INVITATION_S = 24 * 3600.0  # a day to get to the device
INVITATION_MOST_S = 365 * INVITATION_S  # a token that lies about for years is one that somebody finds
_NOT_KNOWN = "this token is not known here; ask for a new one (mas-edge fleet invite)"


class RefusedError(DeviceError):
    """The device may not; the text goes to it."""


class WaitsError(DeviceError):
    """The operator has to approve first; the text goes to the device."""


class Enrolment:
    """The rules on one fleet. Every method is one transaction; the clock is the fleet's.

    ``root`` gives what devices that join are to believe of signed plans; empty where plans are not signed.
    """

    def __init__(self, fleet: Fleet, root: Callable[[], bytes] = lambda: b"") -> None:
        self._fleet = fleet
        self._root = root
        self._registry = fleet.registry

    def invite(
        self, name: str, *, hold: bool = False, again: bool = False, valid_s: float = INVITATION_S
    ) -> Invitation:
        """An invitation for ``name``; with ``hold`` the operator approves the device's key before it is let in.

        Raises:
            MessageError: the name cannot stand in a topic.
            ServerError: a device of this name is enrolled, and this is not to invite it ``again``; or the time is none.
        """
        check_name(name, "device")
        if not 0 < valid_s <= INVITATION_MOST_S:
            most = INVITATION_MOST_S / 3600
            message = f"a token cannot be good for {valid_s / 3600:g} hours: expected more than 0, at most {most:g}"
            raise ServerError(message)
        secret = secrets.token_bytes(SECRET_BYTES)
        now = self._fleet.clock()
        with self._registry.transaction():
            if not again and any(
                held.revoked is None and held.expires > now for held in self._registry.certificates(name)
            ):
                message = f"{name} is enrolled; invite another name, or this one --again: what it holds is revoked then"
                raise ServerError(message)
            self._registry.invite(name, _digest(secret), now + valid_s, approved=not hold)
        return Invitation(name, self._fleet.enrolment_address, self._fleet.pin, secret)

    def join(self, request: JoinRequest) -> Issued:
        """A certificate for a device that holds a token.

        Raises:
            RefusedError: the token is unknown, expired or used by another key.
            WaitsError: the operator has not approved the key yet.
            MessageError: the signing request is not one.
        """
        key = key_of_request(request.csr)
        mark = fingerprint(key)
        with self._registry.transaction():
            invited = self._check_invitation(request)
            if invited.key is None:
                self._registry.bind(request.name, mark)
            elif not hmac.compare_digest(invited.key, mark):
                message = (
                    "this token has been used already, with another key; ask for a new one, and if it was not this "
                    "device that used it, find out who did"
                )
                raise RefusedError(message)
            issued = self._issue_once(request.name, key, mark) if invited.approved else None
        if issued is None:  # raised only here: the key stays bound although it has to wait
            message = f"waits until the operator approves it: mas-edge fleet approve DIR {request.name} {mark[:16]}"
            raise WaitsError(message)
        self._fleet.list_revocations()
        return msgspec.structs.replace(issued, root=self._root())

    def _check_invitation(self, request: JoinRequest) -> Invited:
        invited = self._registry.invitation(request.name)
        try:
            digest = _digest(bytes.fromhex(request.secret))
        except ValueError:
            raise RefusedError(_NOT_KNOWN) from None
        # The same words for a name without invitation and for a wrong secret: they tell nobody who was invited.
        if invited is None or not hmac.compare_digest(invited.secret_digest, digest):
            raise RefusedError(_NOT_KNOWN)
        if invited.expires <= self._fleet.clock():
            message = "this token has expired; ask for a new one (mas-edge fleet invite)"
            raise RefusedError(message)
        return invited

    def _issue_once(self, name: str, key: ec.EllipticCurvePublicKey, mark: str) -> Issued:
        """The certificate that this key has got, or a new one in place of all that the name holds."""
        now = self._fleet.clock()
        held = self._registry.certificates(name)
        if held and held[0].key == mark and held[0].revoked is None and held[0].expires > now:
            return self._answer(name, held[0].pem)
        self._registry.revoke(name, now)
        return self._issue(name, key, mark)

    def renew(self, present: x509.Certificate, csr: str) -> Issued:
        """A new certificate for the device that shows ``present``, whose chain the TLS layer has verified.

        Raises:
            RefusedError: it is revoked, expired, not a device's, or has more than half of its life before it.
            MessageError: the signing request is not one.
        """
        key = key_of_request(csr)
        now = self._fleet.clock()
        with self._registry.transaction():
            held = self._member(present)
            if held.expires - now > (held.expires - held.issued) / 2:
                message = "this certificate is good for more than half of its life; renew it later"
                raise RefusedError(message)
            self._registry.forget_expired(held.name, now)
            issued = self._issue(held.name, key, fingerprint(key))
        return msgspec.structs.replace(issued, root=self._root())

    def require_member(self, present: x509.Certificate) -> None:
        """Raise RefusedError if ``present``, whose chain the TLS layer has verified, is not a device's that is in."""
        with self._registry.transaction():
            self._member(present)

    def _member(self, present: x509.Certificate) -> Certified:
        held = self._registry.certificate(present.serial_number)
        if held is None or held.name != _common_name(present):
            message = "this certificate is not one of the fleet's devices; join with a token"
            raise RefusedError(message)
        if held.revoked is not None or held.expires <= self._fleet.clock():
            message = "this certificate is revoked or expired; ask for a new token (mas-edge fleet invite)"
            raise RefusedError(message)
        return held

    def _issue(self, name: str, key: ec.EllipticCurvePublicKey, mark: str) -> Issued:
        now = self._fleet.now
        life = timedelta(days=self._fleet.settings.device_days)
        made = self._fleet.authority.issue(key, name, "client", now, life)
        text = pem(made).decode()
        expires = made.not_valid_after_utc.timestamp()
        self._registry.add(Certified(made.serial_number, name, mark, text, now.timestamp(), expires, None))
        return self._answer(name, text)

    def _answer(self, name: str, certificate: str) -> Issued:
        settings = self._fleet.settings
        return Issued(name, settings.name, settings.hosts[0], settings.port, certificate)

    def approve(self, name: str, key: str) -> None:
        """Let a waiting device in, whose key's fingerprint begins with ``key`` (16 hex digits at least).

        Raises:
            ServerError: nobody waits under this name, or with another key.
        """
        with self._registry.transaction():
            invited = self._registry.invitation(name)
            if invited is None or invited.key is None or invited.approved:
                message = f"no device waits as {name!r}; see: mas-edge fleet list {self._fleet.folder}"
                raise ServerError(message)
            if len(key) < 16 or not invited.key.startswith(key.lower()):
                message = (
                    f"the device that waits as {name!r} has the key {invited.key[:16]}, not {key!r}; if the device "
                    "itself shows another one, somebody else uses its token: revoke it"
                )
                raise ServerError(message)
            self._registry.approve(name)

    @property
    def is_locked(self) -> bool:
        """Whether it takes a passphrase to revoke."""
        return self._fleet.is_encrypted

    def revoke(self, name: str) -> int:
        """Shut a device out, and its token too; returns how many certificates were revoked.

        Raises:
            ServerError: there is no such name, or the authority's key is locked, without which nobody can be told.
        """
        self._fleet.unlock()
        with self._registry.transaction():
            if self._registry.invitation(name) is None and not self._registry.certificates(name):
                message = f"no device {name!r} in this fleet; see: mas-edge fleet list {self._fleet.folder}"
                raise ServerError(message)
            self._registry.withdraw(name)
            count = self._registry.revoke(name, self._fleet.clock())
        self._fleet.list_revocations()
        return count

    def members(self) -> list[Member]:
        """Everybody, by name."""
        with self._registry.transaction():
            return self._registry.members(self._fleet.clock())


def _digest(secret: bytes) -> bytes:
    """128 random bits need no slow hash: nobody can try them all."""
    return hashlib.sha256(secret).digest()


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
