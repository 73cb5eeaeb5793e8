"""Each reader against each way in which its sensor can fail while work goes on: it vanishes, says what is no number,
begins again, or counts in another unit. The work goes on, is estimated, and the report says what was wrong.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from device_runtime.host import Host
from device_runtime.power import nvml
from device_runtime.power.estimate import Estimate
from device_runtime.power.meter import Meter
from device_runtime.power.sensor import Sensor
from device_runtime.power.survey import PowerSettings, survey
from mas_edge.protocol.messages import Energy
from tests.device_runtime.boards import host_of, install, write
from tests.device_runtime.power.test_sensors import DRIVER, NO_DRIVER, driver

CORE = Estimate(2.0, 0.5, "a test")
CPU_SECONDS = 0.5  # of each second of the work
INA = "/sys/class/hwmon/hwmon1/curr1_input"
RAPL = "/sys/class/powercap/intel-rapl:0/energy_uj"
SUPPLY = "/sys/class/power_supply/battery"


class Fault(NamedTuple):
    """What happens to a board's sensor at work, and what the report says then."""

    board: str
    fault: str
    happens: Callable[[Host], None]
    says: str


def says(path: str, content: str) -> Callable[[Host], None]:
    return lambda host: write(host.root, path, content)


def gone(path: str) -> Callable[[Host], None]:
    return lambda host: (host.root / path.lstrip("/")).unlink()


def prints(name: str, text: str, code: int = 0) -> Callable[[Host], None]:
    return lambda host: install(Path(host.search_path or ""), name, text, code)


def uninstalled(name: str) -> Callable[[Host], None]:
    return lambda host: (Path(host.search_path or "") / name).unlink()


def phone_gone(host: Host) -> None:
    shutil.rmtree(host.root / "sys/class/power_supply/battery")


FAULTS = [
    Fault("jetson-orin-nano", "vanishes", gone(INA), "curr1_input cannot be read: No such file"),
    Fault("jetson-orin-nano", "no number", says(INA, "12a"), "holds '12a'; expected a whole number"),
    Fault("jetson-orin-nano", "negative", says(INA, "-1240"), "expected more than 0.3, up to 250 W"),
    Fault("jetson-orin-nano", "another unit", says(INA, "1240000"), "expected more than 0.3, up to 250 W"),
    Fault("jetson-orin-nano", "a smaller unit", says(INA, "1"), "says 0.005072 W; expected more than 0.3, up to 250 W"),
    Fault("raspberry-pi-5", "vanishes", uninstalled("vcgencmd"), "the command vcgencmd is not installed"),
    Fault("raspberry-pi-5", "no number", prints("vcgencmd", "A_A current(0)=1.2.3A\nA_V volt(1)=1V"), "no number"),
    Fault("raspberry-pi-5", "negative", prints("vcgencmd", "A_A current(0)=-1A\nA_V volt(1)=1V"), "names no rail"),
    Fault("raspberry-pi-5", "another unit", prints("vcgencmd", "A_A current(0)=3200A\nA_V volt(1)=1V"), "up to 30 W"),
    Fault(
        "raspberry-pi-5", "a smaller unit", prints("vcgencmd", "A_A current(0)=0.003A\nA_V volt(1)=1V"), "than 1, up to"
    ),
    Fault("android-sysfs", "vanishes", phone_gone, "the battery is gone"),
    Fault("android-sysfs", "no number", says(f"{SUPPLY}/capacity", "full"), "holds 'full'; expected a whole number"),
    Fault("android-sysfs", "another unit", says(f"{SUPPLY}/current_now", "-693"), 'battery_unit = "mA"'),
    Fault("android-sysfs", "it is plugged in", says(f"{SUPPLY}/status", "Charging"), "while it is charged"),
    Fault("android-sysfs", "no word", says(f"{SUPPLY}/status", "Exploding"), "is 'Exploding'; expected one of"),
    Fault("android-termux", "vanishes", prints("termux-battery-status", "killed", 1), "ended with 1: killed"),
    Fault("android-termux", "no number", prints("termux-battery-status", '{"percentage": "x"}'), "not understood"),
    Fault("x86-rapl", "vanishes", gone(RAPL), "energy_uj cannot be read: No such file"),
    Fault("x86-rapl", "no number", says(RAPL, "lots"), "holds 'lots'; expected a whole number"),
    Fault("x86-rapl", "negative", says(RAPL, "-5"), "is -5; expected 0 to 262143328850, its range"),
    Fault("x86-rapl", "another unit", says(RAPL, "1" + 15 * "0"), "expected 0 to 262143328850, its range"),
]


