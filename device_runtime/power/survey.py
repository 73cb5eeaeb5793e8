"""Which sensors this machine has, what is wrong with the others, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from device_runtime.host import Host, SensorError, board_model
from device_runtime.power import battery, hwmon, nvml, pmic, rapl
from device_runtime.power.battery import Unit
from device_runtime.power.estimate import Estimate, estimate_for
from device_runtime.power.sensor import Sensor
from mas_edge.protocol.errors import DeviceError


class PowerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner knows of the board's power: the table ``[power]`` of the policy file."""

    rails: list[str] = []  # of a Jetson's chip: those that together carry the board
    battery_unit: Unit = "uA"  # in which the battery's driver counts its current
    watts_per_core: float = 0.0  # of a busy core beside an idle one, by a plug meter; 0 = what is known of the board
    error: float = 0.1  # of watts_per_core, relative
    estimate: bool = True  # false: say nothing where nothing measures

    def __post_init__(self) -> None:
        """Raise DeviceError for watts and errors that no board has."""
        for name, most in (("watts_per_core", 100), ("error", 1)):  # the hungriest core takes some tens of watts
            value = getattr(self, name)
            if not 0 <= value <= most:
                message = f"power.{name} is {value:g}; expected 0 to {most}"
                raise DeviceError(message)


class Survey(NamedTuple):
    """What can be said about power here."""

    sensors: list[Sensor]
    estimate: Estimate | None
    problems: list[str]  # one line each, with what to do


def survey(host: Host, settings: PowerSettings, *, library: str = nvml.LIBRARY) -> Survey:
    """Look for every kind of sensor. Never raises: what cannot be used is a problem, not an error."""
    sensors: list[Sensor] = []
    problems: list[str] = []
    finders: list[Callable[[], Sensor | None]] = [
        lambda: hwmon.find(host, settings.rails),
        lambda: pmic.find(host),
        lambda: battery.find(host, settings.battery_unit),
        lambda: rapl.find(host),
        lambda: nvml.find(library),
    ]
    for find in finders:
        try:
            sensor = find()
        except SensorError as error:
            problems.append(str(error))
            continue
        if sensor is not None and not (sensor.covers != "board" and _has_board(sensors)):
            sensors.append(sensor)  # what measures the board measures its processors as well
    return Survey(sensors[:1] if _has_board(sensors) else sensors, _estimate(host, settings), problems)


def _has_board(sensors: list[Sensor]) -> bool:
    return any(sensor.covers == "board" for sensor in sensors)


def _estimate(host: Host, settings: PowerSettings) -> Estimate | None:
    if not settings.estimate:
        return None
    if settings.watts_per_core:
        return Estimate(settings.watts_per_core, settings.error, "the owner's measurement")
    return estimate_for(board_model(host), platform.machine())
