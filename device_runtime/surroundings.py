"""What a device depends on beside its own hardware: the clock, the broker, its membership, the service that runs it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec

from device_runtime.edge.mqtt import Link
from device_runtime.host import Host, SensorError
from device_runtime.identity import Identity, has_joined
from device_runtime.remedies import Place, command
from device_runtime.service.installation import NOTE, read_note
from mas_edge.protocol.errors import BrokerError, DeviceError

REACH_S = 10.0  # how long a broker may take: one behind a mobile network and TLS takes a few
# systemd's own clock daemon keeps this folder, and puts the file into it once the time came from the network.
_TIMESYNC, _SYNCHRONIZED = "/run/systemd/timesync", "/run/systemd/timesync/synchronized"
# vcgencmd get_throttled: what is the case now, and what the owner can do; 16 bits further up: since the board started.
_THROTTLED = {
    0x1: ("its voltage is too low", "give the board the power supply and cable that are made for it"),
    0x2: ("its processor is held back", "see what else is told here: voltage or heat"),
    0x4: ("it is slowed down for heat or voltage", "cool it: a heat sink or a fan; or rules.max_temp_c in the policy"),
    0x8: ("it is near its heat limit", "cool it: a heat sink or a fan; or rules.max_temp_c in the policy"),
}
_SINCE_START = 16


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at, and what to do about it; "" if there is nothing to do."""

    what: str
    text: str
    advice: str = ""
    serious: bool = False  # with it the device cannot do its work


def look_around(host: Host, place: Place, state: Path | None, broker: str, now: float) -> list[Finding]:
    """Everything. ``state``: the device's directory, if one is meant; ``broker``: a URL, or "" for its own fleet's.

    ``now`` in seconds since 1970.
    """
    found = [clock(host, place, now, _newest(Path(__file__).parent)), *throttling(host)]
    if state is None:
        text = "not looked at, nor its service: --name NAME says which device"
        found.append(Finding(what="fleet", text=text, advice=f"to look at a device: {command()} doctor --name NAME"))
        return [*found, reach(place, None, broker)]
    if not _open(state):
        advice = f"{state} is closed to this user: sudo {command(whole=True)} doctor --state {state}"
        return [*found, Finding(what="fleet", text="not known", advice=advice), reach(place, None, broker)]
    return [*found, membership(place, state, now), reach(place, state, broker), service(place, state)]


def _open(state: Path) -> bool:
    """Whether this user may look into it, if it is there."""
    try:
        return not state.exists() or os.access(state, os.R_OK | os.X_OK)
    except PermissionError:  # a folder on the way: that of a user whom systemd made up
        return False


def clock(host: Host, place: Place, now: float, known: float) -> Finding:
    """Whether the clock can be right: not before ``known``, when this software came here, and set by the network."""
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < known:
        since = time.strftime("%Y-%m-%d", time.gmtime(known))
        text = f"{shown}, which is before this software was installed ({since}): certificates and hours will not hold"
        return Finding(what="clock", text=text, advice=f"the clock is wrong: {place.mend('clock')}", serious=True)
    if host.has(_TIMESYNC) and not host.has(_SYNCHRONIZED):
        text = f"{shown}, not set by the network since the board started"
        return Finding(what="clock", text=text, advice=f"the clock may be wrong: {place.mend('network-time')}")
    return Finding(what="clock", text=shown)


def throttling(host: Host) -> Iterator[Finding]:
    """Whether a Raspberry Pi runs slower than it could; nothing where it does not say."""
    if not host.command("vcgencmd"):
        return
    try:
        said = host.run(("vcgencmd", "get_throttled")).strip()
        bits = int(said.partition("=")[2], 16)
    except (SensorError, ValueError) as error:
        yield Finding(what="speed", text=f"not known: {error}", advice="sudo usermod -aG video $USER, then log in anew")
        return
    now = [pair for bit, pair in _THROTTLED.items() if bits & bit]
    before = [pair for bit, pair in _THROTTLED.items() if bits & bit << _SINCE_START]
    if not now and not before:
        yield Finding(what="speed", text="full, since the board started")
        return
    when = "now" if now else "some time since the board started"
    text = f"{when}: {', '.join(text for text, _ in now or before)}"
    yield Finding(what="speed", text=text, advice=(now or before)[0][1])


