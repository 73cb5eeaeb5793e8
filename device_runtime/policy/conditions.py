"""Finding out what the rules ask about: battery, heat, network, what others do, what is free."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from device_runtime.host import Host, SensorError
from device_runtime.policy.rules import Conditions, Network
from device_runtime.power import battery
from device_runtime.power.battery import BatteryState
from mas_edge.protocol.messages import Board

_T = TypeVar("_T")
# ``termux-battery-status`` and its kin take seconds; what they say is good for this long.
SLOW_S = 60.0
# Zones of the processor, as Jetsons, Pis, phones and PCs name them; a phone has dozens of others (modem, skin).
_PROCESSOR = re.compile(r"cpu|gpu|soc|tj|x86_pkg|tsens|bcm|cluster|big|little", re.IGNORECASE)
_CHIPS = ("coretemp", "k10temp", "cpu_thermal")
# In milli-degrees. Outside: a sensor that is switched off (Jetson says -256000), or one that counts whole degrees.
COLDEST, HOTTEST, WHOLE_DEGREES = -40_000, 130_000, 1000
_MODEMS = ("wwan", "rmnet", "ccmni", "ppp", "usb_rmnet", "pdp")


class Reader:
    """Reads one device's conditions; ``state`` is the directory whose disk counts."""

    def __init__(self, host: Host, state: Path) -> None:
        self._host, self._state = host, state
        self._slow: dict[str, tuple[float, object]] = {}
        self._times: tuple[float, float, float] | None = None

    def read(self, now: float) -> Conditions:
        """Everything, as it is ``now`` (monotonic seconds); joules and rounds are not this module's."""
        unknown: dict[str, str] = {}
        state = self._try("battery", unknown, lambda: self._battery(now))
        local = time.localtime()
        return Conditions(
            minute=60 * local.tm_hour + local.tm_min,
            battery=state is not None, plugged=state.plugged if state else None,
            battery_percent=state.percent if state else None,
            temperature_c=self._try("temperature", unknown, lambda: temperature(self._host)),
            network=self._try("network", unknown, lambda: self._kept("network", now, lambda: network(self._host))),
            busy=self._try("other programs", unknown, self._busy),
            free_memory=self._try("memory", unknown, lambda: free_memory(self._host)),
            free_disk=self._try("disk", unknown, self._free_disk), unknown=unknown,
        )  # fmt: skip

    def board(self, now: float) -> Board | None:
        """Battery and heat alone, as they are ``now`` (monotonic seconds); None: nothing tells them."""
        state = self._try("battery", {}, lambda: self._battery(now))
        heat = self._try("temperature", {}, lambda: self._kept("temperature", now, lambda: temperature(self._host)))
        if state is None and heat is None:
            return None
        return Board(
            battery_percent=state.percent if state else None, plugged=state.plugged if state else None,
            temperature_c=heat,
        )  # fmt: skip

    def _battery(self, now: float) -> BatteryState | None:
        slow = self._host.command(battery.COMMAND)
        return self._kept("battery", now, self._state_of) if slow else self._state_of()

    def _state_of(self) -> BatteryState | None:
        return battery.state_of(self._host)

    def _try(self, what: str, unknown: dict[str, str], find: Callable[[], _T]) -> _T | None:
        try:
            return find()
        except SensorError as error:
            unknown[what] = str(error)
            return None

    def _kept(self, what: str, now: float, find: Callable[[], _T]) -> _T:
        """What was found within the last minute, or is found now; a failure is kept as well."""
        when, value = self._slow.get(what, (float("-inf"), None))
        if now - when >= SLOW_S:
            try:
                value = find()
            except SensorError as error:
                value = error.with_traceback(None)  # it would keep what all its callers hold: an update of each round
            self._slow[what] = (now, value)
        if isinstance(value, SensorError):
            raise SensorError(str(value)) from None
        return value  # type: ignore[return-value] # put there by ``find`` under this name

    def _busy(self) -> float | None:
        """The share of the processor that others took since the last reading; None at the first."""
        words = self._host.text("/proc/stat").partition("\n")[0].split()
        fields = [int(word) for word in words[1:] if word.isdecimal()]
        if len(fields) < 5:
            message = "/proc/stat does not begin with the processor's times"
            raise SensorError(message)
        ticks = os.sysconf("SC_CLK_TCK")
        whole, idle = sum(fields[:8]) / ticks, sum(fields[3:5]) / ticks
        own = sum(os.times()[:4])
        before, self._times = self._times, (whole, idle, own)
        if before is None or whole <= before[0]:
            return None
        share = (whole - idle - own - (before[0] - before[1] - before[2])) / (whole - before[0])
        return min(1.0, max(0.0, share))

    def _free_disk(self) -> int:
        try:
            found = os.statvfs(self._state)
        except OSError as error:
            message = f"{self._state}: {error.strerror}"
            raise SensorError(message) from None
        return found.f_bavail * found.f_frsize


