from __future__ import annotations

import logging
import threading
from functools import partial

import pytest

from mas_edge.orchestrator.filing import AtOnce, Filing


def _note(done: list[tuple[int, str]], number: int) -> None:
    done.append((number, threading.current_thread().name))


def _fail() -> None:
    raise IndexError


def test_work_is_done_in_its_order_in_another_thread() -> None:
    done: list[tuple[int, str]] = []
    clerk = Filing("clerk")
    for number in range(100):
        clerk.hand(partial(_note, done, number))
    clerk.close()
    assert done == [(number, "clerk") for number in range(100)]


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
