"""A phone's battery: by /sys/class/power_supply (often closed to apps), or by the command ``termux-battery-status``.

What flows out of the battery is what the phone takes only while nothing charges it: with a charger in, there is no
reading. The kernel's unit of current is the microampere; some drivers count milliamperes, and the sign differs. A power
no running phone can have is therefore an error that names the unit, not a guess at it; the owner can say the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from device_runtime.host import Host, SensorError
from device_runtime.power.sensor import Part

Unit = Literal["uA", "mA"]
AMPERES: dict[Unit, float] = {"uA": 1e-6, "mA": 1e-3}
COMMAND = "termux-battery-status"
SUPPLIES = "sys/class/power_supply"
STATUSES = ("Charging", "Discharging", "Not charging", "Full")  # the kernel's; also "Unknown", which says nothing
# A phone that is awake takes more than its standby power, and its battery gives no more than a fast charge brings in.
LEAST_WATTS, MOST_WATTS = 0.1, 25.0
LEAST_VOLTS, MOST_VOLTS = 2.5, 13.0  # one to three lithium cells in a row


class BatteryState(msgspec.Struct, frozen=True, kw_only=True):
    """A battery now."""

    percent: float
    plugged: bool
    temperature_c: float | None = None
    volts: float | None = None
    current: float | None = None  # as the driver gives it; the unit is not known


@dataclass
class BatterySensor:
    """The power that a battery gives."""

    host: Host
    unit: Unit = "uA"
    kind: Literal["watts"] = "watts"
    source: str = "battery"
    covers: Part = "board"
    period_s: float = 60.0  # the command takes seconds, and fuel gauges move slowly
    needs_s: float = 180.0

    def read(self) -> float:
        """Watts out of the battery."""
        state = state_of(self.host)
        if state is None:
            message = "the battery is gone"
            raise SensorError(message)
        return watts_of(state, self.unit)


def watts_of(state: BatteryState, unit: Unit) -> float:
    """What the phone takes.

    Raises:
        SensorError: it is charged, or what the driver says cannot be.
    """
    if state.plugged:
        message = "battery: while it is charged, what the phone takes does not show; unplug it to measure"
        raise SensorError(message)
    if state.current is None or state.volts is None:
        message = "battery: the driver gives no current or no voltage"
        raise SensorError(message)
    if not LEAST_VOLTS <= state.volts <= MOST_VOLTS:
        message = f"battery: {state.volts:g} V is no voltage of a phone; expected {LEAST_VOLTS:g} to {MOST_VOLTS:g} V"
        raise SensorError(message)
    watts = abs(state.current) * AMPERES[unit] * state.volts
    if not LEAST_WATTS <= watts <= MOST_WATTS:
        other = "mA" if unit == "uA" else "uA"
        message = (
            f"battery: a current of {state.current:g} {unit} makes {watts:.4g} W, which no running phone takes: its "
            f'driver may count in {other}; if so, say [power] battery_unit = "{other}" in the policy file'
        )
        raise SensorError(message)
    return watts


def find(host: Host, unit: Unit = "uA") -> BatterySensor | None:
    """The sensor of a phone; None where nothing runs from a battery, or where none says its current."""
    state = state_of(host)
    return BatterySensor(host, unit) if state is not None and state.current is not None else None


def state_of(host: Host) -> BatteryState | None:
    """The battery now; None if this machine has none, or nobody may ask.

    Raises:
        SensorError: there is one, and what it says cannot be understood.
    """
    for path in host.glob(f"{SUPPLIES}/*/type"):
        try:
            if host.text(path) == "Battery" and host.has(path.removesuffix("type") + "capacity"):
                return _by_files(host, path.removesuffix("/type"))
        except SensorError:  # Android closes these files to apps: ask the app that may read them
            if not host.command(COMMAND):
                raise
            break
    return _by_command(host) if host.command(COMMAND) else None


def _by_files(host: Host, path: str) -> BatteryState:
    percent, status = host.number(f"{path}/capacity"), host.text(f"{path}/status")
    if status not in STATUSES:
        message = f"{path}/status is {status[:40]!r}; expected one of {', '.join(STATUSES)}"
        raise SensorError(message)
    temperature, volts = _optional(host, f"{path}/temp"), _optional(host, f"{path}/voltage_now")
    return _state(
        {
            "percentage": percent, "plugged": "" if status == "Discharging" else status,
            "temperature": None if temperature is None else temperature / 10,
            "voltage": None if volts is None else volts / 1000, "current": _optional(host, f"{path}/current_now"),
        }
    )  # fmt: skip


def _optional(host: Host, path: str) -> int | None:
    try:
        return host.number(path)
    except SensorError:
        return None


class _Said(msgspec.Struct, kw_only=True):
    """What ``termux-battery-status`` prints; voltage (mV) since termux-api 0.51."""

    percentage: float
    plugged: str
    temperature: float | None = None
    voltage: float | None = None
    current: float | None = None


def _by_command(host: Host) -> BatteryState:
    text = host.run([COMMAND])
    try:
        tree = msgspec.json.decode(text)
    except msgspec.DecodeError:
        message = f"{COMMAND} says {text.strip()[:60]!r}; expected JSON: install the app Termux:API, and open it once"
        raise SensorError(message) from None
    plugged = tree.get("plugged") if isinstance(tree, dict) else None
    return _state({**tree, "plugged": ""} if plugged == "UNPLUGGED" else tree)


def _state(tree: Any) -> BatteryState:
    """``voltage`` in mV. Raises SensorError for a field that is not what it should be."""
    try:
        said = msgspec.convert(tree, _Said)
    except msgspec.ValidationError as error:
        message = f"the battery's state is not understood: {error}"
        raise SensorError(message) from None
    if not 0 <= said.percentage <= 100:
        message = f"the battery is at {said.percentage:g} %; expected 0 to 100"
        raise SensorError(message)
    return BatteryState(
        percent=said.percentage, plugged=bool(said.plugged), temperature_c=said.temperature,
        volts=None if said.voltage is None else said.voltage / 1000, current=said.current,
    )  # fmt: skip
