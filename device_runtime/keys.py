"""Private keys and certificates as bytes of PEM files. The only module of the device that needs ``cryptography``."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


def new_key() -> bytes:
    """A private key on P-256."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Not encrypted: it must be readable at an unattended start, and its password would lie beside it.
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def signing_request(key: bytes) -> str:
    """A signing request for ``key``; its subject is empty: the name is the fleet's to give."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(_load(key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def fingerprint(key: bytes) -> str:
    """SHA-256 of the public key in hex: what the operator compares. Raises ValueError if it is no such key."""
    public = _load(key).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def is_certificate_of(certificate: bytes, key: bytes) -> bool:
    """Whether the two belong together."""
    try:
        return x509.load_pem_x509_certificate(certificate).public_key() == _load(key).public_key()
    except ValueError:
        return False


def validity(certificate: bytes) -> tuple[float, float]:
    """From when until when, in seconds since 1970. Raises ValueError if it is no certificate."""
    held = x509.load_pem_x509_certificate(certificate)
    return held.not_valid_before_utc.timestamp(), held.not_valid_after_utc.timestamp()


def _load(key: bytes) -> ec.EllipticCurvePrivateKey:
    loaded = load_pem_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        message = "expected an elliptic curve key"
        raise ValueError(message)
    return loaded
