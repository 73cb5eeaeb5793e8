"""What the board says of itself now: power, heat, battery, network, and whether its owner's rules hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from device_runtime.host import Host, SensorError
from device_runtime.policy.file import Policy
from device_runtime.policy.rules import Conditions
from device_runtime.policy.watch import Watch
from device_runtime.power.sensor import Part, Sensor
from device_runtime.power.survey import Survey, survey
from device_runtime.remedies import Lack, Place

# Between the two readings of a sensor that counts joules: long enough for the slowest to move.
APART_S = 1.0
# What a condition is called where it is not known, and what is lacking then.
LACKS: dict[str, Lack] = {
    "battery": "battery", "temperature": "temperature", "network": "network", "other programs": "idle",
    "memory": "memory", "disk": "disk",
}  # fmt: skip


class PowerReading(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor now."""

    source: str
    covers: Part
    watts: float | None = None
    problem: str = ""


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the sensors and the owner's rules say at one moment."""

    power: Sequence[PowerReading]
    estimate: str  # how joules are guessed where nothing measures; "" if they are not
    error: float  # of the estimate, relative
    conditions: Conditions
    broken: Sequence[str]  # rules that do not hold now
    advice: Sequence[str]  # one line each


def take(host: Host, place: Place, policy: Policy, state: Path) -> Vitals:
    """Ask every sensor twice, a second apart; ``state``: the device's directory, for its disk and its day so far."""
    found = survey(host, policy.power)
    watch = Watch(policy.rules, state if os.access(state, os.R_OK | os.X_OK) else Path.cwd(), host)
    watch.look()
    power = readings(found.sensors, APART_S)
    conditions = watch.look()  # what others take of the processor shows from the second look on
    known = bool(policy.power.watts_per_core)  # the owner has measured the board already
    advice = [*_about_power(place, found, power, known=known)]
    advice += [f"{what}: {place.mend(lack)}" for what, lack in LACKS.items() if what in conditions.unknown]
    return Vitals(
        power=power, estimate=found.estimate.source if found.estimate else "",
        error=found.estimate.error if found.estimate else 0.0, conditions=conditions,
        broken=watch.gate.reasons(), advice=advice,
    )  # fmt: skip


def _about_power(place: Place, found: Survey, power: Sequence[PowerReading], *, known: bool) -> Iterator[str]:
    """What to do about sensors that cannot be read, that say what cannot be, or that are not there."""
    yield from found.problems
    for reading in power:
        if reading.problem:
            yield f"{reading.problem}; {place.mend('doubtful-power')}"
    if not known and not found.problems and not any(reading.covers in ("board", "processor") for reading in power):
        yield f"power: {place.mend('power')}"


def readings(sensors: Sequence[Sensor], apart_s: float) -> list[PowerReading]:
    """The power that each sensor measures; one that counts is read twice."""
    first = [_read(sensor) for sensor in sensors]
    began = time.monotonic()
    time.sleep(apart_s)
    told = []
    for sensor, before in zip(sensors, first, strict=True):
        now = _read(sensor)
        passed = time.monotonic() - began
        if isinstance(before, float) and isinstance(now, float):
            watts = now if sensor.kind == "watts" else (now - before) / passed
            told.append(PowerReading(source=sensor.source, covers=sensor.covers, watts=watts))
        else:
            problem = next(str(each) for each in (now, before) if not isinstance(each, float))
            told.append(PowerReading(source=sensor.source, covers=sensor.covers, problem=problem))
    return told


def _read(sensor: Sensor) -> float | SensorError:
    try:
        return float(sensor.read())
    except SensorError as error:
        return error
