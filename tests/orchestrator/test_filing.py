from __future__ import annotations

import logging
import threading
from functools import partial

import pytest

from mas_edge.orchestrator.filing import MOST_WAITING, AtOnce, Filing


def _note(done: list[tuple[int, str]], number: int) -> None:
    done.append((number, threading.current_thread().name))


def _wait(event: threading.Event) -> None:
    event.wait()


def _fail() -> None:
    raise IndexError


def test_work_is_done_in_its_order_in_another_thread() -> None:
    done: list[tuple[int, str]] = []
    clerk = Filing("clerk")
    for number in range(100):
        clerk.hand(partial(_note, done, number))
    clerk.close()
    assert done == [(number, "clerk") for number in range(100)]


def test_who_hands_over_too_much_waits_until_there_is_room() -> None:
    clerk, go_on, handed = Filing("clerk"), threading.Event(), threading.Semaphore(0)
    clerk.hand(lambda: _wait(go_on))

    def hand_over() -> None:
        for _ in range(MOST_WAITING + 1):
            clerk.hand(lambda: None)
            handed.release()

    thread = threading.Thread(target=hand_over)
    thread.start()
    for _ in range(MOST_WAITING):
        assert handed.acquire(timeout=10)
    assert not handed.acquire(timeout=0.1), "one more than there is room for"
    go_on.set()
    assert handed.acquire(timeout=10)
    thread.join()
    clerk.close()


def test_a_fault_does_not_end_the_clerk(caplog: pytest.LogCaptureFixture) -> None:
    clerk, done = Filing("clerk"), threading.Event()
    with caplog.at_level(logging.ERROR):
        clerk.hand(_fail)
        clerk.hand(done.set)
        clerk.close()
    assert done.is_set()
    assert "IndexError" in caplog.text


def test_at_once_means_before_hand_returns() -> None:
    done: list[int] = []
    AtOnce().hand(partial(done.append, 1))
    assert done == [1]
