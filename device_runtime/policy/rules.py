"""Rules and whether they hold: a table of pure functions on what was found out about the device.

What a rule asks for and the device cannot tell does not hold: a phone that hides its battery does not count as full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Literal, NamedTuple

import msgspec

from device_runtime.memory import in_units, parse_size
from mas_edge.protocol.errors import DeviceError

Network = Literal["metered", "unmetered"]
MINUTES = 24 * 60
# What must be regained before a rule that was broken holds again; without it a device at the limit comes and goes.
BACK_C, BACK_PERCENT, BACK_BUSY = 3.0, 2.0, 0.1
# "Idle": other programs take less than this share of the processor.
IDLE_BUSY = 0.25
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[rules]`` of the policy file; what is not given is not asked for."""

    charging: bool = False  # on a machine without a battery this holds
    min_battery: float | None = None  # percent
    max_temp_c: float | None = None  # of the hottest part of the processor
    network: Literal["any", "unmetered"] = "any"
    idle: bool = False
    hours: list[str] = []  # of local time, such as "22:00-07:00"; any of them
    max_joules_per_day: float | None = None
    max_rounds_per_day: int | None = None
    min_free_memory: str = ""  # such as "256M", left over while training
    min_free_disk: str = ""
    pause_s: float = 300.0  # how long a training that was begun waits for the rules to hold again

    def __post_init__(self) -> None:
        """Raise DeviceError for a value that no device can meet or miss."""
        for hours in self.hours:
            if not _HOURS.fullmatch(hours):
                message = f"rules.hours: {hours!r}; expected from-to in local time, such as '22:00-07:00'"
                raise DeviceError(message)
        for name in ("min_free_memory", "min_free_disk"):
            if text := getattr(self, name):
                _check_size(name, text)
        limits = {
            "min_battery": (0, 100), "max_temp_c": (20, 120), "max_joules_per_day": (0, 1e12),
            "max_rounds_per_day": (0, 1e9), "pause_s": (0, 1e6),
        }  # fmt: skip
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                message = f"rules.{name} is {value}; expected {least:g} to {most:g}"
                raise DeviceError(message)


