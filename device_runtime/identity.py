"""Who this device is in its fleet: a key that it made itself, and a certificate that is renewed before it expires.

    identity/joining.pem     the key while the certificate is on its way (a repeated `join` uses it again)
            /joining-ca.pem  the authority of the token, until it has said yes
            /device.pem      certificate and key in one file, so that one rename replaces both
            /ca.pem          whom this device believes
            /identity.json   name, fleet, where the broker and the enrolment endpoint are
            /device.csr      if it was asked for: what a microboard, which makes no keys, renews with

The key leaves neither this folder nor a log. Making keys needs the package ``cryptography``.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from device_runtime.edge import enrolment
from device_runtime.edge.files import OWNER_ONLY, write_whole
from device_runtime.edge.web import Site
from device_runtime.trust.anchor import holds_root, install
from mas_edge.protocol.enrolment import CLOCKS_DIFFER_S, Invitation, Issued, join_address
from mas_edge.protocol.errors import DeviceError, EdgeError, MessageError

log = logging.getLogger(__name__)

RENEWED_WITH = 1 / 3  # of its life left: ten days of thirty, for a device or a server that is away
MAX_WAIT_S = 3600.0  # between two looks at the certificate: clocks jump, and a renewal that failed is tried again
MIN_WAIT_S = 1.0
_SUFFIX_BYTES = 8  # nobody guesses 64 bits against a broker


class Record(Struct, frozen=True):
    """identity.json. ``suffix`` ends the names of our connections: who does not know it cannot throw them out.

    ``token`` is the digest of the one that this device has joined with.
    """

    name: str
    fleet: str
    host: str
    port: int
    enrolment: str  # HOST:PORT
    suffix: str
    token: str = ""


class Identity:
    """The identity in ``state``/identity.

    Raises:
        DeviceError: it cannot be read, or this device has not joined a fleet.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "identity"
        try:
            self.record = msgspec.json.decode((self._folder / "identity.json").read_bytes(), type=Record)
        except FileNotFoundError:
            message = f"this device has not joined a fleet (no identity in {state}); mas-edge-device join TOKEN"
            raise DeviceError(message) from None
        except (OSError, msgspec.MsgspecError) as error:
            message = f"{self._folder / 'identity.json'} cannot be used: {error}; join again with a new token"
            raise DeviceError(message) from None

    @property
    def url(self) -> str:
        """The broker with our certificate, as ``Link`` takes it."""
        return self.url_at(f"mqtts://{join_address(self.record.host, self.record.port)}")

    def url_at(self, broker: str) -> str:
        """The same for a broker at another address of the same fleet."""
        files = {"ca": str(self.file("ca.pem")), "cert": str(self.file("device.pem")), "suffix": self.record.suffix}
        return f"{broker}{'&' if '?' in broker else '?'}{urlencode(files)}"

    @property
    def site(self) -> Site:
        """Where the fleet hands out what the broker does not bring: its enrolment endpoint."""
        return Site(f"https://{self.record.enrolment}", str(self.file("ca.pem")), str(self.file("device.pem")))

    def file(self, name: str) -> Path:
        """One of the files of the module's docstring."""
        return (self._folder / name).absolute()

    def validity(self) -> tuple[float, float]:
        """From when until when our certificate is good, in seconds since 1970.

        Raises:
            DeviceError: it cannot be read.
        """
        path = self.file("device.pem")
        try:
            begins, expires = _keys().validity(path.read_bytes())
        except (OSError, ValueError) as error:
            message = f"{path} cannot be used: {error}; join again with a new token"
            raise DeviceError(message) from None
        return float(begins), float(expires)

    def renew_at(self) -> float:
        """When to ask for the next certificate, in seconds since 1970."""
        begins, expires = self.validity()
        issued = begins + CLOCKS_DIFFER_S
        return float(expires - (expires - issued) * RENEWED_WITH)

    def renew(self) -> bytes:
        """Get a certificate for a new key, and put both in place of the present ones; return the fleet's newest root.

        Raises:
            DeviceError: the endpoint refuses, or cannot be reached; the present certificate stays.
        """
        keys = _keys()
        key = keys.new_key()
        request = keys.signing_request(key)
        issued = enrolment.renew(self.record.enrolment, self.file("ca.pem"), self.file("device.pem"), request)
        _put_certificate(self.file("device.pem"), issued, key)
        return issued.root

    def keep_fresh(
        self,
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        on_root: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """Renew whenever it is time, until ``stop`` is set; ``on_root`` gets what came with it. For its own thread."""
        while not stop.is_set():
            wait_s = MAX_WAIT_S
            try:
                wait_s = self.renew_at() - clock()
                if wait_s <= 0:
                    root = self.renew()
                    log.info("the certificate of %s is renewed", self.record.name)
                    _hand_over(root, on_root)
                    wait_s = self.renew_at() - clock()
            except (EdgeError, OSError, ValueError) as error:
                log.warning("the certificate is not renewed: %s", error)
                wait_s = MAX_WAIT_S
            stop.wait(max(MIN_WAIT_S, min(wait_s, MAX_WAIT_S)))


def _hand_over(root: bytes, on_root: Callable[[bytes], None]) -> None:
    try:
        on_root(root)
    except EdgeError as error:
        log.warning("the root that came with the certificate: %s", error)


def has_joined(state: Path) -> bool:
    """Whether there is an identity in ``state``."""
    return (state / "identity" / "identity.json").exists()


def join(state: Path, invitation: Invitation, wait: Callable[[str], None]) -> Identity:
    """Join the fleet of ``invitation``; ``wait`` is told why and returns when to ask again, while it is not approved.

    Asking twice with one token is safe: the key is kept until the certificate is there, and then there is nothing to
    do while that is good. Where the fleet signs its plans, this device is handed the root to believe, unless its owner
    has given it one before. Until the fleet has said yes, the identity that there is stays as it is.

    Raises:
        DeviceError: this device is in a fleet already, the endpoint refuses or cannot be reached, or the disk fails.
    """
    folder = state / "identity"
    if is_member_by(state, invitation):
        return Identity(state)
    if has_joined(state):
        held = Identity(state).record
        if (held.name, held.enrolment) != (invitation.name, invitation.address):
            message = (
                f"{state} belongs to {held.name} of fleet {held.fleet}; choose another --state, or delete {folder}"
            )
            raise DeviceError(message)
    key, joining_ca = _kept_key(folder), folder / "joining-ca.pem"
    ca = enrolment.fetch_ca(invitation.address, invitation.pin)
    write_whole(joining_ca, ca, mode=OWNER_ONLY)
    issued = enrolment.join(invitation, joining_ca, _keys().signing_request(key), wait)
    write_whole(folder / "ca.pem", ca, mode=OWNER_ONLY)
    _put_certificate(folder / "device.pem", issued, key)
    if issued.root and not holds_root(state):  # before it counts as joined: from its first plan on it takes signed ones
        install(state, issued.root)
    record = Record(
        issued.name, issued.fleet, issued.host, issued.port, invitation.address, secrets.token_hex(_SUFFIX_BYTES),
        _digest(invitation),
    )  # fmt: skip
    write_whole(folder / "identity.json", msgspec.json.encode(record), mode=OWNER_ONLY)
    for name in ("joining.pem", "joining-ca.pem"):
        (folder / name).unlink(missing_ok=True)
    return Identity(state)


def write_request(state: Path) -> Path:
    """Write a signing request of this device's key beside its certificate; where it is.

    Raises:
        DeviceError: this device has not joined a fleet, or what it holds cannot be used.
    """
    own = Identity(state).file("device.pem")
    try:
        request = str(_keys().signing_request(own.read_bytes()))
    except (OSError, ValueError) as error:
        message = f"{own} cannot be used: {error}; join again with a new token"
        raise DeviceError(message) from None
    write_whole(own.with_suffix(".csr"), request.encode(), mode=OWNER_ONLY)
    return own.with_suffix(".csr")


def is_member_by(state: Path, invitation: Invitation) -> bool:
    """Whether this device has joined with this very token, and its certificate is still good."""
    if not has_joined(state):
        return False
    held = Identity(state)
    return held.record.token == _digest(invitation) and time.time() < held.validity()[1]


def fingerprint(state: Path, invitation: Invitation | None = None) -> str:
    """The fingerprint of the key that joins, or has joined by ``invitation``: what the operator is shown too."""
    joined = invitation is not None and is_member_by(state, invitation)
    key = Identity(state).file("device.pem").read_bytes() if joined else _kept_key(state / "identity")
    return str(_keys().fingerprint(key))


def _digest(invitation: Invitation) -> str:
    """By what a token is known again; it tells nothing of the token."""
    return hashlib.sha256(invitation.secret).hexdigest()


def _kept_key(folder: Path) -> bytes:
    """The key of an earlier attempt, or a new one that is on disk before anybody hears of it."""
    path = folder / "joining.pem"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        kept = path.read_bytes() if path.exists() else b""
    except OSError as error:
        message = f"{folder} cannot be used: {error.strerror}; choose another --state"
        raise DeviceError(message) from None
    try:
        _keys().fingerprint(kept)
    except ValueError:  # none, or damaged
        kept = _keys().new_key()
        write_whole(path, kept, mode=OWNER_ONLY)
    return kept


def _keys() -> ModuleType:
    """What needs the package ``cryptography``, imported when it is needed: not every device is in a fleet."""
    try:
        from device_runtime import keys
    except ImportError:
        message = (
            "joining a fleet needs the package cryptography: pip install 'mas-edge[secure]' "
            "(Termux: pkg install python-cryptography)"
        )
        raise DeviceError(message) from None
    return keys


def _put_certificate(path: Path, issued: Issued, key: bytes) -> None:
    """Certificate and key at once, if they belong together."""
    if not _keys().is_certificate_of(issued.certificate.encode(), key):
        message = "the enrolment endpoint sent something else than a certificate of our key"
        raise MessageError(message)
    write_whole(path, issued.certificate.encode(), key, mode=OWNER_ONLY)
