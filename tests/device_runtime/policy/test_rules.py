"""Rules judged on conditions, and the gate that turns judgements into pauses and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from device_runtime.policy.gate import ASK_AGAIN_S, Gate, GivenUp
from device_runtime.policy.rules import JUDGES, Conditions, Rules, broken
from mas_edge.protocol.errors import DeviceError

# A phone on its charger at noon, cool, at home, with nothing else to do.
FINE = Conditions(
    minute=720, battery=True, plugged=True, battery_percent=80.0, temperature_c=40.0, network="unmetered", busy=0.05,
    free_memory=2 * 1024**3, free_disk=8 * 1024**3,
)  # fmt: skip
ALL = Rules(
    charging=True, min_battery=50, max_temp_c=70, network="unmetered", idle=True, hours=["10:00-14:00"],
    max_joules_per_day=1000, max_rounds_per_day=10, min_free_memory="256M", min_free_disk="1G",
)  # fmt: skip

# rule: what breaks it, and what the device then says
BREAKING: dict[str, tuple[dict[str, Any], str]] = {
    "charging": ({"plugged": False}, "it is not charging"),
    "min_battery": ({"battery_percent": 49.0}, "battery at 49 %, 50 % is asked for"),
    "max_temp_c": ({"temperature_c": 70.6}, "71 °C, up to 70 °C is allowed"),
    "network": ({"network": "metered"}, "its network is metered"),
    "idle": ({"busy": 0.6}, "in use: other programs take 60% of the processor"),
    "hours": ({"minute": 545}, "it is 09:05; allowed is 10:00-14:00"),
    "max_joules_per_day": ({"joules_today": 1000.0}, "1000 J taken today, up to 1000 J is allowed"),
    "max_rounds_per_day": ({"rounds_today": 10}, "10 rounds today, 10 are allowed"),
    "min_free_memory": ({"free_memory": 100 * 1024**2}, "100M of memory free, 256M is asked for"),
    "min_free_disk": ({"free_disk": 512 * 1024**2}, "512M of disk free, 1G is asked for"),
}
# rule: what it cannot be judged without
HIDING: dict[str, dict[str, Any]] = {
    "charging": {"plugged": None}, "min_battery": {"battery_percent": None}, "max_temp_c": {"temperature_c": None},
    "network": {"network": None}, "idle": {"busy": None}, "min_free_memory": {"free_memory": None},
    "min_free_disk": {"free_disk": None},
}  # fmt: skip


def of(rules: Rules, **changes: Any) -> list[tuple[str, str]]:
    return [(each.rule, each.text) for each in broken(rules, replace(FINE, **changes))]


def test_every_rule_has_a_case() -> None:
    assert list(BREAKING) == list(JUDGES)
    assert set(JUDGES) == set(Rules.__struct_fields__) - {"pause_s"}


def test_where_every_rule_holds_nothing_is_broken() -> None:
    assert of(ALL) == []


@pytest.mark.parametrize("rule", BREAKING)
def test_a_broken_rule_says_what_it_found_and_asks_for_and_no_other_is_broken_by_it(rule: str) -> None:
    changes, text = BREAKING[rule]
    assert of(ALL, **changes) == [(rule, text)]
    assert of(Rules(), **changes) == [], "what is not asked for is not judged"


@pytest.mark.parametrize("rule", HIDING)
def test_a_rule_on_what_the_device_does_not_tell_does_not_hold(rule: str) -> None:
    unknown = dict.fromkeys(["battery", "temperature", "network", "other programs", "memory", "disk"], "it is closed")
    ((found, text),) = of(ALL, **HIDING[rule], unknown=unknown)
    assert found == rule
    assert "cannot be checked: it is closed" in text


def test_a_machine_without_a_battery_is_always_charging_and_full() -> None:
    board = {"battery": False, "plugged": None, "battery_percent": None}
    assert of(ALL, **board) == []
    hidden = of(ALL, **board, unknown={"battery": "closed"})
    assert [rule for rule, _ in hidden] == ["charging", "min_battery"], "a battery that is hidden is none of these"


@pytest.mark.parametrize(
    ("hours", "minute", "allowed"),
    [
        ("10:00-14:00", 600, True), ("10:00-14:00", 599, False), ("10:00-14:00", 840, False),
        ("22:00-07:00", 1320, True), ("22:00-07:00", 0, True), ("22:00-07:00", 420, False), ("22:00-07:00", 900, False),
    ],
)  # fmt: skip
def test_hours_may_go_over_midnight_and_end_before_their_end(hours: str, minute: int, allowed: bool) -> None:
    assert (of(Rules(hours=[hours]), minute=minute) == []) == allowed


@given(a=st.integers(0, 1439), b=st.integers(0, 1439), minute=st.integers(0, 1439))
def test_a_minute_is_within_hours_or_within_those_that_are_left(a: int, b: int, minute: int) -> None:
    def within(begin: int, end: int) -> bool:
        hours = "-".join(f"{time // 60:02}:{time % 60:02}" for time in (begin, end))
        return of(Rules(hours=[hours]), minute=minute) == []

    assert within(a, b) != within(b, a) or a == b


@pytest.mark.parametrize(
    ("rule", "value", "at_the_limit", "back"),
    [("max_temp_c", 70, {"temperature_c": 69.0}, {"temperature_c": 66.9}),
     ("min_battery", 50, {"battery_percent": 51.0}, {"battery_percent": 52.0}),
     ("idle", True, {"busy": 0.2}, {"busy": 0.1})],
)  # fmt: skip
def test_what_was_broken_must_recover_by_a_margin(
    rule: str, value: Any, at_the_limit: dict[str, Any], back: dict[str, Any]
) -> None:
    rules = Rules(**{rule: value})
    assert broken(rules, replace(FINE, **at_the_limit)) == []
    assert [each.rule for each in broken(rules, replace(FINE, **at_the_limit), [rule])] == [rule]
    assert broken(rules, replace(FINE, **back), [rule]) == []


@pytest.mark.parametrize(
    "values",
    [
        {"hours": ["9-17"]}, {"hours": ["24:00-07:00"]}, {"min_free_memory": "much"}, {"min_battery": 101},
        {"max_temp_c": 0}, {"max_joules_per_day": -1}, {"pause_s": -1}, {"max_joules_per_day": float("nan")},
    ],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match=r"expected|no size"):
        Rules(**values)


# ---------------------------------------------------------------- the gate


def gate(**rules: Any) -> Gate:
    return Gate(Rules(**rules))


def test_training_waits_while_it_is_too_hot_and_goes_on_when_it_has_cooled() -> None:
    hot = gate(max_temp_c=70, pause_s=60)
    assert hot.between_batches("train", 0.0) == 0
    hot.see(replace(FINE, temperature_c=75.0))
    assert [hot.between_batches("train", now) for now in (1.0, 30.0, 60.0)] == [ASK_AGAIN_S] * 3
    hot.see(replace(FINE, temperature_c=66.0))
    assert hot.between_batches("train", 61.0) == 0
    hot.see(replace(FINE, temperature_c=75.0))
    assert hot.between_batches("train", 200.0) == ASK_AGAIN_S, "the patience begins anew"


def test_a_pause_that_takes_too_long_gives_the_plan_up_with_the_reason() -> None:
    hot = gate(max_temp_c=70, pause_s=60)
    hot.see(replace(FINE, temperature_c=75.0))
    assert hot.between_batches("train", 1.0) == ASK_AGAIN_S
    with pytest.raises(GivenUp, match="given up after a pause of 60 s: its owner's rules: 75 °C"):
        hot.between_batches("train", 61.0)


def test_what_will_not_hold_again_today_is_not_waited_for() -> None:
    night = gate(hours=["22:00-07:00"])
    night.see(FINE)
    with pytest.raises(GivenUp, match="in the middle of the work: its owner's rules: it is 12:00"):
        night.between_batches("train", 0.0)


def test_the_round_that_reached_the_limit_is_finished_and_the_next_is_refused() -> None:
    limited = gate(max_rounds_per_day=3)
    limited.see(replace(FINE, rounds_today=3))
    assert limited.between_batches("train", 0.0) == 0
    assert "3 rounds today, 3 are allowed" in limited.why_not("train")


def test_a_model_to_answer_with_is_kept_away_only_by_network_and_disk() -> None:
    away = gate(charging=True, network="unmetered")
    away.see(replace(FINE, plugged=False))
    assert away.why_not("train") and away.why_not("evaluate")
    assert away.why_not("deploy") == ""
    away.see(replace(FINE, plugged=False, network="metered"))
    assert away.why_not("deploy") == "its owner's rules: its network is metered"


def test_other_rules_are_news_and_other_numbers_are_not() -> None:
    watched = gate(max_temp_c=70, charging=True)
    assert not watched.news()
    watched.see(replace(FINE, temperature_c=75.0))
    assert watched.news()
    watched.see(replace(FINE, temperature_c=76.0))
    assert not watched.news()
    watched.see(replace(FINE, temperature_c=76.0, plugged=False))
    assert watched.news()
    watched.see(FINE)
    assert watched.news()
    assert watched.why_not("train") == ""
