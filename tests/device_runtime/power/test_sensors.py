"""Each board's sensors, read from recorded trees of the board, and every way in which they lie."""

from __future__ import annotations

import ctypes.util
import subprocess
from pathlib import Path

import pytest

from device_runtime.host import Host, SensorError
from device_runtime.power import battery, hwmon, nvml, pmic, rapl
from device_runtime.power.battery import BatteryState, watts_of
from device_runtime.power.survey import PowerSettings, Survey, survey
from tests.device_runtime.boards import host_of, install, write

NO_DRIVER = "libno-such-driver.so"


def found(host: Host, **settings: object) -> Survey:
    return survey(host, PowerSettings(**settings), library=NO_DRIVER)  # type: ignore[arg-type]


# (board, the sensor's name, what it covers, watts worked out by hand from the tree)
MEASURED = [
    ("jetson-orin-nano", "ina3221 VDD_IN", 5.072 * 1.240),
    ("jetson-agx-orin", "ina3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", 20.048 * 0.160 + 4.968 * 0.752),
    ("jetson-thor", "ina238 VIN", 33.39),
    (
        "raspberry-pi-5", "Pi 5 PMIC",
        1.1451 * (0.333 + 0.2648 + 0.324 + 0.242 + 0.0 + 0.1887 + 0.296 + 2.752) + 0.5879,
    ),
    ("android-sysfs", "battery", 0.693 * 4.012),
]  # fmt: skip


@pytest.mark.parametrize(("board", "source", "watts"), MEASURED, ids=[row[0] for row in MEASURED])
def test_a_board_that_measures_its_input_is_read_in_watts(
    board: str, source: str, watts: float, tmp_path: Path
) -> None:
    (sensor,) = found(host_of(board, tmp_path)).sensors
    assert (sensor.source, sensor.kind, sensor.covers) == (source, "watts", "board")
    assert sensor.read() == pytest.approx(watts, rel=1e-9)


@pytest.mark.parametrize("board", ["raspberry-pi-4", "virtual-machine"])
def test_a_board_that_measures_nothing_has_an_estimate_and_no_problem(board: str, tmp_path: Path) -> None:
    sensors, estimate, problems = found(host_of(board, tmp_path))
    assert (sensors, problems) == ([], [])
    assert estimate is not None
    assert 0 < estimate.error < 1
    assert ("Raspberry Pi 4" in estimate.source) == (board == "raspberry-pi-4")


def test_the_owner_may_give_the_watts_of_a_core_or_forbid_the_guess(tmp_path: Path) -> None:
    host = host_of("raspberry-pi-4", tmp_path)
    estimate = found(host, watts_per_core=1.1, error=0.05).estimate
    assert estimate is not None
    assert (estimate.watts_per_core, estimate.error) == (1.1, 0.05)
    assert found(host, estimate=False).estimate is None


# ---------------------------------------------------------------- Jetson


def test_a_chip_with_unknown_rails_is_not_guessed_at_and_the_owner_can_name_them(tmp_path: Path) -> None:
    host = host_of("jetson-orin-nano", tmp_path)
    write(host.root, "/sys/class/hwmon/hwmon1/in1_label", "VDD_MYSTERY")
    survey_ = found(host)
    assert survey_.sensors == []
    assert "VDD_CPU_GPU_CV, VDD_MYSTERY, VDD_SOC" in survey_.problems[0]
    assert "[power] rails" in survey_.problems[0]
    assert found(host, rails=["VDD_MYSTERY"]).sensors[0].read() == pytest.approx(5.072 * 1.240)
    assert "no rail VDD_OTHER" in found(host, rails=["VDD_OTHER"]).problems[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1240000", "expected more than 0.3, up to 250 W"),  # microamperes: 6289 W
        ("-1240", "expected more than 0"),
        ("", "expected a whole number"),
        ("12a", "holds '12a'"),
        ("\N{BLACK STAR}", "expected a whole number"),
    ],
)
def test_a_rail_that_says_what_cannot_be_is_an_error(content: str, says: str, tmp_path: Path) -> None:
    host = host_of("jetson-orin-nano", tmp_path)
    sensor = hwmon.find(host)
    assert sensor is not None
    write(host.root, "/sys/class/hwmon/hwmon1/curr1_input", content)
    with pytest.raises(SensorError, match=says):
        sensor.read()


