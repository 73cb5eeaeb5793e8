"""Where a broker is, and in plain words why it cannot be reached, refuses us or throws us out."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from device_runtime.edge.fragments import MIN_PACKET
from mas_edge.protocol.errors import BrokerError

_PORTS = {"mqtt": 1883, "mqtts": 8883}  # registered with IANA
_TLS_OPTIONS = {"ca", "cert", "key", "suffix"}

# Reason codes of MQTT 5 (section 2.4) that we act on; the client library translates those of 3.1.1 into them.
BAD_VERSION, TAKEN_OVER, TOO_LARGE = 0x84, 0x8E, 0x95
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
    TOO_LARGE: "a message was larger than the broker accepts; raise its maximum packet size",
}
FOUND_LIMIT = (
    "{address} hangs up on large packets; from now on none of ours is larger than {limit} bytes. If you know its "
    "limit, put it into the URL: ?max_packet=BYTES"
)
# mosquitto 2.0.11 and rumqttd close the old connection without a word (measured), and MQTT 3.1.1 has no word for it.
HUNG_UP = "{address} hung up before it answered; is it an MQTT broker, and is it mqtt:// or mqtts://?"
HANGS_UP_AGAIN = (
    "{address} hangs up soon after every connect: probably another client has connected with the name {name!r}; give "
    "every device a name of its own; else a message of ours is not permitted or too large"
)

# What the other side says of our certificate (alerts of RFC 8446, section 6.2), by a word of OpenSSL's names for them.
_ALERTS = {
    "REVOKED": "{address} says that our certificate is revoked; ask whoever runs the fleet for a new token",
    "CERTIFICATE_EXPIRED": "{address} says that our certificate has expired; ask for a new token, and check the clock",
    "CERTIFICATE_REQUIRED": "{address} lets in only who has a certificate of the fleet; mas-edge-device join TOKEN",
    "UNKNOWN_CA": "{address} does not know who issued our certificate; join the fleet of this broker",
    "HANDSHAKE_FAILURE": "{address} refuses our handshake; it may want a certificate: mas-edge-device join TOKEN",
    "BAD_CERTIFICATE": "{address} does not accept our certificate; join again with a new token",
    "UNSUPPORTED_CERTIFICATE": "{address} does not accept a certificate of this kind; join with a token",
    "CERTIFICATE_UNKNOWN": "{address} does not accept our certificate; join again with a new token",
    "PROTOCOL_VERSION": "{address} and we share no version of TLS; expected 1.2 or later",
}

# What is wrong with the other side's, by OpenSSL's number (x509_vfy.h): a board without a battery wakes up in 1970.
_OF_THE_CLOCK = {
    9: "set this machine's clock, it says {here} UTC",
    10: "set this machine's clock, if it is not {here} UTC; else the server must renew it: mas-edge serve --fleet does",
}


@dataclass(frozen=True)
class Address:
    """Where a broker is and how to get in; prints without user, password and files.

    Attributes:
        ca: file of the authorities to believe; "" = the system's.
        cert, key: files of our certificate and its key; "" = no certificate, the key is in the same file.
        suffix: ends the name of every connection, so that only who knows it can take a connection over.
        max_packet: the largest packet that the broker carries, in bytes; 0 = the broker tells, or has no limit.
        version: of MQTT, "5" or "3.1.1"; "" = what the broker speaks, 5 if both.
    """

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""
    suffix: str = field(default="", repr=False)
    max_packet: int = 0
    version: str = ""
    scheme: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme or ('mqtts' if self.tls else 'mqtt')}://{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Return the address in ``mqtt[s]://[user:password@]host[:port][?OPTION=VALUE&...]``.

    The options are the attributes of ``Address`` from ``ca`` on; those of files and names only with ``mqtts``.

    Raises:
        BrokerError: the text is not such a URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        max_packet = int(options.pop("max_packet", "0"))
    except ValueError:
        raise BrokerError(_not_valid(url)) from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or parts.path.strip("/"):
        raise BrokerError(_not_valid(url))
    known = {"version"} | (_TLS_OPTIONS if parts.scheme == "mqtts" else set())
    if not options.keys() <= known or options.get("version", "5") not in ("5", "3.1.1"):
        raise BrokerError(_not_valid(url))
    if max_packet and max_packet < MIN_PACKET:
        message = f"max_packet={max_packet} in the broker URL is too small: expected {MIN_PACKET} bytes or more"
        raise BrokerError(message)
    return Address(
        parts.hostname,
        port or _PORTS[parts.scheme],
        parts.scheme == "mqtts",
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
        max_packet=max_packet,
        **options,
    )


def _not_valid(url: str) -> str:
    shown = f"...@{url.rpartition('@')[2]}" if "@" in url else url  # a password does not belong on a screen
    shown = shown.partition("?")[0]
    return (
        f"broker URL {shown!r} is not valid: expected mqtt://host:port, mqtts://user:password@host:port or "
        "mqtts://host:port?ca=FILE&cert=FILE&key=FILE; further options: max_packet=BYTES, version=5 or 3.1.1"
    )


def why_unreachable(error: Exception, address: Address) -> str:
    """Say why a connection could not be opened, and what to look at."""
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address}; start the broker, or correct host and port"
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return f"the host name {address.host!r} is not known; correct it, or check the network"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = _OF_THE_CLOCK.get(error.verify_code, "check the host name and the CA")
        here = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        return f"the certificate of {address} is not trusted: {error.verify_message}; {remedy.format(here=here)}"
    if isinstance(error, ssl.SSLError):
        for word, reason in _ALERTS.items():
            if word in (error.reason or ""):
                return reason.format(address=address)
        return f"{address} does not speak TLS; use mqtt:// or correct the port"
    if isinstance(error, TimeoutError):
        tls = ", and that the port speaks TLS" if address.tls else ""
        return f"{address} does not answer; check host, port and firewall{tls}"
    return f"{address} cannot be reached: {error}"
