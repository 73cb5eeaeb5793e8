"""How a device joins a fleet: the token it is given, and the words it exchanges with the enrolment endpoint.

    GET  /v1/ca      -> the authority's certificate (PEM); believed only if its digest is the token's
    POST /v1/join    JoinRequest  -> 200 Issued | 202 Refusal (wait for approval, ask again) | 4xx Refusal
    POST /v1/renew   RenewRequest, with the present certificate  -> 200 Issued | 4xx Refusal

and, of a fleet that signs, for members that show their certificate; ``Range: bytes=N-[M]`` is understood:

    GET  /v1/metadata/NAME     -> a file of TUF metadata
    GET  /v1/artifacts/SHA256  -> a program, a model or its golden samples that these metadata list

The first three speak JSON. A private key is in none of these: the device makes it, and sends a signing request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.topics import check_name

CA_PATH, JOIN_PATH, RENEW_PATH = "/v1/ca", "/v1/join", "/v1/renew"
METADATA_PATH, ARTIFACTS_PATH = "/v1/metadata/", "/v1/artifacts/"
SECRET_BYTES = 16  # 128 bits: nobody guesses it within any expiry
PIN_BYTES = 16  # of the authority's digest: another authority with the same ones takes 2^128 attempts
MAX_BODY_BYTES = 32 * 1024  # of a request or an answer: a signing request has 500 bytes, a certificate 800, a root 5000
MAX_ROOT_BYTES = 20 * 1024  # of a root that is handed over, as base64 in an answer: thirty keyholders
# Certificates are valid from this long before they are made: a board without a clock battery is hours behind at first.
CLOCKS_DIFFER_S = 24 * 3600
_CHECK_BYTES = 4  # a typing error is told as one
_PREFIX = "mas1."
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")

_Pem = Annotated[str, Meta(max_length=8192)]
_T = TypeVar("_T")


class Invitation(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a token says: ``name`` may join at ``address`` (HOST:PORT), where the authority with ``pin`` answers.

    ``pin`` is the beginning of the SHA-256 of the authority's certificate (DER); ``secret`` proves the invitation.
    """

    name: str
    address: str
    pin: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Invitation(name={self.name!r}, address={self.address!r})"


class JoinRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The device with the invitation's secret (hex) asks for a certificate of the key that signed ``csr`` (PEM)."""

    name: Annotated[str, Meta(max_length=64)]
    secret: Annotated[str, Meta(max_length=2 * SECRET_BYTES)]
    csr: _Pem

    def __repr__(self) -> str:
        return f"JoinRequest(name={self.name!r})"


class RenewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A device that shows its certificate asks for one of the key that signed ``csr`` (PEM)."""

    csr: _Pem


class Issued(Struct, frozen=True):
    """A certificate (PEM) for ``name`` in ``fleet``, and the broker's host and port: always TLS.

    ``root``: the newest root (JSON of TUF) of a fleet that signs its plans; empty: it does not. Who joins is to believe
    it from now on; who renews and believes in one goes on with it if the keys of that one have signed it.
    """

    name: str
    fleet: str
    host: str
    port: int
    certificate: _Pem
    root: Annotated[bytes, Meta(max_length=MAX_ROOT_BYTES)] = b""


class Refusal(Struct, frozen=True):
    """Why not, in words for the device's owner."""

    reason: Annotated[str, Meta(max_length=500)] = field(default="")


def pin_of(certificate_der: bytes) -> bytes:
    """The digest by which a device knows its fleet's authority."""
    return hashlib.sha256(certificate_der).digest()[:PIN_BYTES]


def write_token(invitation: Invitation) -> str:
    """One word of about 100 characters that can be typed, copied, or shown as a QR code."""
    body = msgspec.msgpack.encode(invitation)
    check = hashlib.sha256(body).digest()[:_CHECK_BYTES]
    return _PREFIX + base64.urlsafe_b64encode(body + check).decode().rstrip("=")


def read_token(token: str) -> Invitation:
    """Return what a token says.

    Raises:
        MessageError: it is not one, or letters of it are missing or wrong.
    """
    text = "".join(token.split())
    if not text.startswith(_PREFIX):
        message = f"this is not a token: expected {_PREFIX}... as `mas-edge fleet invite` prints it"
        raise MessageError(message)
    encoded = text[len(_PREFIX) :]
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if hashlib.sha256(body).digest()[:_CHECK_BYTES] != check:
            raise ValueError
        invitation = msgspec.msgpack.decode(body, type=Invitation)
    except (ValueError, msgspec.MsgspecError):
        message = "the token is damaged: a letter is missing or wrong; copy all of it"
        raise MessageError(message) from None
    check_name(invitation.name, "device")
    split_address(invitation.address)
    if len(invitation.pin) != PIN_BYTES or len(invitation.secret) != SECRET_BYTES:
        message = "the token was made by another version of mas-edge; ask for a new one"
        raise MessageError(message)
    return invitation


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT, an IPv6 host in brackets, as (host, port).

    Raises:
        MessageError: it is not that.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[2]) < 65536:
        message = f"address {address!r} is not valid: expected HOST:PORT, such as 192.0.2.7:8884 or [::1]:8884"
        raise MessageError(message)
    return match[1].strip("[]"), int(match[2])


def join_address(host: str, port: int) -> str:
    """The reverse of ``split_address``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def decode(data: bytes, kind: type[_T]) -> _T:
    """Return one of the messages above from its JSON.

    Raises:
        MessageError: it is not one, or over MAX_BODY_BYTES.
    """
    if len(data) > MAX_BODY_BYTES:
        message = f"an enrolment message of {len(data)} bytes: expected at most {MAX_BODY_BYTES}"
        raise MessageError(message)
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        message = f"not a valid {kind.__name__}: {error}"
        raise MessageError(message) from None
