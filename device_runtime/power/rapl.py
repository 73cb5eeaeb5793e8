"""x86: RAPL, the processor's own count of energy, by the kernel's powercap files.

``energy_uj`` counts microjoules and begins again at ``max_energy_range_uj``. Only root may read it by default
(CVE-2020-8694); virtual machines have none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from device_runtime.host import Host, SensorError
from device_runtime.power.sensor import Part

ADVICE = "let this user read it: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj (until the next boot)"


@dataclass
class _Zone:
    path: str
    range_uj: int
    last_uj: int
    joules: float = 0.0


@dataclass
class RaplSensor:
    """The packages of the processor, and the memory beside them where it has a counter of its own."""

    host: Host
    paths: list[str]
    kind: Literal["joules"] = "joules"
    covers: Part = "processor"
    period_s: float = 1.0
    needs_s: float = 0.1  # the counter moves every millisecond
    source: str = field(init=False)
    _zones: list[_Zone] = field(init=False)

    def __post_init__(self) -> None:
        names = [self.host.text(f"{path}/name") for path in self.paths]
        self.source = f"RAPL {' + '.join(names)}"
        self._zones = [self._zone(path) for path in self.paths]

    def _zone(self, path: str) -> _Zone:
        last, most = self.host.number(f"{path}/energy_uj"), self.host.number(f"{path}/max_energy_range_uj")
        if not 0 <= last <= most:
            message = f"{path}/energy_uj is {last}; expected 0 to {most}, its range"
            raise SensorError(message)
        return _Zone(path, most, last)

    def read(self) -> float:
        """Joules since the sensor was found."""
        for zone in self._zones:
            now = self.host.number(f"{zone.path}/energy_uj")
            if not 0 <= now <= zone.range_uj:
                message = f"{zone.path}/energy_uj is {now}; expected 0 to {zone.range_uj}, its range"
                raise SensorError(message)
            zone.joules += ((now - zone.last_uj) if now >= zone.last_uj else (now + zone.range_uj - zone.last_uj)) / 1e6
            zone.last_uj = now
        return sum(zone.joules for zone in self._zones)


def find(host: Host) -> RaplSensor | None:
    """The sensor, if the processor counts.

    Raises:
        SensorError: it counts, and this user may not read it.
    """
    packages = [path.removesuffix("/name") for path in host.glob("sys/class/powercap/intel-rapl:*/name")]
    packages = [path for path in packages if path.count(":") == 1 and host.text(f"{path}/name").startswith("package")]
    memory = [
        inner.removesuffix("/name")
        for path in packages
        for inner in host.glob(f"{path}/{path.rpartition('/')[2]}:*/name")
        if host.text(inner) == "dram"
    ]
    if not packages:
        return None
    try:
        return RaplSensor(host, [*packages, *memory])
    except SensorError as error:
        message = f"{error}; {ADVICE}"
        raise SensorError(message) from None
