"""What every power sensor is to the meter."""

from __future__ import annotations

from typing import Literal, Protocol

from device_runtime.host import SensorError

Part = Literal["board", "processor", "graphics"]


class Sensor(Protocol):
    """One source of power (``kind`` "watts": the power now) or of energy ("joules": counted since any moment)."""

    @property
    def kind(self) -> Literal["watts", "joules"]:
        """What ``read`` gives."""
        ...

    @property
    def source(self) -> str:
        """For people and records, such as "ina3221 VDD_IN"."""
        ...

    @property
    def covers(self) -> Part:
        """What it measures the power of."""
        ...

    @property
    def period_s(self) -> float:
        """How often it is worth asking."""
        ...

    @property
    def needs_s(self) -> float:
        """Work shorter than this it does not resolve."""
        ...

    def read(self) -> float:
        """The reading, in watts or in joules. Raises SensorError when there is none that can be believed."""
        ...


def believable(watts: float, most: float, source: str, least: float = 0.0) -> float:
    """``watts`` if a machine of this kind can draw that much, else a SensorError: the unit is another one, or noise."""
    if not least < watts <= most:
        message = f"{source} says {watts:.4g} W; expected more than {least:g}, up to {most:g} W: it is not used"
        raise SensorError(message)
    return watts
