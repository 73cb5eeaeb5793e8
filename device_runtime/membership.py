"""Where this device connects, and as whom: what its owner says, and the identity it has if it joined a fleet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from device_runtime.edge.address import parse_url
from device_runtime.edge.tls import context_for
from device_runtime.identity import Identity, has_joined
from mas_edge.protocol.errors import BrokerError, DeviceError

SYSTEM_STATE = Path("/var/lib/mas-edge")  # of services that root has installed
ANY_FLEET = "fleet"  # what a fleet is called where nobody named it


@dataclass(frozen=True)
class Membership:
    """The broker's URL as ``Link`` takes it, the fleet's name, and the identity to be kept fresh, if there is one."""

    broker: str
    fleet: str
    identity: Identity | None = None


def membership(name: str, fleet: str, broker: str, state: Path) -> Membership:
    """Bring together what the owner says (``broker`` may be "") and what ``state`` knows of joining.

    Raises:
        BrokerError: the URL is malformed.
        DeviceError: they contradict each other, there is neither a URL nor an identity, or its files are damaged.
    """
    if broker:
        parse_url(broker)
    if not has_joined(state):
        if not broker:
            message = f"{name} has not joined a fleet ({state}); mas-edge-device join TOKEN, or give --broker URL"
            raise DeviceError(message)
        return Membership(broker, fleet)
    identity = Identity(state)
    _check(identity, name, fleet, broker, state)
    own_files = bool(broker) and bool(parse_url(broker).cert)  # the URL names a certificate itself
    url = broker if own_files else identity.url_at(broker) if broker else identity.url
    if not own_files:
        _require_usable(url, state)
    return Membership(url, identity.record.fleet, identity)


def _require_usable(url: str, state: Path) -> None:
    """Say before anything is tried that certificate, key or authority of the identity in ``state`` are damaged."""
    try:
        context_for(parse_url(url))
    except BrokerError as error:
        message = f"the identity of this device cannot be used: {error}; join again with a new token, --state {state}"
        raise DeviceError(message) from None


def _check(identity: Identity, name: str, fleet: str, broker: str, state: Path) -> None:
    held = identity.record
    if name != held.name:
        message = f"{state} belongs to {held.name}, not to {name}; give --name {held.name}, or choose another --state"
        raise DeviceError(message)
    if fleet not in (held.fleet, ANY_FLEET):
        message = f"{name} has joined fleet {held.fleet}, not {fleet}; leave --fleet out"
        raise DeviceError(message)
    if broker and not parse_url(broker).tls:
        message = (
            f"{name} has joined fleet {held.fleet}, whose broker is encrypted; leave --broker out, or give mqtts://, "
            f"not {parse_url(broker)}"
        )
        raise DeviceError(message)


def default_state(name: str) -> Path:
    """Where a device keeps its things if its owner does not say."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "mas-edge" / name


def states_of(name: str) -> list[Path]:
    """Where the things of a device may be: its owner's, and those of a service of the system."""
    return [default_state(name), SYSTEM_STATE / name]


def state_of(name: str) -> Path:
    """Where the things of a device are: its owner's, or those of a service of the system, if only they are there."""
    own, system = states_of(name)
    return system if os.path.lexists(system) and not own.is_dir() else own