def temperature(host: Host) -> float:
    """Degrees Celsius of the hottest part of the processor.

    Raises:
        SensorError: no part says one that can be.
    """
    zones = [path.removesuffix("type") + "temp" for path in host.glob("sys/class/thermal/thermal_zone*/type")
             if _PROCESSOR.search(_text(host, path))]  # fmt: skip
    chips = [path.removesuffix("name") + "temp1_input" for path in host.glob("sys/class/hwmon/hwmon*/name")
             if _text(host, path) in _CHIPS]  # fmt: skip
    found = []
    for path in zones + chips:
        try:
            value = host.number(path)
        except SensorError:  # one that is switched off answers EAGAIN or EINVAL
            continue
        if COLDEST <= value <= HOTTEST and abs(value) >= WHOLE_DEGREES:
            found.append(value / 1000)
    if found:
        return max(found)
    phone = battery.state_of(host)  # an app may read no zone, but may ask for the battery's
    if phone is not None and phone.temperature_c is not None:
        return phone.temperature_c
    message = "no thermal zone of the processor says a temperature between -40 and 130 °C"
    raise SensorError(message)


def network(host: Host) -> Network:
    """Whether the network that leads out is paid for by the byte.

    NetworkManager knows, where it runs. Else a modem is metered, and everything else is taken for unmetered. On a phone
    only the connection by Wi-Fi is known.

    Raises:
        SensorError: nothing leads out, or nobody tells what does.
    """
    if host.command("termux-wifi-connectioninfo"):
        return _by_termux(host)
    lines = [line.split() for line in host.text("/proc/net/route").splitlines()[1:]]
    leading = [fields[0] for fields in lines if len(fields) > 1 and fields[1] == "00000000"]
    if not leading:
        message = "no route leads out of this device (/proc/net/route)"
        raise SensorError(message)
    if host.command("nmcli"):
        said = host.run(["nmcli", "-g", "GENERAL.METERED", "device", "show", leading[0]]).strip()
        if said.startswith(("yes", "no")):  # also "yes (guessed)"
            return "metered" if said.startswith("yes") else "unmetered"
    return "metered" if leading[0].startswith(_MODEMS) else "unmetered"


def _by_termux(host: Host) -> Network:
    text = host.run(["termux-wifi-connectioninfo"])
    try:
        said = msgspec.json.decode(text)
    except msgspec.DecodeError:
        message = f"termux-wifi-connectioninfo says {text.strip()[:60]!r}; expected JSON: open the app Termux:API once"
        raise SensorError(message) from None
    connected = isinstance(said, dict) and said.get("supplicant_state") == "COMPLETED"
    return "unmetered" if connected else "metered"


def free_memory(host: Host) -> int:
    """Bytes that programs can still get."""
    found = re.search(r"MemAvailable:\s*(\d+) kB", host.text("/proc/meminfo"))
    if not found:
        message = "/proc/meminfo says no MemAvailable"
        raise SensorError(message)
    return 1024 * int(found[1])


def _text(host: Host, path: str) -> str:
    try:
        return host.text(path)
    except SensorError:
        return ""
