"""The device's side of the enrolment endpoint (``mas_edge.protocol.enrolment``), over HTTPS."""

from __future__ import annotations

import hmac
import http.client
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec

from device_runtime.edge.address import Address, why_unreachable
from device_runtime.edge.tls import fleet_context
from mas_edge.protocol.enrolment import (
    CA_PATH,
    JOIN_PATH,
    MAX_BODY_BYTES,
    RENEW_PATH,
    Invitation,
    Issued,
    JoinRequest,
    Refusal,
    RenewRequest,
    decode,
    pin_of,
    split_address,
)
from mas_edge.protocol.errors import DeviceError, MessageError

PATIENCE_S = 20.0  # for the handshake and the answer; a loaded board makes neither in a hurry


def fetch_ca(address: str, pin: bytes) -> bytes:
    """The authority's certificate (PEM) from a server that nobody vouches for yet: its digest has to be ``pin``.

    Raises:
        DeviceError: the endpoint cannot be reached, or is another fleet's, or somebody sits in between.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing secret is sent on this connection, and what comes is compared with the token's digest.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    status, body = _exchange(address, context, "GET", CA_PATH)
    try:
        known = status == 200 and hmac.compare_digest(pin_of(ssl.PEM_cert_to_DER_cert(body.decode("ascii"))), pin)
    except ValueError:
        known = False
    if not known:
        message = (
            f"the server at {address} is not the one that made this token; ask for a new token, and check the network"
        )
        raise DeviceError(message)
    return body


def join(invitation: Invitation, ca: Path, csr: str, wait: Callable[[str], None]) -> Issued:
    """Show the token and get a certificate; ``wait`` is called with the reason before each further attempt.

    Raises:
        DeviceError: refused, in the server's words, or unreachable.
    """
    request = msgspec.json.encode(JoinRequest(invitation.name, invitation.secret.hex(), csr))
    context = fleet_context(ca)
    while True:
        status, body = _exchange(invitation.address, context, "POST", JOIN_PATH, request)
        if status != 202:
            return _issued(status, body)
        wait(_reason(body))


def renew(address: str, ca: Path, certificate: Path, csr: str) -> Issued:
    """Show the present certificate (with its key, in one file) and get the next one.

    Raises:
        DeviceError: refused, in the server's words, or unreachable.
    """
    status, body = _exchange(
        address, fleet_context(ca, certificate), "POST", RENEW_PATH, msgspec.json.encode(RenewRequest(csr))
    )
    return _issued(status, body)


def _exchange(address: str, context: ssl.SSLContext, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    host, port = split_address(address)
    connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE_S, context=context)
    try:
        connection.request(method, path, body or None)
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_BODY_BYTES + 1)
    except ConnectionRefusedError:
        message = f"cannot enrol: nothing listens at {address}; start mas-edge serve --fleet there"
        raise DeviceError(message) from None
    except (OSError, UnicodeError) as error:
        why = why_unreachable(error, Address(host, port, tls=True, scheme="https"))
        message = f"cannot enrol: {why}"
        raise DeviceError(message) from None
    except http.client.HTTPException:
        message = f"cannot enrol: {address} does not answer as an enrolment endpoint; correct the address"
        raise DeviceError(message) from None
    finally:
        connection.close()


def _issued(status: int, body: bytes) -> Issued:
    if status != 200:
        message = f"the fleet refuses: {_reason(body)}"
        raise DeviceError(message)
    return decode(body, Issued)


def _reason(body: bytes) -> str:
    try:
        return decode(body, Refusal).reason
    except MessageError:
        return "it does not say why"
