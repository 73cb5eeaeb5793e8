"""Where a broker is, and in plain words why it cannot be reached, refuses us or throws us out."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mas_edge.protocol.errors import BrokerError

_PORTS = {"mqtt": 1883, "mqtts": 8883}  # registered with IANA

# Reason codes of MQTT 5 (section 2.4) that we act on; the client library translates those of 3.1.1 into them.
BAD_VERSION, TAKEN_OVER = 0x84, 0x8E
REFUSED_FOR_GOOD = {
    0x85: "the broker does not accept the name {name!r}; choose a shorter one of letters and digits",
    0x86: "the broker refuses the user name or password; correct them in the URL (mqtt://user:password@host:port)",
    0x87: "the broker does not let {name!r} in; put valid credentials into the URL (mqtt://user:password@host:port)",
    0x8A: "the broker has banned {name!r}; ask whoever runs it",
    0x8C: "the broker wants another way of authentication; only user name and password are supported",
}
ENDED_BY_BROKER = {
    TAKEN_OVER: "another client has connected with the name {name!r}; give every device a name of its own",
    0x87: "the broker does not permit what {name!r} did; correct its access rules",
    0x8B: "the broker is shutting down",
    0x95: "a message was larger than the broker accepts; raise its maximum packet size",
}
# mosquitto 2.0.11 and rumqttd close the old connection without a word (measured), and MQTT 3.1.1 has no word for it.
HANGS_UP_AGAIN = (
    "{address} hangs up soon after every connect: probably another client has connected with the name {name!r}; give "
    "every device a name of its own; else a message of ours is not permitted or too large"
)


@dataclass(frozen=True)
class Address:
    """Where a broker is and how to get in; prints without user and password."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Return the address in ``mqtt[s]://[user:password@]host[:port]``.

    Raises:
        BrokerError: the text is not such a URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BrokerError(_not_valid(url)) from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise BrokerError(_not_valid(url))
    return Address(
        parts.hostname,
        port or _PORTS[parts.scheme],
        parts.scheme == "mqtts",
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def _not_valid(url: str) -> str:
    shown = f"...@{url.rpartition('@')[2]}" if "@" in url else url  # a password does not belong on a screen
    return f"broker URL {shown!r} is not valid: expected mqtt://host:port or mqtts://user:password@host:port"


def why_unreachable(error: Exception, address: Address) -> str:
    """Say why a connection could not be opened, and what to look at."""
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address}; start the broker, or correct host and port"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"the host name {address.host!r} is not known; correct it, or check the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {address} is not trusted: {error.verify_message}; check the host name and the CA"
    if isinstance(error, ssl.SSLError):
        return f"{address} does not speak TLS; use mqtt:// or correct the port"
    if isinstance(error, TimeoutError):
        tls = ", and that the port speaks TLS" if address.tls else ""
        return f"{address} does not answer; check host, port and firewall{tls}"
    return f"{address} cannot be reached: {error}"
