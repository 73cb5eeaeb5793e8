"""What the rules ask about, read from recorded boards and from this machine."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from device_runtime.host import Host, SensorError
from device_runtime.policy.conditions import SLOW_S, Reader, free_memory, network, temperature
from device_runtime.power import battery
from tests.device_runtime.boards import host_of, install, write

ROUTES = "Iface\tDestination\tGateway\n{name}\t00000000\t0102A8C0\n{name}\t0002A8C0\t00000000"


@pytest.mark.parametrize(
    ("board", "degrees"),
    [("jetson-orin-nano", 48.718), ("raspberry-pi-5", 52.35), ("raspberry-pi-4", 61.342), ("x86-rapl", 55.0),
     ("android-sysfs", 31.2), ("android-termux", 27.2)],
)  # fmt: skip
def test_the_hottest_part_of_the_processor_counts_and_a_phones_battery_for_want_of_it(
    board: str, degrees: float, tmp_path: Path
) -> None:
    assert temperature(host_of(board, tmp_path)) == pytest.approx(degrees, abs=1e-3)


@pytest.mark.parametrize("lie", ["-256000", "48", "200000", "hot", ""])
def test_a_temperature_that_cannot_be_is_none(lie: str, tmp_path: Path) -> None:
    host = host_of("raspberry-pi-4", tmp_path)
    write(host.root, "/sys/class/thermal/thermal_zone0/temp", lie)
    with pytest.raises(SensorError, match="no thermal zone"):
        temperature(host)


@pytest.mark.parametrize(
    ("interface", "nmcli", "expected"),
    [("eth0", "", "unmetered"), ("wwan0", "", "metered"), ("wlan0", "yes", "metered"),
     ("wlan0", "no (guessed)", "unmetered"), ("wlan0", "unknown", "unmetered")],
)  # fmt: skip
def test_a_modem_is_metered_and_networkmanager_knows_better(
    interface: str, nmcli: str, expected: str, tmp_path: Path
) -> None:
    write(tmp_path, "/proc/net/route", ROUTES.format(name=interface))
    if nmcli:
        install(tmp_path, "nmcli", nmcli)
    assert network(Host(tmp_path, str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [('{"supplicant_state": "COMPLETED"}', "unmetered"), ('{"supplicant_state": "DISCONNECTED"}', "metered")],
)
def test_a_phone_is_unmetered_on_wifi(said: str, expected: str, tmp_path: Path) -> None:
    install(tmp_path, "termux-wifi-connectioninfo", said)
    assert network(Host(tmp_path, str(tmp_path))) == expected


def test_no_way_out_is_not_a_network(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="no route leads out"):
        network(host_of("raspberry-pi-5", tmp_path))


def test_memory_is_what_programs_can_still_get(tmp_path: Path) -> None:
    assert free_memory(host_of("jetson-orin-nano", tmp_path)) == 5213440 * 1024


def test_everything_of_a_phone_is_found_and_what_is_hidden_says_why(tmp_path: Path) -> None:
    found = Reader(host_of("android-sysfs", tmp_path), tmp_path).read(0.0)
    assert (found.battery, found.plugged, found.battery_percent) == (True, False, 76)
    assert found.free_disk is not None and found.free_disk > 0
    assert (found.network, found.busy, found.free_memory) == (None, None, None)
    assert set(found.unknown) == {"network", "other programs", "memory"}
    assert "cannot be read" in found.unknown["memory"]


def test_a_battery_whose_state_is_not_known_is_not_taken_for_charging(tmp_path: Path) -> None:
    host = host_of("android-sysfs", tmp_path)
    write(host.root, "/sys/class/power_supply/battery/status", "Unknown")
    found = Reader(host, tmp_path).read(0.0)
    assert (found.battery, found.plugged) == (False, None)
    assert "'Unknown'; expected one of Charging" in found.unknown["battery"]


def test_a_slow_command_is_asked_once_a_minute(tmp_path: Path) -> None:
    host = host_of("android-termux", tmp_path)
    reader = Reader(host, tmp_path)
    assert reader.read(0.0).battery_percent == 59
    install(tmp_path / "bin", battery.COMMAND, '{"percentage": 58, "plugged": "PLUGGED_AC"}')
    assert reader.read(SLOW_S - 1).battery_percent == 59
    later = reader.read(SLOW_S)
    assert (later.battery_percent, later.plugged) == (58, True)


def test_what_others_take_of_the_processor_is_told_from_the_second_look_on(tmp_path: Path) -> None:
    reader = Reader(Host(tmp_path), tmp_path)
    write(tmp_path, "/proc/stat", "cpu  1000 0 500 8000 500 0 0 0 0 0\ncpu0 1 2 3 4")
    assert reader.read(0.0).busy is None
    write(tmp_path, "/proc/stat", "cpu  31000 0 500 38000 500 0 0 0 0 0\ncpu0 1 2 3 4")  # half of 600 s
    assert reader.read(5.0).busy == pytest.approx(0.5, abs=0.01)


def test_this_machine_tells_its_memory_disk_and_load(tmp_path: Path) -> None:
    reader = Reader(Host(), tmp_path)
    reader.read(0.0)
    found = reader.read(1.0)
    assert found.free_memory and found.free_disk
    assert 0 <= found.minute < 24 * 60


@pytest.mark.parametrize(
    ("board", "percent", "plugged", "celsius"),
    [("android-sysfs", 76, False, 31.2), ("android-termux", 59, False, 27.2), ("raspberry-pi-4", None, None, 61.342)],
)
def test_a_report_carries_what_there_is_of_battery_and_heat(
    board: str, percent: float | None, plugged: bool | None, celsius: float, tmp_path: Path
) -> None:
    found = Reader(host_of(board, tmp_path), tmp_path).board(0.0)
    assert found is not None
    assert (found.battery_percent, found.plugged) == (percent, plugged)
    assert found.temperature_c == pytest.approx(celsius)


class Update:
    """Something large."""


def ask_holding_something_large(reader: Reader, now: float) -> weakref.ref[Update]:
    update = Update()
    assert reader.board(now) is None
    return weakref.ref(update)


def test_a_failure_that_is_kept_for_a_minute_keeps_nothing_of_who_asked(tmp_path: Path) -> None:
    """A round asks while it holds its update."""
    reader = Reader(Host(tmp_path), tmp_path)
    gc.disable()  # it would free what a circle of references holds, but late
    try:
        assert [ask_holding_something_large(reader, float(second))() for second in range(3)] == [None] * 3
    finally:
        gc.enable()
