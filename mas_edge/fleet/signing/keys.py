"""Signing keys as files: Ed25519, PEM (PKCS#8), for the owner alone; a keyholder's may be encrypted by a passphrase."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from mas_edge.fleet.folder import Secret, is_encrypted, no_secret, write_private
from mas_edge.protocol.errors import ServerError

NAME = "x-mas-edge-name"  # a field of a public key: what people call it


def new_key(path: Path, secret: Secret = no_secret) -> CryptoSigner:
    """Make a key named as the file, and write it, encrypted if ``secret`` gives a passphrase.

    Raises:
        ServerError: there is a file already, or it cannot be written.
    """
    require_no_key(path)
    signer = _named(CryptoSigner.generate_ed25519(), path)
    data = signer.private_bytes
    if phrase := secret(path.stem):
        private = load_pem_private_key(data, None)
        data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(phrase))
    write_private(path, data)
    return signer


def require_no_key(path: Path) -> None:
    """Raise ServerError if there is a file already."""
    if path.exists():
        message = f"{path} exists: a key is never written over; move it away, or choose another place"
        raise ServerError(message)


def read_key(path: Path, secret: Secret = no_secret) -> CryptoSigner:
    """The key in a file; ``secret`` is asked only where it is encrypted.

    Raises:
        ServerError: it cannot be read, or is none of ours.
    """
    try:
        phrase = secret(path.stem) if is_encrypted(path) else b""
        private = load_pem_private_key(path.read_bytes(), phrase or None)
    except OSError as error:
        message = f"the signing key {path} cannot be read: {error.strerror}; name the .pem file where it is now"
        raise ServerError(message) from None
    except (ValueError, TypeError) as error:
        hint = "its passphrase is another one, or was not given" if is_encrypted(path) else str(error)
        message = f"the signing key {path} cannot be used: {hint}"
        raise ServerError(message) from None
    if not isinstance(private, Ed25519PrivateKey):
        message = f"{path} is not a signing key: expected Ed25519, as `mas-edge sign init` makes them"
        raise ServerError(message)
    return _named(CryptoSigner(private), path)


def read_keys(place: Path, secret: Secret = no_secret) -> list[CryptoSigner]:
    """The keys in a file, or in all ``.pem`` files of a folder.

    Raises:
        ServerError: there are none, or one cannot be used.
    """
    found = [read_key(path, secret) for path in (sorted(place.glob("*.pem")) if place.is_dir() else [place])]
    if not found:
        message = f"there is no signing key in {place}: expected .pem files of keyholders"
        raise ServerError(message)
    return found


def name_of(signer: CryptoSigner) -> str:
    """What people call a key."""
    return str(signer.public_key.unrecognized_fields[NAME])


def _named(signer: CryptoSigner, path: Path) -> CryptoSigner:
    signer.public_key.unrecognized_fields[NAME] = path.stem
    return signer
