"""What operators ask of a job: the table, the file that orders wait in, and what the orchestrator does about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mas_edge.federation.control import JobVerb, Mode, obeyed, verbs
from mas_edge.orchestrator import view
from mas_edge.orchestrator.orders import FILE, MAX_WAITING, OrderStore, told
from mas_edge.orchestrator.orders_desk import LOOK_S, OrdersDesk
from mas_edge.protocol.errors import ServerError
from tests.orchestrator.small_desk import SmallDesk


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        ("running", {"pause": "paused", "abort": "aborted"}),
        ("paused", {"resume": "running", "abort": "aborted"}),
        ("held", {"start": "running", "abort": "aborted"}),
        ("aborted", {}),
    ],
)
def test_a_job_takes_the_words_that_make_sense(mode: Mode, allowed: dict[JobVerb, Mode]) -> None:
    assert {verb: obeyed(mode, verb) for verb in verbs(mode)} == allowed
    refused: list[JobVerb] = [verb for verb in ("start", "pause", "resume", "abort") if verb not in allowed]
    for verb in refused:
        with pytest.raises(ServerError, match=f"it cannot {verb}"):
            obeyed(mode, verb)


class Obedient(SmallDesk):
    """The small job, with an operator."""

    def __init__(self, directory: Path, *, hold: bool = False) -> None:
        self.directory, self.hold = directory, hold
        super().__init__(directory)
        self.operator = OrderStore(directory)

    def _begin(self) -> None:
        super()._begin()
        self.orders = OrdersDesk(self.desk, self.directory, hold=self.hold)

    def close(self) -> None:
        self.orders.close()
        super().close()

    def turn(self, wait: float = 0.0) -> None:
        if self.orders.is_held_up:
            self.now += wait
            self.reception.poll(self.now)
            self.desk.poll(self.now)
        else:
            super().turn(wait)
        self.orders.poll(self.now)

    def say(self, verb: JobVerb) -> str | None:
        number = self.operator.place(verb, "me")
        self.turn(LOOK_S)
        order = self.operator.order(number)
        assert order is not None
        return order.answer


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Obedient]:
    desk = Obedient(tmp_path / "state")
    yield desk
    desk.operator.close()
    desk.close()


def test_a_paused_job_lets_its_open_round_end_and_opens_no_other_until_it_is_resumed(small: Obedient) -> None:
    small.arrive("a", "b")
    small.turn()
    assert small.say("pause") == ""
    for device in ("a", "b"):
        small.ack(device)
        small.report(device)
    small.turn(LOOK_S)
    assert small.records()["merged-0000"].outcome == "complete"
    small.turn(LOOK_S)
    assert not small.desk.active, "and the next is not begun"
    assert small.say("resume") == ""
    small.turn()
    assert list(small.desk.active) == ["merged-0001"]


def test_a_job_that_was_paused_is_paused_after_a_restart(small: Obedient) -> None:
    assert small.say("pause") == ""
    small.restart()
    small.arrive("a", "b")
    small.turn()
    assert not small.desk.active
    assert told(small.directory) == "paused"


def test_an_order_that_was_placed_while_nobody_served_is_taken_at_the_start(small: Obedient) -> None:
    small.close()
    number = small.operator.place("pause", "me")
    small._begin()
    small.turn()
    order = small.operator.order(number)
    assert order is not None
    assert (order.answer, small.orders.is_held_up) == ("", True)


def test_a_held_job_waits_for_its_start(tmp_path: Path) -> None:
    small = Obedient(tmp_path / "state", hold=True)
    small.arrive("a", "b")
    small.turn()
    assert not small.desk.active
    assert small.say("start") == ""
    small.turn()
    assert list(small.desk.active) == ["merged-0000"]
    small.restart()  # with --hold, as it was begun
    assert not small.orders.is_held_up, "it was started before"
    small.operator.close()
    small.close()


def test_an_aborted_job_ends_its_rounds_tells_their_devices_and_stays_so(small: Obedient) -> None:
    small.arrive("a", "b")
    small.turn()
    small.ack("a")
    assert small.say("abort") == ""
    assert small.cancelled() == {"a", "b"}
    assert small.records()["merged-0000"].outcome == "abandoned"
    snapshot = view.read(small.directory)
    assert (snapshot.phase, snapshot.open_rounds) == ("aborted", [])
    assert snapshot.finished is not None
    small.restart()
    assert small.desk.state.phase == "aborted"
    assert small.say("resume") == "the job is aborted: there is nothing to resume"


def test_an_orchestrator_that_was_killed_while_it_aborted_answers_when_it_is_back(small: Obedient) -> None:
    number = small.operator.place("abort", "me")
    small.desk.abort("the power went after this", small.now)
    small.restart()
    order = small.operator.order(number)
    assert order is not None
    assert (order.answer, told(small.directory)) == ("", "aborted")


def test_what_makes_no_sense_is_refused_with_what_does(small: Obedient) -> None:
    assert small.say("resume") == "the job is running: it cannot resume; it takes now: pause, abort"
    assert told(small.directory) == "running"


def test_orders_that_nobody_takes_do_not_pile_up(small: Obedient) -> None:
    for _ in range(MAX_WAITING):
        small.operator.place("pause", "a loop")
    with pytest.raises(ServerError, match="orders wait already"):
        small.operator.place("pause", "a loop")


def test_a_file_of_another_version_or_none_of_ours_is_refused(tmp_path: Path) -> None:
    assert told(tmp_path) is None
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(ServerError, match="was written by version 9"):
        OrderStore(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database at all, but text" * 100)
    with pytest.raises(ServerError, match="cannot be used"):
        told(tmp_path)
