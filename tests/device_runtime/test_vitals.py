"""What doctor says of a board's power, heat and rules, on recorded boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_runtime.cli.doctor import WIDTH, vitals_lines
from device_runtime.policy.file import Policy
from device_runtime.policy.rules import Rules
from device_runtime.power.rapl import find
from device_runtime.remedies import Place
from device_runtime.vitals import APART_S, readings, take
from tests.device_runtime.boards import host_of, write

HOT = Policy(rules=Rules(max_temp_c=60, charging=True, network="unmetered"))
SAYS = {
    "jetson-orin-nano": ["ina3221 VDD_IN (board): 6.29 W now, measured", "temperature     48.7 °C"],
    "raspberry-pi-5": ["Pi 5 PMIC (board): ", "temperature     52.4 °C"],
    "raspberry-pi-4": [
        "no sensor of the processor: joules are estimated: CPU seconds x 0.93 W", "35% up or down",
        "does not hold   61 °C, up to 60 °C is allowed and 57 °C to go on",
    ],
    "android-sysfs": ["battery (board): 2.78 W now, measured", "76 %, not plugged in", "not hold   it is not charging"],
    "android-termux": ["battery (board): battery: a current of -693 uA", 'battery_unit = "mA"'],
}  # fmt: skip


@pytest.mark.parametrize("board", SAYS)
def test_the_page_tells_what_the_board_measures_and_which_rules_do_not_hold(
    board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_runtime.vitals.APART_S", 0.0)
    lines = vitals_lines(take(host_of(board, tmp_path), Place("linux"), HOT, tmp_path))
    text = " ".join(line.strip() for line in lines)
    for expected in SAYS[board]:
        assert expected in text
    assert max(map(len, lines)) <= WIDTH


def test_a_sensor_that_counts_is_read_twice(tmp_path: Path) -> None:
    host = host_of("x86-rapl", tmp_path)
    sensor = find(host)
    assert sensor is not None
    sensor.read()
    write(host.root, "/sys/class/powercap/intel-rapl:0/energy_uj", "262143200000")
    (reading,) = readings([sensor], apart_s=0.05)
    assert (reading.source, reading.problem) == ("RAPL package-0 + dram", "")
    assert reading.watts == 0.0, "nothing flowed between the two readings"
    assert sensor.needs_s <= APART_S


def test_a_sensor_that_fails_says_why_and_the_others_are_told(tmp_path: Path) -> None:
    host = host_of("x86-rapl", tmp_path)
    sensor = find(host)
    assert sensor is not None
    write(host.root, "/sys/class/powercap/intel-rapl:0/energy_uj", "-5")
    (reading,) = readings([sensor], apart_s=0.0)
    assert reading.watts is None
    assert "is -5; expected 0 to" in reading.problem
