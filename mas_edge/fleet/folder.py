"""A fleet's directory: its authority, the certificates of its servers, who is in it, and how it is reached.

    fleet.json         name, hosts, ports, days that a device's certificate lasts
    ca.pem, ca.key     the authority: whoever has the key can invent devices; it may be encrypted by a passphrase
    orchestrator.pem   certificate and key of the orchestrator and of the enrolment endpoint
    broker.pem         certificate and key of the broker
    crl.pem            the list of revoked certificates, as a broker reads it
    fleet.db           invitations and certificates

Everything is for the owner alone (0600 in a folder of 0700), and written whole or not at all.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlencode

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mas_edge.fleet.authority import BROKER, ORCHESTRATOR, SERVER_LIFE, Authority, Use, new_key, pem, private_pem
from mas_edge.fleet.registry import Registry
from mas_edge.fleet.settings import MOST_DAYS, FleetSettings, check_settings, read_settings
from mas_edge.protocol.enrolment import join_address, pin_of
from mas_edge.protocol.errors import ServerError

_DAY_S = 86400.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")  # where the orchestrator finds its own broker
_SERVERS: tuple[tuple[str, str, Use], ...] = (
    ("orchestrator.pem", ORCHESTRATOR, "both"),  # it connects to the broker, and is the enrolment endpoint
    ("broker.pem", BROKER, "server"),
)

Secret = Callable[[str], bytes]  # gives the passphrase of the key of a name; empty: it is not encrypted


def no_secret(_name: str) -> bytes:
    """Keys that an unattended process reads are not encrypted."""
    return b""


class Fleet:
    """The fleet in ``folder``. ``clock`` gives seconds since 1970; ``secret`` is asked where ca.key is encrypted.

    Then it is read when it is first needed: to let devices join, to renew and to revoke, but not to invite or to list.

    Raises:
        ServerError: there is none, or its files cannot be used.
    """

    def __init__(
        self, folder: Path, clock: Callable[[], float] = time.time, secret: Secret = no_secret
    ) -> None:  # fmt: skip
        self.folder = folder.resolve()
        self.clock = clock
        if not (self.folder / "fleet.json").exists():
            message = f"there is no fleet in {folder}; make one: mas-edge fleet init {folder} --host ADDRESS"
            raise ServerError(message)
        self.settings = read_settings(self.folder / "fleet.json")
        self.certificate = _read_certificate(self.folder)
        _require_registry(self.folder)
        self._secret = secret
        self._authority: Authority | None = None
        self._unlocking = threading.Lock()
        self.registry = Registry(self.folder / "fleet.db")
        if not self.is_encrypted:
            self.unlock()

    @classmethod
    def create(
        cls, folder: Path, settings: FleetSettings, clock: Callable[[], float] = time.time, passphrase: bytes = b""
    ) -> Fleet:
        """Make a fleet in ``folder``, which must not hold one; ``passphrase``: encrypts the authority's key.

        Raises:
            ServerError: it does, or cannot be written, or a setting is none.
            MessageError: the name cannot stand in a topic.
        """
        check_settings(settings)
        require_no_fleet(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        except OSError as error:
            message = f"cannot make the directory {folder}: {error.strerror}; choose another one"
            raise ServerError(message) from None
        authority = Authority.new(settings.name, _at(clock()))
        write_private(folder / "ca.key", authority.key_pem(passphrase))
        write_private(folder / "ca.pem", pem(authority.certificate))
        # Last: a directory without it holds no fleet, and is begun again.
        write_private(folder / "fleet.json", msgspec.json.format(msgspec.json.encode(settings)))
        made = cls(folder, clock, lambda _: passphrase)
        made.unlock()
        return made

    @property
    def is_encrypted(self) -> bool:
        """Whether the authority's key is of no use to who has the folder alone."""
        return is_encrypted(self.folder / "ca.key")

    def unlock(self) -> None:
        """Read the authority's key now, and bring the servers' certificates up to date.

        Raises:
            ServerError: its passphrase is another one, or a file cannot be used.
        """
        _ = self.authority
        self.refresh()

    @property
    def authority(self) -> Authority:
        """What signs certificates. Raises ServerError as ``unlock``."""
        with self._unlocking:
            if self._authority is None:
                self._authority = _read_authority(self.folder, self.certificate, self._secret)
            return self._authority

    def encrypt(self, passphrase: bytes) -> None:
        """Encrypt the authority's key by another passphrase; empty: by none.

        Raises:
            ServerError: the present passphrase is another one, or the folder cannot be written.
        """
        write_private(self.folder / "ca.key", self.authority.key_pem(passphrase))

    @property
    def pin(self) -> bytes:
        """By what a device recognizes the authority on first contact."""
        return pin_of(self.certificate.public_bytes(serialization.Encoding.DER))

    @property
    def enrolment_address(self) -> str:
        """HOST:PORT where devices join."""
        return join_address(self.settings.hosts[0], self.settings.enrolment_port)

    @property
    def now(self) -> datetime:
        """By the clock of this fleet."""
        return _at(self.clock())

    def file(self, name: str) -> Path:
        """One of the files of the module's docstring."""
        return self.folder / name

    def url_at(self, broker: str) -> str:
        """How the orchestrator connects to the broker at this URL (mqtts://): with its certificate."""
        files = {"ca": str(self.file("ca.pem")), "cert": str(self.file("orchestrator.pem"))}
        return f"{broker}{'&' if '?' in broker else '?'}{urlencode(files)}"

    def refresh(self) -> None:
        """Renew the servers' certificates that are past two thirds of their life, or for other hosts; list revocations.

        Raises:
            ServerError: the directory cannot be written.
        """
        hosts = list(dict.fromkeys([*self.settings.hosts, *_LOOPBACK]))
        for name, identity, use in _SERVERS:
            path = self.file(name)
            if not _is_fresh(path, self.certificate, hosts, self.now):
                key = new_key()
                made = self.authority.issue(key.public_key(), identity, use, self.now, SERVER_LIFE, hosts)
                write_private(path, pem(made) + private_pem(key))
        self.list_revocations()

    def list_revocations(self) -> None:
        """Write crl.pem if it does not say what the registry says.

        Who is revoked stays so: a registry that was restored from a copy learns from the list what it has forgotten.
        """
        path = self.file("crl.pem")
        with self.registry.transaction():
            listed = _listed(path, self.certificate)
            for serial, when in (listed or {}).items():
                self.registry.revoke_serial(serial, when)
            revoked = {held.serial: held.revoked or 0.0 for held in self.registry.revoked(self.clock())}
            revoked |= {
                serial: when for serial, when in (listed or {}).items()
                if self.clock() - when < MOST_DAYS * _DAY_S and self.registry.certificate(serial) is None
            }  # fmt: skip
            if listed is not None and listed.keys() == revoked.keys():
                return
            number = self.registry.next_number("crl")
            since = [(serial, _at(when)) for serial, when in revoked.items()]
            made = self.authority.revocations(since, number, self.now)
            write_private(path, made.public_bytes(serialization.Encoding.PEM))

    def close(self) -> None:
        """Let go of the registry."""
        self.registry.close()


