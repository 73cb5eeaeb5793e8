"""Jetson: the INA3221 (Orin, Xavier, Nano) and the INA238 (Thor) through the kernel's hwmon files.

INA3221: ``in<n>_input`` in mV, ``curr<n>_input`` in mA, ``in<n>_label`` is the rail. INA238: ``power1_input`` in µW,
or the same two files. Chips are found by name: hwmon numbers change from boot to boot. Rails feed one another, so that
their sum counts twice; which of them make up the board is known by the sets below, or said by the owner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from device_runtime.host import Host, SensorError
from device_runtime.power.sensor import Part, believable

CHIPS = ("ina3221", "ina238")
# Rails that together carry the board's input and do not feed one another; the first set that is there counts.
BOARDS: tuple[tuple[str, ...], ...] = (
    ("VDD_IN",),  # Orin Nano, Orin NX, Xavier NX, TX2
    ("POM_5V_IN",),  # Nano
    ("VIN",),  # Thor
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin; VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
)
# A Jetson that runs takes more than the 0.5 W of a Nano asleep; less is a wrong unit. Rails that the owner chose may be
# small ones.
LEAST_WATTS = 0.3
MOST_WATTS = 250.0  # Thor, the largest, is cut off at 168 W; anything beyond is a wrong unit


@dataclass(frozen=True)
class Rail:
    """One channel of a chip."""

    chip: str  # its hwmon folder
    channel: int
    label: str


@dataclass
class HwmonSensor:
    """The rails that carry a board's input."""

    host: Host
    name: str
    rails: Sequence[Rail]
    least: float = LEAST_WATTS
    kind: Literal["watts"] = "watts"
    covers: Part = "board"
    period_s: float = 0.25  # two small files a rail; the chips average over some milliseconds
    needs_s: float = 1.0
    source: str = field(init=False)

    def __post_init__(self) -> None:
        self.source = f"{self.name} {' + '.join(rail.label for rail in self.rails)}"

    def read(self) -> float:
        """Watts that flow in over all rails."""
        return believable(sum(_watts(self.host, rail) for rail in self.rails), MOST_WATTS, self.source, self.least)


def find(host: Host, chosen: Sequence[str] = ()) -> HwmonSensor | None:
    """The board's sensor; ``chosen`` are the labels of the rails to add up, where the owner knows better.

    Raises:
        SensorError: there is a chip, and none of its rails is known to carry the board.
    """
    found: dict[str, dict[str, Rail]] = {}
    for path in host.glob("sys/class/hwmon/hwmon*/name"):
        try:
            name = host.text(path)
        except SensorError:
            continue
        if name in CHIPS:
            found.setdefault(name, {}).update(_rails(host, path.removesuffix("/name"), name))
    if not found:
        return None
    rails = {label: rail for chip in found.values() for label, rail in chip.items()}
    name = "ina238" if "ina238" in found else "ina3221"
    if chosen:
        return _of(host, name, rails, chosen, least=0.0)
    if "ina238" in found and len(found["ina238"]) == 1:  # Thor: one chip, on the board's input
        return HwmonSensor(host, "ina238", list(found["ina238"].values()))
    board = next((board for board in BOARDS if set(board) <= set(rails)), None)
    if board is None:
        message = (
            f"{name} has the rails {', '.join(sorted(rails)) or '(none)'}, and it is not known which of them carry "
            "the whole board: name them in the policy file, [power] rails = [...]"
        )
        raise SensorError(message)
    return _of(host, name, rails, board)


def _of(
    host: Host, name: str, rails: Mapping[str, Rail], labels: Sequence[str], least: float = LEAST_WATTS
) -> HwmonSensor:
    if missing := sorted(set(labels) - set(rails)):
        message = f"{name} has no rail {', '.join(missing)}; it has {', '.join(sorted(rails))}"
        raise SensorError(message)
    return HwmonSensor(host, name, [rails[label] for label in labels], least)


def _rails(host: Host, chip: str, name: str) -> dict[str, Rail]:
    """The channels of a chip that carry something; NC is what Jetson device trees call an open channel."""
    rails = {}
    for channel in (1, 2, 3):
        if not host.has(f"{chip}/curr{channel}_input"):
            continue
        try:
            label = host.text(f"{chip}/in{channel}_label")
        except SensorError:
            label = "VIN" if name == "ina238" else f"channel {channel}"
        if label != "NC":
            rails[label] = Rail(chip, channel, label)
    return rails


def _watts(host: Host, rail: Rail) -> float:
    power = f"{rail.chip}/power{rail.channel}_input"
    if host.has(power):
        return host.number(power) / 1e6
    millivolts = host.number(f"{rail.chip}/in{rail.channel}_input")
    return millivolts * host.number(f"{rail.chip}/curr{rail.channel}_input") / 1e6