def _check_size(name: str, text: str) -> None:
    try:
        parse_size(text)
    except DeviceError as error:
        message = f"rules.{name}: {error}"
        raise DeviceError(message) from None


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The device now; None is what it does not tell, and ``unknown`` says why."""

    minute: int  # of the local day
    battery: bool = False  # whether it has one
    plugged: bool | None = None
    battery_percent: float | None = None
    temperature_c: float | None = None
    network: Network | None = None
    busy: float | None = None  # the share of the processor that other programs take
    free_memory: int | None = None  # bytes
    free_disk: int | None = None
    joules_today: float = 0.0
    rounds_today: int = 0
    unknown: Mapping[str, str] = {}


class Broken(NamedTuple):
    """A rule that does not hold."""

    rule: str
    text: str
    lasting: bool  # it will not hold again soon: nobody need wait


_Judge = Callable[[Rules, Conditions, bool], str]  # the rules, the device, and whether this rule was broken before


def _charging(rules: Rules, now: Conditions, _held: bool) -> str:
    if not rules.charging or (not now.battery and now.plugged is None and "battery" not in now.unknown):
        return ""
    return "" if now.plugged else _not_known(now, "battery") if now.plugged is None else "it is not charging"


def _battery(rules: Rules, now: Conditions, held: bool) -> str:
    if rules.min_battery is None or (not now.battery and "battery" not in now.unknown):
        return ""
    if now.battery_percent is None:
        return _not_known(now, "battery")
    least = min(100.0, rules.min_battery + (BACK_PERCENT if held else 0))
    again = f" and {least:.0f} % to go on" if held else ""
    text = f"battery at {now.battery_percent:.0f} %, {rules.min_battery:.0f} % is asked for{again}"
    return "" if now.battery_percent >= least else text


def _temperature(rules: Rules, now: Conditions, held: bool) -> str:
    if rules.max_temp_c is None:
        return ""
    if now.temperature_c is None:
        return _not_known(now, "temperature")
    most = rules.max_temp_c - (BACK_C if held else 0)
    again = f" and {most:.0f} °C to go on" if held else ""
    text = f"{now.temperature_c:.0f} °C, up to {rules.max_temp_c:.0f} °C is allowed{again}"
    return "" if now.temperature_c <= most else text


def _network(rules: Rules, now: Conditions, _held: bool) -> str:
    if rules.network == "any" or now.network == "unmetered":
        return ""
    return _not_known(now, "network") if now.network is None else "its network is metered"


def _idle(rules: Rules, now: Conditions, held: bool) -> str:
    if not rules.idle:
        return ""
    if now.busy is None:
        return _not_known(now, "other programs")
    most = IDLE_BUSY - (BACK_BUSY if held else 0)
    return "" if now.busy <= most else f"in use: other programs take {now.busy:.0%} of the processor"


def _hours(rules: Rules, now: Conditions, _held: bool) -> str:
    if not rules.hours or any(_within(hours, now.minute) for hours in rules.hours):
        return ""
    return f"it is {now.minute // 60:02}:{now.minute % 60:02}; allowed is {', '.join(rules.hours)}"


def _within(hours: str, minute: int) -> bool:
    """Whether a minute of the day lies in ``from-to``; over midnight where ``to`` comes first; the end is not in it."""
    a, b, c, d = map(int, hours.replace("-", ":").split(":"))
    begin, end = 60 * a + b, 60 * c + d
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _joules(rules: Rules, now: Conditions, _held: bool) -> str:
    most = rules.max_joules_per_day
    if most is None or now.joules_today < most:
        return ""
    return f"{now.joules_today:.0f} J taken today, up to {most:g} J is allowed"


def _rounds(rules: Rules, now: Conditions, _held: bool) -> str:
    most = rules.max_rounds_per_day
    return "" if most is None or now.rounds_today < most else f"{now.rounds_today} rounds today, {most} are allowed"


def _memory(rules: Rules, now: Conditions, _held: bool) -> str:
    return _free(rules.min_free_memory, now.free_memory, "memory", now)


def _disk(rules: Rules, now: Conditions, _held: bool) -> str:
    return _free(rules.min_free_disk, now.free_disk, "disk", now)


def _free(least: str, free: int | None, what: str, now: Conditions) -> str:
    if not least:
        return ""
    if free is None:
        return _not_known(now, what)
    return "" if free >= parse_size(least) else f"{in_units(free)} of {what} free, {least} is asked for"


def _not_known(now: Conditions, what: str) -> str:
    return f"the rule on its {what} cannot be checked: {now.unknown.get(what, 'the device does not tell')}"


JUDGES: dict[str, _Judge] = {
    "charging": _charging, "min_battery": _battery, "max_temp_c": _temperature, "network": _network, "idle": _idle,
    "hours": _hours, "max_joules_per_day": _joules, "max_rounds_per_day": _rounds, "min_free_memory": _memory,
    "min_free_disk": _disk,
}  # fmt: skip
LASTING = ("hours", "max_joules_per_day", "max_rounds_per_day")
# A model to answer with is loaded and tried within seconds; only these rules keep it away.
OF_DEPLOYMENT = ("network", "min_free_disk")
# A round counts when it begins: once it has, this rule is met.
BEFORE_ONLY = ("max_rounds_per_day",)


def broken(rules: Rules, now: Conditions, before: Collection[str] = ()) -> list[Broken]:
    """The rules that do not hold. ``before``: those that did not the last time; they must be met with a margin."""
    judged = ((name, judge(rules, now, name in before)) for name, judge in JUDGES.items())
    return [Broken(name, text, name in LASTING) for name, text in judged if text]
