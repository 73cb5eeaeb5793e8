from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path

import pytest

from mas_edge.orchestrator.filing import AtOnce, Filing, Work
from mas_edge.orchestrator.reception import Reception
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import pack
from tests.orchestrator.small_desk import SmallDesk, a_job
from tests.orchestrator.small_run import LAYOUT, numbers


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


class Waiting:
    """A clerk who begins when told to."""

    def __init__(self) -> None:
        self.handed: list[Work] = []

    def hand(self, work: Work) -> None:
        self.handed.append(work)


def test_an_update_that_is_whole_when_its_round_has_just_closed_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    """Its file goes with the round, and the clerk, who was about to finish it, cannot."""
    small, clerk, topics = SmallDesk(tmp_path, a_job(devices_per_round=1, over_selection=2.0)), Waiting(), Topics("f")
    small.reception = Reception(small.desk, small.store, small.artifacts, small.outbox, topics, clerk=clerk)
    small.arrive("pi-1", "pi-2")
    small.turn()
    assert small.told() == {"pi-1", "pi-2"}
    update = pack(LAYOUT, numbers(seed=1))
    manifest = describe(update)
    small.offer("pi-2", "merged-0000", manifest)
    small.turn()
    frame = encode_chunk(manifest, 0, update)
    small.reception.on_arrived(topics.upload("pi-2"), frame, retained=False, now=small.now)
    assert len(clerk.handed) == 1
    small.report("pi-1")
    small.turn()
    assert small.records()["merged-0000"].outcome == "complete"
    assert not list(small.artifacts.directory.glob("*.part"))
    clerk.handed.pop(0)()
    small.reception.on_filed(small.now)
    small.turn()
    assert small.verdicts("pi-2") == []
    assert "merged-0001" in small.desk.active
    small.close()
