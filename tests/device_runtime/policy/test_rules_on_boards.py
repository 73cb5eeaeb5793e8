"""Each rule on the tree of a board that breaks it, and on the same board once it is met: files in, a reason out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from device_runtime.policy.day import Day
from device_runtime.policy.rules import JUDGES, Rules
from device_runtime.policy.watch import DAY_FILE, Watch
from tests.device_runtime.boards import host_of, write

SUPPLY = "/sys/class/power_supply/battery"
ROUTE = "Iface Destination Gateway\n{0} 00000000 0101A8C0"


class Place(NamedTuple):
    """A board, laid out: the root of its files, the device's state, and its watch."""

    root: Path
    state: Path
    watch: Watch


def file(path: str, content: str) -> Callable[[Place], None]:
    return lambda place: write(place.root, path, content)


def no_change(_place: Place) -> None:
    pass


def yesterday(place: Place) -> None:
    """What was counted was of another day."""
    (place.state / DAY_FILE).write_text('{"day": "1999-12-31", "joules": 1e9, "rounds": 99}')
    place.watch._day = Day(place.state / DAY_FILE)


def others_work(place: Place) -> None:
    """Nine tenths of the processor's time between two looks."""
    write(place.root, "/proc/stat", "cpu  0 0 0 0 0 0 0 0")
    place.watch.look()
    write(place.root, "/proc/stat", "cpu  900000 0 0 100000 0 0 0 0")


def others_rest(place: Place) -> None:
    write(place.root, "/proc/stat", "cpu  900000 0 0 900000 0 0 0 0")


def not_now() -> str:
    """An hour of the day that is over, or has not begun."""
    hour = (time.localtime().tm_hour + 2) % 24
    return f"{hour:02}:00-{(hour + 1) % 24:02}:00"


class Case(NamedTuple):
    """A rule, the board, what breaks it there, what the device says, and what meets it again."""

    rule: str
    board: str
    asks: dict[str, Any]
    breaks: Callable[[Place], None]
    says: str
    mends: Callable[[Place], None] | None


PI, PHONE = "raspberry-pi-4", "android-sysfs"
CASES = [
    Case("charging", PHONE, {"charging": True}, no_change, "it is not charging", file(f"{SUPPLY}/status", "Charging")),
    Case(
        "min_battery", PHONE, {"min_battery": 80}, no_change, "battery at 76 %, 80 % is asked for",
        file(f"{SUPPLY}/capacity", "82"),
    ),
    Case(
        "max_temp_c", PI, {"max_temp_c": 60}, no_change, "61 °C, up to 60 °C is allowed",
        file("/sys/class/thermal/thermal_zone0/temp", "56000"),
    ),
    Case(
        "network", PHONE, {"network": "unmetered"}, file("/proc/net/route", ROUTE.format("rmnet0")),
        "its network is metered", file("/proc/net/route", ROUTE.format("wlan0")),
    ),
    Case("idle", PI, {"idle": True}, others_work, "in use: other programs take ", others_rest),
    Case("hours", PI, {"hours": [not_now()]}, no_change, "; allowed is ", None),
    Case(
        "max_joules_per_day", PI, {"max_joules_per_day": 100}, lambda place: place.watch.end(101.0),
        "101 J taken today, up to 100 J is allowed", yesterday,
    ),
    Case(
        "max_rounds_per_day", PI, {"max_rounds_per_day": 1}, lambda place: place.watch.begin("train"),
        "1 rounds today, 1 are allowed", yesterday,
    ),
    Case(
        "min_free_memory", PI, {"min_free_memory": "256M"}, file("/proc/meminfo", "MemAvailable:  102400 kB"),
        "100M of memory free, 256M is asked for", file("/proc/meminfo", "MemAvailable:  512000 kB"),
    ),
    Case("min_free_disk", PI, {"min_free_disk": "900000G"}, no_change, "of disk free, 900000G is asked for", None),
]  # fmt: skip


def test_every_rule_has_a_board() -> None:
    assert [case.rule for case in CASES] == list(JUDGES)


@pytest.mark.parametrize("case", CASES, ids=[case.rule for case in CASES])
def test_a_rule_that_a_board_breaks_is_the_reason_of_its_refusal_until_it_is_met(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_runtime.policy.conditions.SLOW_S", 0.0)  # routes are asked for at every look
    host, state = host_of(case.board, tmp_path / "board"), tmp_path / "state"
    state.mkdir()
    place = Place(host.root, state, Watch(Rules(**case.asks), state, host))
    case.breaks(place)
    place.watch.look()
    refusal = place.watch.gate.why_not("train")
    assert refusal.startswith("its owner's rules: ")
    assert case.says in refusal
    assert place.watch.gate.news(), "the orchestrator is told"
    if case.mends is not None:
        case.mends(place)
        place.watch.look()
        assert place.watch.gate.why_not("train") == ""
        assert place.watch.gate.news()
