from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.edge.backoff import (
    FIRST_DELAY_S,
    LAST_DELAY_S,
    LAST_TAKEOVER_DELAY_S,
    RIVAL,
    STABLE_S,
    SUSPICIOUS,
    TAKEOVER_DELAY_S,
    Backoff,
)


def test_the_delay_doubles_up_to_its_limit() -> None:
    backoff = Backoff()
    for failure in range(40):
        full = min(LAST_DELAY_S, FIRST_DELAY_S * 2.0**failure)
        assert full / 2 <= backoff.next_delay_s() <= full


def test_a_connection_that_lasted_starts_afresh() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next_delay_s()
    assert not backoff.lost(2 * STABLE_S, explained=False)
    assert backoff.next_delay_s() <= FIRST_DELAY_S


def test_a_broker_that_was_away_for_long_is_no_reason_to_wait_after_it_came_back() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.next_delay_s()
    backoff.lost(0.1, explained=False)
    assert backoff.next_delay_s() <= FIRST_DELAY_S


def test_connections_that_are_cut_in_a_row_cost_twice_as_much_each_time_and_no_more() -> None:
    backoff = Backoff()
    for cut in range(2 * SUSPICIOUS):
        assert backoff.lost(0.1, explained=False) == (cut >= SUSPICIOUS - 1)
        full = min(FIRST_DELAY_S * 2.0**cut, LAST_TAKEOVER_DELAY_S)
        assert full / 2 <= backoff.next_delay_s() <= full


def test_connections_that_end_with_a_reason_are_not_suspicious_but_not_repeated_at_full_speed() -> None:
    backoff = Backoff()
    assert not any(backoff.lost(0.1, explained=True) for _ in range(2 * SUSPICIOUS))
    assert backoff.next_delay_s() > LAST_DELAY_S


def test_a_takeover_that_the_broker_tells_of_slows_us_down_at_once() -> None:
    backoff = Backoff()
    backoff.taken_over()
    assert not backoff.lost(3600.0, explained=True)
    assert backoff.next_delay_s() >= TAKEOVER_DELAY_S / 2


EVENTS = st.lists(st.tuples(st.sampled_from(["failed", "lost", "taken over"]), st.floats(0, 100)), max_size=200)


def happened(history: list[tuple[str, float]]) -> Backoff:
    backoff = Backoff()
    for what, lasted_s in history:
        if what == "taken over":
            backoff.taken_over()
        if what != "failed":
            backoff.lost(lasted_s, explained=what == "taken over")
        assert FIRST_DELAY_S / 2 <= backoff.next_delay_s() <= LAST_TAKEOVER_DELAY_S
    return backoff


@given(EVENTS)
def test_no_history_makes_the_delay_leave_its_bounds(history: list[tuple[str, float]]) -> None:
    happened(history)


@given(EVENTS)
def test_whatever_happened_before_a_cut_after_a_calm_time_costs_one_short_delay(
    history: list[tuple[str, float]],
) -> None:
    backoff = happened(history)
    assert not backoff.lost(RIVAL * LAST_TAKEOVER_DELAY_S + 1, explained=False)
    assert backoff.next_delay_s() <= FIRST_DELAY_S


@pytest.mark.parametrize("tells", [False, True], ids=["without a word", "told of it"])
@pytest.mark.parametrize("later_s", [0.0, 0.3, 7.0, 5000.0])
def test_two_clients_with_one_name_come_to_rest(later_s: float, tells: bool) -> None:
    """Each connect ends the other's connection, for ten hours of simulated time."""
    rivals, due, since = (Backoff(), Backoff()), [0.0, later_s], 0.0
    holder: int | None = None
    connects: list[float] = []
    while (now := min(due)) < 36_000.0:
        comes = due.index(now)
        if holder is not None:
            if tells:
                rivals[holder].taken_over()
            rivals[holder].lost(now - since, explained=tells)
            due[holder] = now + rivals[holder].next_delay_s()
        holder, since, due[comes] = comes, now, math.inf
        connects.append(now)
    in_the_last_hour = sum(now > 32_400.0 for now in connects)
    assert in_the_last_hour <= 2 * 3600 / LAST_TAKEOVER_DELAY_S + 1, "each waits half of the longest delay or more"
