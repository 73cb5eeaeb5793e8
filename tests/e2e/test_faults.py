"""Whole jobs through the faults of a real fleet: every process may be killed at any moment, and the job goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.result import result_of
from mas_edge.orchestrator.store import open_database
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.messages import Ack, Cancel, FromDevice
from tests.brokers import Running
from tests.e2e.fleet import PATIENCE_S, Fleet, job_text, kill, until
from tests.e2e.puppet import Puppet
from tests.e2e.tap import Tap

BIG = 20_000  # train samples: a training round of such a device takes long enough to be interrupted


def record(snapshot: Snapshot, round_id: str) -> RoundRecord:
    return next(r for r in snapshot.rounds if r.round_id == round_id)


def acknowledged(round_id: str) -> Callable[[FromDevice], bool]:
    return lambda said: isinstance(said, Ack) and said.round_id == round_id


def close_of(fleet: Fleet, round_id: str) -> None:
    until(lambda: any(r.round_id == round_id for r in fleet.snapshot().rounds), f"the end of {round_id}")


def nothing_counted_twice(snapshot: Snapshot, state: Path) -> None:
    """Every report of every round is of a selected device, and was accepted once."""
    assert len({r.round_id for r in snapshot.rounds}) == len(snapshot.rounds)
    for closed in snapshot.rounds:
        assert set(closed.reports) <= set(closed.selected)
        assert len(set(closed.selected)) == len(closed.selected)
    db = open_database(state)
    try:
        accepted = dict(db.execute("SELECT round_id, COUNT(*) FROM updates GROUP BY round_id").fetchall())
    finally:
        db.close()
    assert accepted == {r.round_id: len(r.reports) for r in snapshot.rounds if r.reports}


def test_a_device_killed_while_it_trains_does_not_stall_the_round_and_is_used_again_when_it_is_back(
    running_broker: Running, tmp_path: Path
) -> None:
    text = job_text(per_round=3, deadline_s=PATIENCE_S)
    with Fleet(running_broker.url, tmp_path, text) as fleet, Tap(fleet.url, fleet.job.fleet) as tap:
        victim = fleet.device_process("victim", train=BIG)
        for name in ("ada", "bob"):
            fleet.device(name)
        orchestrator = fleet.orchestrate()
        tap.wait_for("victim", acknowledged("merged-0000"))
        kill(victim)
        close_of(fleet, "merged-0000")
        closed = record(fleet.snapshot(), "merged-0000")
        assert (closed.outcome, set(closed.reports)) == ("complete", {"ada", "bob"})
        assert closed.refused == {"victim": "it vanished and did not come back"}
        assert closed.wall_seconds < fleet.job.federation.deadline_s
        fleet.data("victim", train=BIG).rename(tmp_path / "too much")  # the same device with less to do
        fleet.device_process("victim")
        assert orchestrator.join() is True
        snapshot = fleet.snapshot()
        assert "victim" in {name for r in snapshot.rounds if r.index > 0 for name in r.reports}
        assert result_of(snapshot)["deployment"]["share"] == 1.0
        nothing_counted_twice(snapshot, fleet.state)


def test_a_device_that_hangs_holds_a_round_up_to_its_deadline_and_no_longer(
    running_broker: Running, tmp_path: Path
) -> None:
    text = job_text(min_devices=2, per_round=2, deadline_s=8.0)
    with Fleet(running_broker.url, tmp_path, text) as fleet:
        sleeper = Puppet(fleet.url, fleet.job.fleet, f"sleeper-{fleet.job.fleet}")
        fleet.device("ada")
        orchestrator = fleet.orchestrate()
        sleeper.refuse(sleeper.plan("evaluate-initial"))
        sleeper.ack(sleeper.plan("merged-0000"))  # and says nothing more
        cancelled = sleeper.wait(Cancel, lambda cancel: cancel.round_id == "merged-0000")
        assert "deadline" in cancelled.reason
        sleeper.leave()
        assert orchestrator.join() is True
        closed = record(fleet.snapshot(), "merged-0000")
        assert (closed.outcome, list(closed.reports)) == ("deadline", ["ada"])
        assert closed.wall_seconds >= fleet.job.federation.deadline_s


def test_an_orchestrator_killed_in_a_round_goes_on_with_it_and_counts_nothing_twice(
    running_broker: Running, tmp_path: Path
) -> None:
    text = job_text(per_round=3, deadline_s=4 * PATIENCE_S)
    with Fleet(running_broker.url, tmp_path, text) as fleet:
        keeper = Puppet(fleet.url, fleet.job.fleet, f"keeper-{fleet.job.fleet}")
        for name in ("ada", "bob"):
            fleet.device(name)
        first = fleet.serve()
        keeper.refuse(keeper.plan("evaluate-initial"))
        keeper.ack(keeper.plan("merged-0000"))  # now the round is open until the keeper speaks
        until(lambda: reports(fleet, "merged-0000") == 2, "two reports of merged-0000")
        kill(first)

        heard = len(keeper.messages)
        second = fleet.serve()
        again = keeper.plan("merged-0000", after=heard)
        assert again.job == keeper.plan("merged-0000").job
        assert reports(fleet, "merged-0000") == 2  # as they were: no device had to train again
        keeper.refuse(again)
        close_of(fleet, "merged-0000")
        keeper.leave()

        # Ctrl-C in the next phases, and a third start that finishes.
        until(lambda: fleet.snapshot().phase == "split", "the split")
        second.send_signal(signal.SIGINT)
        assert second.wait(PATIENCE_S) == 130
        fleet.serve()
        snapshot = fleet.finish()
        assert set(record(snapshot, "merged-0000").reports) == {"ada", "bob"}
        nothing_counted_twice(snapshot, fleet.state)
        assert "Traceback" not in fleet.log("serve.log")
        assert any("merged-0000: taken up again with 2 of 3 reports" in event.text for event in snapshot.events)


def reports(fleet: Fleet, round_id: str) -> int:
    return next((r.reports for r in fleet.snapshot().open_rounds if r.round_id == round_id), 0)


@pytest.mark.every_broker  # the others forget sessions, subscriptions, births and statuses when they are killed
def test_a_broker_that_is_killed_comes_back_and_the_job_is_done(mortal_broker: Running, tmp_path: Path) -> None:
    with (
        Fleet(mortal_broker.url, tmp_path, job_text(min_devices=2)) as fleet,
        Tap(mortal_broker.url, fleet.job.fleet) as tap,
    ):
        for name in ("ada", "bob"):
            fleet.device(name)
        orchestrator = fleet.orchestrate()
        for moment in ("merged-0000", "group-0-0002"):
            tap.wait_for("ada", acknowledged(moment))
            kill_broker(mortal_broker)
        assert orchestrator.join() is True
        snapshot = fleet.snapshot()
        assert result_of(snapshot)["deployment"]["share"] == 1.0
        nothing_counted_twice(snapshot, fleet.state)


def kill_broker(broker: Running) -> None:
    before = broker.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    until(lambda: broker.pid not in (None, before), "another broker process")
