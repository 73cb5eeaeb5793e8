"""What a fault costs, held to bounds that follow from what is configured; `mas-edge chaos` prints both for a soak."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from device_runtime.edge.backoff import FIRST_DELAY_S, LAST_DELAY_S, Backoff
from mas_edge.chaos import bounds
from mas_edge.chaos.fleet import ORCHESTRATOR, Ground
from mas_edge.chaos.harness import BROKER, Kill, Reaper, Run
from mas_edge.chaos.invariants import CLOSING_S
from mas_edge.chaos.nursery import Nursery
from mas_edge.orchestrator.records import RoundRecord
from tests.faults.test_conditions import Scene, scene
from tests.faults.tiny import make_ground

KILLS = 3  # the best counts: a delay that is built in is in each of them, the machine's other work is not
DEADLINE_S = 10.0


@pytest.mark.alone
@pytest.mark.parametrize("victim", [BROKER, ORCHESTRATOR, "ada"])
def test_a_process_that_is_killed_is_back_within_one_reconnect_interval_of_its_start(
    victim: str, ground: Ground, nursery: Nursery, undisturbed: Run, tmp_path: Path
) -> None:
    kill = Kill(victim, messages=12, delay_s=0.0, at_most_s=5.0, down_s=0.2)
    with scene(ground, nursery, tmp_path) as here:
        here.fleet.start_all()
        reaper = Reaper(here.fleet, here.broker, here.witness)
        assert reaper.work(KILLS * [kill]) == []
        found = reaper.recoveries()
        assert found, "nobody was killed: this test shows nothing"
        assert min(each.seconds / each.bound_s for each in found) <= 1.0, found


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The small job in rounds of all three devices, which must not last long."""
    return make_ground(tmp_path_factory.mktemp("three"), per_round=3, min_devices=2, deadline_s=DEADLINE_S)


def closed(here: Scene, round_id: str) -> RoundRecord:
    """What a round came to, as soon as it has."""

    def records() -> list[RoundRecord]:
        snapshot = here.fleet.snapshot()
        return [each for each in snapshot.rounds if each.round_id == round_id] if snapshot else []

    here.wait(lambda: bool(records()), f"the end of {round_id}")
    return records()[0]


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped without a word"])
def test_a_device_that_is_gone_for_good_delays_its_round_by_the_deadline_at_most(
    number: int, three: Ground, nursery: Nursery, tmp_path: Path
) -> None:
    with scene(three, nursery, tmp_path) as here:
        here.fleet.start_all()
        here.wait(lambda: here.begun("merged-0000"), "the first training")
        here.fleet.signal("ada", number)
        record = closed(here, "merged-0000")
        assert "ada" in record.selected
        assert record.wall_seconds <= DEADLINE_S + CLOSING_S


@pytest.mark.parametrize("away_s", [0.0, 0.1, 0.24, 0.3, 1.0, 7.0, 100.0])
def test_the_bound_of_an_absence_is_above_what_any_draw_of_delays_comes_to(away_s: float) -> None:
    for _ in range(200):
        backoff, now = Backoff(), 0.0
        while True:
            now += backoff.next_delay_s()
            if now >= away_s:
                break
        assert now <= bounds.after_absence(away_s)


def test_a_broker_that_is_back_is_found_within_the_interval_in_force() -> None:
    assert bounds.after_absence(0.0) == FIRST_DELAY_S + bounds.ANSWER_S
    assert bounds.after_absence(3600.0) == 3600.0 + LAST_DELAY_S + bounds.ANSWER_S
