"""What a fleet is set to: its name, where it is reached, and how long a device's certificate lasts."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.topics import check_name

BROKER_PORT, ENROLMENT_PORT = 8883, 8884  # MQTT over TLS is registered as 8883; the next one is free
DEVICE_DAYS = 30.0  # short enough that a lost card is harmless soon; renewed with ten days left
MOST_DAYS = 365.0
# As a certificate can name a host: the labels of RFC 1123, and the underscore that names of containers have.
_HOST = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")


class FleetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """``hosts``: the names and addresses of the server; devices are told the first."""

    name: str
    hosts: Annotated[list[str], Meta(min_length=1)]
    port: int = BROKER_PORT
    enrolment_port: int = ENROLMENT_PORT
    device_days: float = DEVICE_DAYS


def check_settings(settings: FleetSettings) -> FleetSettings:
    """Return them unchanged.

    Raises:
        ServerError: a host, port or number of days is none.
        MessageError: the name cannot stand in a topic.
    """
    check_name(settings.name, "fleet")
    for host in settings.hosts:
        if not _is_host(host):
            message = f"{host!r} is no host: expected a name such as server.example or an address such as 192.0.2.7"
            raise ServerError(message)
    for port in (settings.port, settings.enrolment_port):
        if not 1 <= port <= 65535:
            message = f"{port} is no port: expected 1 to 65535"
            raise ServerError(message)
    if settings.port == settings.enrolment_port:
        message = f"the broker and joining cannot both have port {settings.port}: give each its own"
        raise ServerError(message)
    if not 0 < settings.device_days <= MOST_DAYS:
        message = f"a device's certificate cannot last {settings.device_days:g} days: expected up to {MOST_DAYS:g}"
        raise ServerError(message)
    return settings


def read_settings(path: Path) -> FleetSettings:
    """Those in a fleet.json. Raises ServerError, MessageError."""
    try:
        return check_settings(msgspec.json.decode(path.read_bytes(), type=FleetSettings))
    except PermissionError:
        message = f"{path} may not be read: run this as its owner, or give this user the right to"
        raise ServerError(message) from None
    except (OSError, msgspec.MsgspecError, ServerError) as error:
        message = f"{path} cannot be used: {error}; correct it"
        raise ServerError(message) from None


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _HOST.fullmatch(text) is not None and not text.replace(".", "").isdecimal()
    return "%" not in text  # an interface of this machine means nothing elsewhere