def test_a_sensor_that_vanishes_is_an_error(tmp_path: Path) -> None:
    host = host_of("jetson-orin-nano", tmp_path)
    sensor = hwmon.find(host)
    assert sensor is not None
    (host.root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(SensorError, match="curr1_input cannot be read: No such file"):
        sensor.read()


# ---------------------------------------------------------------- Raspberry Pi


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("VDD_CORE_A current(7)=1.5A\nVDD_CORE_V volt(15)=0.8V", 1.2),
        ("VDD_CORE_A=1.5A\nVDD_CORE_V=0.8V", 1.2),  # older firmware
        ("A_A current(0)=1A\nA_V volt(1)=2V\nEXT5V_V volt(2)=5V\nB_A current(3)=9A", 2.0),  # rails with both only
    ],
)
def test_volts_and_amperes_are_paired_by_rail(text: str, watts: float) -> None:
    assert pmic.rails_watts(text) == pytest.approx(watts)


@pytest.mark.parametrize("text", ["", "error=1", "VDD_CORE_V volt(15)=0.8V", "VDD_A=1.2.3A\nVDD_V=1V"])
def test_an_answer_without_rails_is_an_error(text: str) -> None:
    with pytest.raises(SensorError, match=r"no rail|no number"):
        pmic.rails_watts(text)


def test_a_command_that_fails_or_hangs_is_an_error(tmp_path: Path) -> None:
    install(tmp_path, "vcgencmd", "VCHI initialization failed", code=255)
    host = Host(search_path=str(tmp_path))
    with pytest.raises(SensorError, match="ended with 255: VCHI"):
        host.run(pmic.COMMAND)
    (tmp_path / "vcgencmd").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(SensorError, match=r"no answer in 0\.05 s"):
        host.run(pmic.COMMAND, limit_s=0.05)


def test_a_pi_5_whose_chip_does_not_answer_says_what_to_do_and_another_board_is_not_asked(tmp_path: Path) -> None:
    host = host_of("raspberry-pi-5", tmp_path)
    install(tmp_path / "bin", "vcgencmd", "Can't open device file: /dev/vcio", code=255)
    (problem,) = found(host).problems
    assert "ended with 255: Can't open device file" in problem
    assert "sudo usermod -aG video" in problem
    write(host.root, "/proc/device-tree/model", "Orange Pi 5")
    assert found(host).problems == []


# ---------------------------------------------------------------- batteries


def test_termux_answers_where_the_files_are_closed(tmp_path: Path) -> None:
    host = host_of("android-termux", tmp_path)
    state = battery.state_of(host)
    assert state == BatteryState(percent=59, plugged=False, temperature_c=27.200000762939453, volts=3.921, current=-693)
    (sensor,) = found(host, battery_unit="mA").sensors
    assert sensor.read() == pytest.approx(0.693 * 3.921)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (BatteryState(percent=50, plugged=False, volts=3.9, current=-693), r"may count in mA; .*battery_unit = \"mA\""),
        (BatteryState(percent=50, plugged=False, volts=3.9, current=-8e6), "31.2 W, which no running phone takes"),
        (BatteryState(percent=50, plugged=False, volts=0.0039, current=-5e5), "no voltage of a phone"),
        (BatteryState(percent=50, plugged=True, volts=4.2, current=1.5e6), "while it is charged"),
        (BatteryState(percent=50, plugged=False, volts=None, current=-5e5), "no current or no voltage"),
    ],
    ids=["mA as uA", "too much", "mV as V", "charging", "no voltage"],
)
def test_a_battery_that_cannot_be_believed_gives_no_reading(state: BatteryState, says: str) -> None:
    with pytest.raises(SensorError, match=says):
        watts_of(state, "uA")


@pytest.mark.parametrize(
    ("prints", "says"),
    [
        ("Termux:API is not installed", "expected JSON: install the app Termux:API"),
        ("[1]", "not understood"),
        ('{"percentage": "many"}', "not understood"),
        ('{"percentage": 250, "plugged": "UNPLUGGED"}', "expected 0 to 100"),
    ],
)
def test_what_the_app_says_is_checked(prints: str, says: str, tmp_path: Path) -> None:
    install(tmp_path, battery.COMMAND, prints)
    with pytest.raises(SensorError, match=says):
        battery.state_of(Host(tmp_path, str(tmp_path)))


