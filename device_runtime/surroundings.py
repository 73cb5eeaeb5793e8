"""What a device depends on beside its own hardware: the clock, the broker, its membership, the service that runs it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from device_runtime.edge.mqtt import Link
from device_runtime.host import Host, SensorError, on_termux
from device_runtime.identity import Identity, has_joined
from device_runtime.service.installation import NOTE, read_note
from mas_edge.protocol.errors import BrokerError, DeviceError

REACH_S = 10.0  # how long a broker may take: one behind a mobile network and TLS takes a few
# systemd's own clock daemon keeps this folder, and puts the file into it once the time came from the network.
_TIMESYNC, _SYNCHRONIZED = "/run/systemd/timesync", "/run/systemd/timesync/synchronized"
_SET_CLOCK = "sudo timedatectl set-ntp true"
_SET_CLOCK_PHONE = "Android settings, system, date and time: set automatically"
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


def look_around(host: Host, state: Path, broker: str, now: float) -> list[Finding]:
    """Everything. ``state``: the device's directory; ``broker``: a URL, or "" for that of the fleet it has joined.

    ``now`` in seconds since 1970.
    """
    found = [clock(host, now, _newest(Path(__file__).parent)), *throttling(host), membership(state, now)]
    return [*found, reach(state, broker), service(state)]


def clock(host: Host, now: float, known: float) -> Finding:
    """Whether the clock can be right: not before ``known``, when this software came here, and set by the network."""
    shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    mend = _SET_CLOCK_PHONE if on_termux() else _SET_CLOCK
    if now < known:
        since = time.strftime("%Y-%m-%d", time.gmtime(known))
        text = f"{shown}, which is before this software was installed ({since}): certificates and hours will not hold"
        return Finding(what="clock", text=text, advice=f"the clock is wrong: {mend}")
    if host.has(_TIMESYNC) and not host.has(_SYNCHRONIZED):
        text = f"{shown}, not set by the network since the board started"
        return Finding(what="clock", text=text, advice=f"the clock may be wrong: {mend}, and let UDP port 123 out")
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


def membership(state: Path, now: float) -> Finding:
    """Whether the device has joined a fleet, and whether its certificate is good."""
    if not has_joined(state):
        return Finding(what="fleet", text=f"not joined ({state}): --broker has to be given")
    try:
        identity = Identity(state)
        begins, expires = identity.validity()
    except DeviceError as error:
        return Finding(what="fleet", text=str(error), advice=f"fleet: {error}")
    name = f"{identity.record.name} in fleet {identity.record.fleet}"
    if now < begins:
        return Finding(what="fleet", text=f"{name}, its certificate is not good yet", advice=f"the clock: {_SET_CLOCK}")
    day = time.strftime("%Y-%m-%d", time.gmtime(expires))
    if now > expires:
        advice = (
            f"its certificate has expired: `mas-edge fleet invite DIR {identity.record.name} --again` on the server, "
            "then here: mas-edge-device join TOKEN"
        )
        return Finding(what="fleet", text=f"{name}, its certificate has expired on {day}", advice=advice)
    return Finding(what="fleet", text=f"{name}, its certificate is good until {day}")


def reach(state: Path, broker: str) -> Finding:
    """Whether the broker lets us in."""
    try:
        url = broker or (Identity(state).url if has_joined(state) else "")
        if not url:
            return Finding(what="broker", text="none is known: give --broker URL to try it")
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
        return Finding(what="broker", text="not reached", advice=str(error))


def service(state: Path) -> Finding:
    """Whether the agent starts with the system, and whether Home Assistant is told."""
    if not (state / NOTE).exists():
        return Finding(
            what="service", text="not installed: it runs while somebody runs it",
            advice="to have it start with the system: mas-edge-device install --service, with the options of `run`",
        )  # fmt: skip
    try:
        installation = read_note(state).installation
    except DeviceError as error:
        return Finding(what="service", text="not known", advice=str(error))
    told = any("--home-assistant" in file.text for file in installation.files)
    home = "Home Assistant is told" if told else "Home Assistant is not told (--home-assistant)"
    missing = [file.path for file in installation.files if not Path(file.path).exists()]
    text = f"installed ({installation.manager}); {home}"
    if missing:
        advice = f"{missing[0]} is gone: mas-edge-device uninstall, then install --service again"
        return Finding(what="service", text=text, advice=advice)
    return Finding(what="service", text=text)


def _newest(folder: Path) -> float:
    """When this software came here."""
    return max((path.stat().st_mtime for path in folder.glob("*.py")), default=0.0)
