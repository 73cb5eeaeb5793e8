from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from device_runtime.edge.backoff import (
    FIRST_DELAY_S,
    LAST_DELAY_S,
    LAST_TAKEOVER_DELAY_S,
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


def test_connections_that_never_last_are_suspicious_and_slow_us_down() -> None:
    backoff = Backoff()
    assert [backoff.lost(0.1, explained=False) for _ in range(SUSPICIOUS)] == [False] * (SUSPICIOUS - 1) + [True]
    assert backoff.next_delay_s() >= TAKEOVER_DELAY_S / 2


def test_connections_that_end_with_a_reason_are_not_suspicious() -> None:
    backoff = Backoff()
    assert not any(backoff.lost(0.1, explained=True) for _ in range(2 * SUSPICIOUS))


@given(st.lists(st.tuples(st.sampled_from(["failed", "lost", "taken over"]), st.floats(0, 100)), max_size=200))
def test_no_history_makes_the_delay_leave_its_bounds(history: list[tuple[str, float]]) -> None:
    backoff = Backoff()
    for what, lasted_s in history:
        if what == "lost":
            backoff.lost(lasted_s, explained=False)
        if what == "taken over":
            backoff.taken_over()
        assert FIRST_DELAY_S / 2 <= backoff.next_delay_s() <= LAST_TAKEOVER_DELAY_S