def require_no_fleet(folder: Path) -> None:
    """Raise ServerError if ``folder`` holds a fleet, what is left of one, or what others use."""
    if (folder / "fleet.json").exists():
        message = f"{folder} holds a fleet already; its devices trust that one: choose another directory"
        raise ServerError(message)
    if (folder / "ca.key").exists():
        message = (
            f"{folder} holds ca.key and no fleet.json, after an init that was interrupted, or because it was lost: "
            "restore it from a copy; if no device has ever joined, delete the directory, or choose another one"
        )
        raise ServerError(message)
    if folder.is_dir() and folder.stat().st_mode & 0o077 and any(folder.iterdir()):
        message = (
            f"{folder} holds other files and is open to others, and a fleet's directory is closed to all but its "
            "owner: name a new or an empty one"
        )
        raise ServerError(message)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read: at any moment the old one or the new one is there, whole.

    Raises:
        ServerError: it cannot be written.
    """
    try:
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 0600
        try:
            with os.fdopen(number, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}; check disk and permissions"
        raise ServerError(message) from None


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).replace(microsecond=0)


def is_encrypted(path: Path) -> bool:
    """Whether a key file wants a passphrase, as PEM says it in its first line."""
    return path.is_file() and b"ENCRYPTED" in path.read_bytes()[:64]


def _require_registry(folder: Path) -> None:
    """Raise ServerError if fleet.db is lost: an empty one would let in again whoever was shut out."""
    registry = folder / "fleet.db"
    if (folder / "crl.pem").exists() and not (registry.exists() and registry.stat().st_size):
        message = (
            f"{registry} is lost, and with it who belongs to the fleet and who is revoked: restore it from a copy; "
            "without one, make another fleet: mas-edge fleet init DIR"
        )
        raise ServerError(message)


def _read_certificate(folder: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise _unusable(folder, _why(error)) from None


def _read_authority(folder: Path, certificate: x509.Certificate, secret: Secret) -> Authority:
    path = folder / "ca.key"
    try:
        phrase = secret(path.name) if is_encrypted(path) else b""
        key = serialization.load_pem_private_key(path.read_bytes(), phrase or None)
    except (OSError, ValueError, TypeError) as error:
        if is_encrypted(path):
            message = f"{path} cannot be used: its passphrase is another one, or was not given"
            raise ServerError(message) from None
        raise _unusable(folder, _why(error)) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        message = f"ca.key in {folder} is not the key of ca.pem; restore both from a copy"
        raise ServerError(message)
    return Authority(certificate, key)


def _why(error: Exception) -> str:
    """What the system says of a file; the parsers' texts are about themselves."""
    return (isinstance(error, OSError) and error.strerror) or "its content is damaged"


def _unusable(folder: Path, why: str) -> ServerError:
    return ServerError(f"the authority in {folder} (ca.pem, ca.key) cannot be used: {why}; restore both from a copy")


def _is_fresh(path: Path, authority: x509.Certificate, hosts: list[str], now: datetime) -> bool:
    try:
        held = x509.load_pem_x509_certificate(path.read_bytes())
        held.verify_directly_issued_by(authority)
    except Exception:  # missing, damaged or of another authority: it is made anew
        return False
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    valid = {str(name.value) for name in names}
    return valid == set(hosts) and now < held.not_valid_after_utc - SERVER_LIFE / 3


def _listed(path: Path, authority: x509.Certificate) -> dict[int, float] | None:
    """The revoked certificates in a list, and since when; None if it is missing, damaged or not of this authority."""
    try:
        found = x509.load_pem_x509_crl(path.read_bytes())
        if not found.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]
            return None
        return {entry.serial_number: entry.revocation_date_utc.timestamp() for entry in found}
    except (OSError, ValueError, TypeError):
        return None
