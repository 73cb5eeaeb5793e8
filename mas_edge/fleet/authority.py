"""The fleet's certificate authority: whom it vouches for, for what use, and for how long. No disk, no clock.

Every certificate is for one use: a device's is worth nothing as a server, so that no device can pass as the broker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mas_edge.protocol.enrolment import CLOCKS_DIFFER_S
from mas_edge.protocol.errors import MessageError

Use = Literal["client", "server", "both"]

# What no device can be called (check_name refuses '@'): these identities cannot be had by an invitation.
ORCHESTRATOR, BROKER = "@orchestrator", "@broker"

AUTHORITY_LIFE = timedelta(days=3650)  # its end means that every device has to be invited again
SERVER_LIFE = timedelta(days=180)  # made anew by whoever holds the authority's key, at two thirds of it
# A list of revoked certificates that has expired shuts everybody out, and this one is read from the same disk as the
# broker's key: its age protects nobody.
REVOCATIONS_LIFE = timedelta(days=3650)
CLOCKS_DIFFER = timedelta(seconds=CLOCKS_DIFFER_S)

_CLIENT, _SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_USES = {"client": [_CLIENT], "server": [_SERVER], "both": [_CLIENT, _SERVER]}


@dataclass(frozen=True)
class Authority:
    """A certificate and its private key, which sign the certificates of everybody else in the fleet."""

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, fleet: str, now: datetime) -> Authority:
        """A new authority: a P-256 key, a certificate by itself that may sign no other authority."""
        key = new_key()
        builder = _builder(f"{fleet} authority", fleet, key.public_key(), now, AUTHORITY_LIFE)
        usage = _usage(signs_certificates=True)
        builder = builder.issuer_name(_name(f"{fleet} authority", fleet))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def key_pem(self, passphrase: bytes = b"") -> bytes:
        """The private key, encrypted if there is a passphrase; whoever has it can invent devices."""
        return private_pem(self._key, passphrase)

    def issue(
        self,
        key: ec.EllipticCurvePublicKey,
        name: str,
        use: Use,
        now: datetime,
        life: timedelta,
        hosts: Iterable[str] = (),
    ) -> x509.Certificate:
        """A certificate of ``key`` for ``name``, valid at ``hosts`` (names or addresses) if it is a server's."""
        fleet = self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
        builder = _builder(name, str(fleet), key, now, life).issuer_name(self.certificate.subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_USES[use]), critical=False)
        builder = builder.add_extension(self._identifier(), critical=False)
        names = [_general_name(host) for host in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def revocations(
        self, revoked: Iterable[tuple[int, datetime]], number: int, now: datetime
    ) -> x509.CertificateRevocationList:
        """The signed list of ``revoked`` (serial number, since when), the ``number``-th."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now - CLOCKS_DIFFER).next_update(now + REVOCATIONS_LIFE)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        builder = builder.add_extension(self._identifier(), critical=False)
        for serial, since in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self._key, hashes.SHA256())

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256: what every broker and board speaks, with small certificates and cheap handshakes."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> bytes:
    """The key as a file's content; the file has to be private. Encrypted only where somebody is there to unlock it."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as a file's content."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_of_request(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request that its private key has signed. Nothing else in the request is believed.

    Raises:
        MessageError: it is not one, not P-256, or signed by another key.
    """
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        key = csr.public_key()
        valid = csr.is_signature_valid
    except Exception:  # the parser names a dozen kinds of damage; they all mean the same here
        message = "the signing request cannot be read; expected PKCS#10 in PEM"
        raise MessageError(message) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        message = "the signing request is for another kind of key; expected an elliptic curve key on P-256"
        raise MessageError(message)
    if not valid:
        message = "the signing request is not signed by its own key"
        raise MessageError(message)
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key (DER SubjectPublicKeyInfo), in hex: what an operator compares."""
    digest = hashes.Hash(hashes.SHA256())
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    digest.update(key.public_bytes(serialization.Encoding.DER, info))
    return digest.finalize().hex()


def _builder(
    name: str, fleet: str, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(_name(name, fleet)).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - CLOCKS_DIFFER).not_valid_after(now + life)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _name(common: str, fleet: str) -> x509.Name:
    # A common name has at most 64 characters; names of devices and fleets have no more.
    attributes = [(NameOID.ORGANIZATION_NAME, fleet), (NameOID.COMMON_NAME, common[:64])]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