def membership(place: Place, state: Path, now: float) -> Finding:
    """Whether the device has joined a fleet, and whether its certificate is good."""
    if not has_joined(state):
        if find_spec("cryptography") is None:
            text = "not joined, and cannot: the package cryptography is not installed"
            return Finding(what="fleet", text=text, advice=f"to join a fleet: {place.mend('secure')}")
        advice = f"to join a fleet: {place.mend('membership')}"
        return Finding(what="fleet", text=f"not joined ({state}): --broker has to be given", advice=advice)
    try:
        identity = Identity(state)
        begins, expires = identity.validity()
    except DeviceError as error:
        return Finding(what="fleet", text=str(error), advice=f"fleet: {error}", serious=True)
    name = f"{identity.record.name} in fleet {identity.record.fleet}"
    if place.name not in (Place(place.kind).name, identity.record.name):  # `run` refuses it
        advice = f"{state} is that of {identity.record.name}: give --name {identity.record.name}, or another --state"
        return Finding(what="fleet", text=f"{name}, not {place.name}", advice=advice, serious=True)
    if now < begins:
        text = f"{name}, its certificate is not good yet"
        return Finding(what="fleet", text=text, advice=f"the clock is wrong: {place.mend('clock')}", serious=True)
    day = time.strftime("%Y-%m-%d", time.gmtime(expires))
    if now > expires:
        advice = (
            f"its certificate has expired: `mas-edge fleet invite DIR {identity.record.name} --again` on the server, "
            f"then here: {place.mend('membership')}"
        )
        return Finding(what="fleet", text=f"{name}, its certificate has expired on {day}", advice=advice, serious=True)
    return Finding(what="fleet", text=f"{name}, its certificate is good until {day}")


def reach(place: Place, state: Path | None, broker: str) -> Finding:
    """Whether the broker lets us in."""
    try:
        url = broker or (Identity(state).url if state is not None and has_joined(state) else "")
        if not url:
            advice = f"to try a broker: {place.mend('broker')}"
            return Finding(what="broker", text="none is known: give --broker URL to try it", advice=advice)
        link = Link(url, f"doctor-{secrets.token_hex(4)}", lambda _: None, session_expiry_s=0)
        began = time.monotonic()
        link.start()
        try:
            link.wait_connected(REACH_S)
            took = time.monotonic() - began
            limit = f", packets up to {link.packet_limit} bytes" if link.packet_limit else ""
            return Finding(what="broker", text=f"{link.address} lets us in, after {1000 * took:.0f} ms{limit}")
        finally:
            link.stop()
    except (BrokerError, DeviceError) as error:
        return Finding(what="broker", text="not reached", advice=f"the broker: {error}", serious=True)


def service(place: Place, state: Path) -> Finding:
    """Whether the agent starts with the system, and whether Home Assistant is told."""
    if not (state / NOTE).exists():
        return Finding(
            what="service", text="not installed: it runs while somebody runs it",
            advice=f"to have it start with the system: {place.mend('service')}",
        )  # fmt: skip
    try:
        installation = read_note(state).installation
    except DeviceError as error:
        return Finding(what="service", text="not known", advice=str(error), serious=True)
    told = any("--home-assistant" in file.text for file in installation.files)
    home = "Home Assistant is told" if told else "Home Assistant is not told (--home-assistant)"
    missing = [file.path for file in installation.files if not Path(file.path).exists()]
    text = f"installed ({installation.manager}); {home}"
    if missing:
        advice = f"{missing[0]} is gone: {installation.undo}, then {place.mend('service')}"
        return Finding(what="service", text=f"{text}, but not whole", advice=advice, serious=True)
    return Finding(what="service", text=text)


def _newest(folder: Path) -> float:
    """When this software came here."""
    return max((path.stat().st_mtime for path in folder.glob("*.py")), default=0.0)