def test_a_machine_without_a_battery_says_so(tmp_path: Path) -> None:
    assert battery.state_of(host_of("virtual-machine", tmp_path)) is None


# ---------------------------------------------------------------- x86


def test_rapl_counts_the_packages_and_the_memory_and_goes_on_over_the_wrap(tmp_path: Path) -> None:
    host = host_of("x86-rapl", tmp_path)
    sensor = rapl.find(host)
    assert sensor is not None
    assert (sensor.source, sensor.covers) == ("RAPL package-0 + dram", "processor")
    assert sensor.read() == 0
    write(host.root, "/sys/class/powercap/intel-rapl:0/energy_uj", "2000000")  # 0.32885 J to the end, 2 J after it
    write(host.root, "/sys/class/powercap/intel-rapl:0/intel-rapl:0:1/energy_uj", "1500000")
    assert sensor.read() == pytest.approx(2.0 + 0.328850 + 0.5)
    assert sensor.read() == pytest.approx(2.0 + 0.328850 + 0.5)


def test_a_count_beyond_its_range_is_an_error_and_so_is_one_that_may_not_be_read(tmp_path: Path) -> None:
    host = host_of("x86-rapl", tmp_path)
    sensor = rapl.find(host)
    assert sensor is not None
    counter = host.root / "sys/class/powercap/intel-rapl:0/energy_uj"
    write(host.root, "/sys/class/powercap/intel-rapl:0/energy_uj", "999999999999999")
    with pytest.raises(SensorError, match="expected 0 to 262143328850, its range"):
        sensor.read()
    counter.unlink()
    counter.mkdir()  # as root nothing is forbidden: a folder is unreadable for everybody
    survey_ = found(host)
    assert survey_.sensors == []
    assert "sudo chmod a+r" in survey_.problems[0]


def test_a_board_sensor_makes_those_of_its_parts_superfluous(tmp_path: Path) -> None:
    host = host_of("jetson-orin-nano", tmp_path / "one")
    write(host.root, "/sys/class/powercap/intel-rapl:0/name", "package-0")
    write(host.root, "/sys/class/powercap/intel-rapl:0/energy_uj", "5")
    write(host.root, "/sys/class/powercap/intel-rapl:0/max_energy_range_uj", "500")
    assert [sensor.covers for sensor in found(host).sensors] == ["board"]


# ---------------------------------------------------------------- NVIDIA

DRIVER = r"""
#include <string.h>
static unsigned long long count[2] = {1000, 5000};  /* mJ; the second processor is too old to count */
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = &count[i]; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
  if (device == &count[1]) return 3;
  *mj = count[0]; count[0] += 250; return BROKEN;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) { strncpy(name, "Test GPU", size); return 0; }
const char *nvmlErrorString(int code) { return "GPU is lost"; }
"""


def driver(directory: Path, broken: int = 0) -> str:
    """A library with the entry points of NVML, so that the calls themselves are real."""
    if ctypes.util.find_library("c") is None or subprocess.run(["which", "cc"], capture_output=True).returncode:
        pytest.skip("no C compiler")
    (directory / "nvml.c").write_text(DRIVER.replace("BROKEN", str(broken)))
    library = directory / f"libnvml{broken}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, directory / "nvml.c"], check=True)
    return str(library)


def test_nvml_counts_the_processors_that_can(tmp_path: Path) -> None:
    sensor = nvml.find(driver(tmp_path))
    assert sensor is not None
    assert (sensor.source, sensor.kind, sensor.covers) == ("NVML Test GPU", "joules", "graphics")
    first = sensor.read()
    assert sensor.read() - first == pytest.approx(0.25)
    assert nvml.find(NO_DRIVER) is None


def test_a_graphics_processor_that_is_lost_is_an_error(tmp_path: Path) -> None:
    sensor = nvml.find(driver(tmp_path, broken=15))
    assert sensor is not None
    with pytest.raises(SensorError, match="GPU is lost"):
        sensor.read()
