"""Raspberry Pi 5: the rails of its power chip, by ``vcgencmd pmic_read_adc``. Earlier Pis measure no current.

The chip sees its own rails only: what USB, the display and a HAT take is not in them, nor its own losses. The total is
fitted to a plug meter by others: 1.1451 * sum + 0.5879 W (see docs/guides/energy.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from device_runtime.host import Host, SensorError, board_model
from device_runtime.power.sensor import Part, believable

COMMAND = ("vcgencmd", "pmic_read_adc")
BOARDS = ("Raspberry Pi 5", "Raspberry Pi Compute Module 5")
ADVICE = "its command is in the package raspi-utils, and needs the group video: sudo usermod -aG video $USER"
GAIN, OFFSET_WATTS = 1.1451, 0.5879
# A Pi 5 that runs takes 2 W and more, its supply gives 27 W; beyond is a wrong unit.
LEAST_WATTS, MOST_WATTS = 1.0, 30.0
# " VDD_CORE_A current(7)=0.75012000A", "VDD_CORE_V volt(15)=0.86173300V"; older firmware prints no "current(7)"
_LINE = re.compile(r"^\s*(\w+)_([AV])\s*(?:current\(\d+\)|volt\(\d+\)|voltage\(\d+\))?=([0-9.]+)[AV]\s*$")


@dataclass
class PmicSensor:
    """The board's power chip."""

    host: Host
    kind: Literal["watts"] = "watts"
    source: str = "Pi 5 PMIC"
    covers: Part = "board"
    period_s: float = 1.0  # each reading starts a process
    needs_s: float = 4.0

    def read(self) -> float:
        """Watts at the board's input."""
        watts = GAIN * rails_watts(self.host.run(COMMAND)) + OFFSET_WATTS
        return believable(watts, MOST_WATTS, self.source, LEAST_WATTS)


def find(host: Host) -> PmicSensor | None:
    """The sensor, if this is a board with such a chip.

    Raises:
        SensorError: it is, and the chip does not answer.
    """
    if not board_model(host).startswith(BOARDS):
        return None
    try:
        rails_watts(host.run(COMMAND))
    except SensorError as error:
        message = f"Pi 5 PMIC: {error}; {ADVICE}"
        raise SensorError(message) from None
    return PmicSensor(host)


def rails_watts(text: str) -> float:
    """The sum of volts times amperes over the rails that have both.

    Raises:
        SensorError: there is no such rail.
    """
    found: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in text.splitlines():
        if match := _LINE.match(line):
            try:
                found[match[2]][match[1]] = float(match[3])
            except ValueError:  # such as 1.2.3
                message = f"vcgencmd says {line.strip()[:60]!r}, which is no number"
                raise SensorError(message) from None
    rails = found["A"].keys() & found["V"].keys()
    if not rails:
        message = f"vcgencmd names no rail with volts and amperes: {text.strip()[:60]!r}"
        raise SensorError(message)
    return sum(found["A"][rail] * found["V"][rail] for rail in rails)
