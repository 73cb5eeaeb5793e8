"""The owner's file, what a day has cost, and what is set of the processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.policy.day import Day
from device_runtime.policy.file import Policy, read_policy
from device_runtime.policy.processor import Processor, apply
from mas_edge.protocol.errors import DeviceError

WHOLE = """
[rules]
charging = true
min_battery = 60
max_temp_c = 70.5
network = "unmetered"
idle = true
hours = ["22:00-07:00", "12:00-13:00"]
max_joules_per_day = 20000
max_rounds_per_day = 40
min_free_memory = "256M"
min_free_disk = "1G"
pause_s = 120
[processor]
nice = 10
cores = [0, 1]
threads = 2
[power]
rails = ["VDD_IN"]
battery_unit = "mA"
watts_per_core = 1.1
error = 0.05
estimate = true
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(WHOLE)
    policy = read_policy(path)
    assert (policy.rules.max_temp_c, policy.rules.hours[1], policy.rules.pause_s) == (70.5, "12:00-13:00", 120)
    assert policy.processor == Processor(nice=10, cores=[0, 1], threads=2)
    assert (policy.power.rails, policy.power.battery_unit, policy.power.watts_per_core) == (["VDD_IN"], "mA", 1.1)
    path.write_text("")
    assert read_policy(path) == Policy()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rules]\nmin_batery = 3", r"unknown key 'min_batery' in \[rules\]; allowed there: charging, min_battery, "),
        ("[rules]\nmin_battery = 'much'", r"policy.toml: rules.min_battery: expected float \| null, got str"),
        ("[rules]\nnetwork = 'wifi'", "policy.toml: rules.network: invalid enum value 'wifi'"),
        ("[rules]\nmin_free_disk = '1T'", "policy.toml: rules.min_free_disk: '1T' is no size of memory"),
        ("rules = 3", "policy.toml: rules: expected object, got int"),
        ("[rules]\nhours = ['7-9']", r"policy.toml: rules.hours: '7-9'; expected from-to"),
        ("[processor]\nnice = -5", "processor.nice is -5; expected 0 to 19"),
        ("[processor]\nthreads = 0", "processor.threads is 0; expected 1 or more"),
        ("[rule]\n", "policy.toml: unknown key 'rule'; allowed there: rules, processor, power"),
        ("charging", "policy.toml: is no TOML: Expected '='"),
        ("[power]\nbattery_unit = 'A'", "power.battery_unit: invalid enum value 'A'"),
        ("[power]\nwatts_per_core = -1", r"power.watts_per_core is -1; expected 0 to 100"),
        ("x = " + "[" * 5000, "policy.toml: "),
        ("#" * 70_000, "larger than 65536 bytes"),
        ("\x00", "policy.toml: "),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_in_one_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(DeviceError, match=says) as error:
        read_policy(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"none\.toml cannot be read: No such file"):
        read_policy(tmp_path / "none.toml")


def test_a_day_is_counted_over_restarts_and_the_next_begins_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "state" / "day.json"
    Day(path).add("2026-11-22", joules=3.5, rounds=1)
    again = Day(path)
    again.add("2026-11-22", joules=1.0)
    assert Day(path).of("2026-11-22") == (4.5, 1)
    assert again.of("2026-11-23") == (0.0, 0)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"day": 3}', b"\xff"])
def test_a_damaged_day_begins_at_zero(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "day.json"
    path.write_bytes(damage)
    day = Day(path)
    assert day.of("2026-11-22") == (0.0, 0)
    day.add("2026-11-22", rounds=1)
    assert Day(path).of("2026-11-22") == (0.0, 1)


SHOW = """
import os, sys
from device_runtime.policy.processor import Processor, apply
apply(Processor(nice=7, cores=[0], threads=int(sys.argv[1])))
print(os.nice(0), sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize(("threads", "set_to"), [(1, 1), (100_000, os.cpu_count())])
def test_priority_cores_and_threads_are_set_and_no_more_threads_than_cores(threads: int, set_to: int) -> None:
    done = subprocess.run([sys.executable, "-c", SHOW, str(threads)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"7 [0] {set_to}"
    assert ("too many" in done.stderr) is (threads > set_to)


@pytest.mark.parametrize("cores", [[9999], [0, 9999]])
def test_a_core_that_is_not_there_is_named(cores: list[int]) -> None:
    before = os.sched_getaffinity(0)
    try:
        with pytest.raises(DeviceError, match=r"9999\] cannot be set.*has the cores 0 to"):
            apply(Processor(cores=cores))
    finally:
        os.sched_setaffinity(0, before)
    assert os.sched_getaffinity(0) == before