class Work:
    """A plan's work of ten readings, during which a sensor's fault sets in after the first."""

    def __init__(self, sensor: Sensor) -> None:
        self.now = 0.0
        self.seconds = 10 * max(sensor.period_s, 1.0)
        self._meter = Meter([sensor], CORE, clock=lambda: self.now, cpu=lambda: CPU_SECONDS * self.now)

    def done(self, happens: Callable[[], None], flows: Callable[[], None] = lambda: None) -> Energy:
        """``flows`` is called between two readings."""
        self._meter.begin()
        happens()
        with self._meter.during("train"):
            for _ in range(10):
                self.now += self.seconds / 10
                flows()
                self._meter.tick()
        energy = self._meter.end()
        assert energy is not None
        return energy

    def is_estimated(self, energy: Energy) -> None:
        assert (energy.quality, energy.source, energy.error) == ("estimated", CORE.source, 0.5)
        assert energy.joules["train"] == pytest.approx(CORE.watts_per_core * CPU_SECONDS * self.seconds)


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{fault.board}: {fault.fault}" for fault in FAULTS])
def test_work_goes_on_is_estimated_and_says_what_was_wrong(fault: Fault, tmp_path: Path) -> None:
    host = host_of(fault.board, tmp_path)
    unit = PowerSettings(battery_unit="mA" if fault.board == "android-termux" else "uA")
    (sensor,) = survey(host, unit, library=NO_DRIVER).sensors
    sensor.read()
    work = Work(sensor)
    energy = work.done(lambda: fault.happens(host))
    assert fault.says in energy.problem
    work.is_estimated(energy)


def test_every_reader_is_in_the_table_with_every_fault_that_it_can_have() -> None:
    of: dict[str, set[str]] = {}
    for fault in FAULTS:
        of.setdefault(fault.board, set()).add(fault.fault)
    assert all({"vanishes", "no number"} <= faults for faults in of.values())
    assert all("another unit" in faults for board, faults in of.items() if board != "android-termux")


def test_a_counter_that_a_suspend_has_set_back_is_not_taken_for_a_wrap(tmp_path: Path) -> None:
    """RAPL begins at 0 after a suspend: read as a wrap that would be up to 262 kJ within a second."""
    host = host_of("x86-rapl", tmp_path)
    counted = [5_000_000]

    def flows() -> None:
        counted[0] += 10_000_000  # 10 W
        write(host.root, RAPL, str(counted[0]))

    write(host.root, RAPL, str(counted[0]))
    (sensor,) = survey(host, PowerSettings(), library=NO_DRIVER).sensors
    sensor.read()
    work = Work(sensor)
    energy = work.done(lambda: counted.__setitem__(0, -9_000_000), flows)
    assert "expected more than 0, up to 4000 W: it is not used" in energy.problem
    work.is_estimated(energy)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ("count[0] -= 250", "counts backwards"),
        ("count[0] += 0", "stands still"),
        ("count[0] += 250000000", "expected more than 0, up to 16000 W"),  # microjoules
    ],
)
def test_a_graphics_processor_whose_counter_cannot_be_believed_is_left_out(
    counts: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = DRIVER.replace("count[2] = {1000,", "count[2] = {9000000000,").replace("count[0] += 250", counts)
    monkeypatch.setattr("tests.device_runtime.power.test_sensors.DRIVER", lying)
    sensor = nvml.find(driver(tmp_path))
    assert sensor is not None
    work = Work(sensor)
    energy = work.done(lambda: None)
    assert says in energy.problem
    work.is_estimated(energy)


def test_a_graphics_processor_that_is_lost_at_work_is_left_out(tmp_path: Path) -> None:
    well = nvml.find(driver(tmp_path))
    lost = nvml.find(driver(tmp_path, broken=15))
    assert well is not None
    assert lost is not None
    work = Work(well)
    energy = work.done(lambda: setattr(well, "library", lost.library))
    assert "GPU is lost" in energy.problem
    work.is_estimated(energy)
