"""Late updates at the desk: refused, or folded exactly once, whatever is restarted in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mas_edge.orchestrator import view
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Plan
from mas_edge.protocol.weights import pack
from tests.orchestrator.small_desk import SmallDesk, a_job
from tests.orchestrator.small_run import LAYOUT, numbers

FLEET = [f"pi-{n}" for n in range(6)]
JOB = a_job(
    rounds=20, merge_rounds=10, devices_per_round=2, over_selection=1.5, late_updates="fold", max_staleness=2,
    deadline_s=60.0,
)  # fmt: skip
LONG = {"end_round": 10}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[SmallDesk]:
    desk = SmallDesk(tmp_path, JOB, LONG)
    desk.arrive(*FLEET)
    desk.turn()
    yield desk
    desk.close()


def trained(seed: int) -> NDArray[np.float32]:
    return numbers(seed=seed)


def close(desk: SmallDesk, round_id: str, seeds: tuple[int, int] = (1, 2)) -> str:
    """Two of the three devices report; returns the third, which works on."""
    first, second, third = sorted(desk.told(round_id))
    for device in (first, second, third):
        desk.ack(device, round_id)
    for device, seed in zip((first, second), seeds, strict=True):
        desk.report(device, round_id, trained(seed))
    desk.turn()
    assert desk.records()[round_id].stragglers == [third]
    return third


def mean(*weighted: tuple[NDArray[np.float32], float]) -> NDArray[np.float64]:
    over = sum(vector.astype(np.float64) * weight for vector, weight in weighted)
    return np.asarray(over / sum(weight for _, weight in weighted))


def test_a_straggler_is_not_cancelled_and_its_update_counts_for_less_in_the_next_round(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    assert desk.cancelled() == set()
    desk.turn()
    assert late not in desk.told("merged-0001"), "it is busy"
    desk.report(late, "merged-0000", trained(9))
    assert desk.verdicts(late) == ["accepted"]
    again, other, third = sorted(desk.told("merged-0001"))
    for device in (again, other):
        desk.ack(device, "merged-0001")
        desk.report(device, "merged-0001", trained(3))
    desk.turn()

    before, after = desk.records()["merged-0000"], desk.records()["merged-0001"]
    [counted] = after.late
    assert (counted.device, counted.round_id, counted.staleness) == (late, "merged-0000", 1)
    assert set(after.reports) == {again, other}
    assert after.samples == {"a": 9, "b": 15}
    base, now = numbers(), desk.weights(before.weights)
    assert after.base == before.weights
    moved = now + (trained(9) - base)
    expected = mean((moved, 2**-0.5), (trained(3), 1), (trained(3), 1))
    np.testing.assert_allclose(desk.weights(after.weights), expected, rtol=1e-5, atol=1e-6)
    assert desk.cancelled("merged-0001") == {third}, "it had not said that it began"


def test_an_update_that_comes_between_two_rounds_counts_in_the_next_one_that_opens(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    desk.report(late, "merged-0000", trained(9))
    assert (desk.verdicts(late), desk.desk.active) == (["accepted"], {})
    desk.turn()
    [counted] = desk.round("merged-0001").late
    assert (counted.device, counted.staleness) == (late, 1)


def test_late_updates_do_not_make_up_for_fresh_ones(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    desk.turn()
    desk.report(late, "merged-0000", trained(9))
    desk.report(min(desk.told("merged-0001")), "merged-0001", trained(3))
    desk.turn()
    assert "merged-0001" in desk.desk.active


@pytest.mark.parametrize("moment", ["before the round opens", "while it is open"])
def test_a_late_update_counts_exactly_once_over_restarts(moment: str, desk: SmallDesk, tmp_path: Path) -> None:
    late = close(desk, "merged-0000")
    if moment == "while it is open":
        desk.turn()
    desk.report(late, "merged-0000", trained(9))
    for _ in range(2):
        desk.restart()
        desk.arrive(*FLEET)
        desk.turn()
        desk.report(late, "merged-0000", trained(9))
        assert desk.verdicts(late)[-1] == "duplicate"
        [counted] = desk.round("merged-0001").late
        assert (counted.device, counted.round_id) == (late, "merged-0000")
    assert [each.reports for each in view.read(tmp_path).open_rounds] == [1]
    close(desk, "merged-0001", (3, 4))
    before, after = desk.records()["merged-0000"], desk.records()["merged-0001"]
    moved = desk.weights(before.weights) + (trained(9) - numbers())
    expected = mean((moved, 2**-0.5), (trained(3), 1), (trained(4), 1))
    np.testing.assert_allclose(desk.weights(after.weights), expected, rtol=1e-5, atol=1e-6)


def test_a_restarted_orchestrator_still_takes_the_report_of_a_straggler(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    desk.restart()
    desk.arrive(*FLEET)
    desk.turn()
    assert late not in desk.told("merged-0001")
    desk.report(late, "merged-0000", trained(9))
    assert desk.verdicts(late) == ["accepted"]


def test_a_late_update_of_a_round_that_is_abandoned_counts_in_the_next_attempt(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    desk.turn()
    desk.report(late, "merged-0000", trained(9))
    for device in FLEET:
        desk.leave(device)
    desk.turn(61.0)
    assert desk.records()["merged-0001"].outcome == "abandoned"
    desk.arrive(*FLEET)
    desk.turn(60.0)
    [counted] = desk.round("merged-0001.1").late
    assert (counted.device, counted.staleness) == (late, 1)


def test_an_update_is_wanted_up_to_the_staleness_that_the_job_allows(desk: SmallDesk) -> None:
    first = close(desk, "merged-0000")
    for index in (1, 2):
        desk.turn()
        close(desk, f"merged-{index:04d}")
    assert desk.cancelled("merged-0000") == {first}
    desk.report(first, "merged-0000", trained(9))
    assert desk.verdicts(first) == ["round_closed"]
    assert desk.desk.wanted_rounds() == {"merged-0001", "merged-0002"}


def test_past_the_last_round_of_its_network_a_straggler_is_told_to_stop(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, JOB, {"end_round": 1})
    desk.arrive(*FLEET)
    desk.turn()
    first, second, third = sorted(desk.told())
    for device in (first, second, third):
        desk.ack(device)
    desk.report(first)
    desk.report(second)
    desk.turn()
    assert (desk.desk.state.phase, desk.records()["merged-0000"].stragglers) == ("merged_evaluation", [])
    assert desk.cancelled() == {third}
    desk.report(third)
    assert desk.verdicts(third) == ["round_closed"]
    desk.close()


def vanish(desk: SmallDesk, late: str) -> None:
    desk.leave(late)
    desk.arrive(late)


LEAVING: dict[str, Callable[[SmallDesk, str], None]] = {
    "refuses": lambda desk, late: desk.refuse(late),
    "vanishes and comes back": vanish,
    "lives anew": lambda desk, late: desk.arrive(late, boot_id="c"),
}


@pytest.mark.parametrize("case", LEAVING)
def test_a_straggler_is_free_for_the_next_round_when_it(case: str, tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, JOB, LONG)
    desk.arrive(*FLEET[:3])
    desk.turn()
    late = close(desk, "merged-0000")
    LEAVING[case](desk, late)
    desk.turn()
    assert desk.told("merged-0001") == set(FLEET[:3])
    desk.close()


def test_what_a_late_update_began_from_stays_on_the_disk_as_long_as_it_may_come(desk: SmallDesk) -> None:
    late = close(desk, "merged-0000")
    base = desk.records()["merged-0000"].base
    assert desk.artifacts.has(base)
    desk.turn()
    desk.report(late, "merged-0000", trained(9))
    desk.desk.move(desk.desk.state)
    assert desk.artifacts.has(base), "the round it counts in may have to fold it again"
    for index in range(1, 8):
        desk.turn()
        close(desk, f"merged-{index:04d}")
    assert not desk.artifacts.has(base)


@pytest.mark.parametrize("offered", ["before its round closes", "after"])
def test_an_update_that_is_on_its_way_when_old_artifacts_are_cleared_away_goes_on(
    offered: str, desk: SmallDesk
) -> None:
    first, second, late = sorted(desk.told())
    manifest = describe(pack(LAYOUT, trained(9)))
    part = desk.artifacts.path(manifest.artifact).with_suffix(".map")
    desk.ack(late)
    if offered == "before its round closes":
        desk.offer(late, "merged-0000", manifest)
    desk.report(first)
    desk.report(second)
    desk.turn()
    if offered == "after":
        desk.offer(late, "merged-0000", manifest)
    desk.desk.move(desk.desk.state)
    assert part.exists()
    desk.refuse(late)
    desk.desk.move(desk.desk.state)
    assert not part.exists(), "nobody will send the rest"


def test_where_late_updates_are_refused_everybody_is_told_to_stop(tmp_path: Path) -> None:
    desk = SmallDesk(tmp_path, a_job(devices_per_round=2, over_selection=1.5))
    desk.arrive(*FLEET)
    desk.turn()
    first, second, third = sorted(desk.told())
    desk.ack(third)
    desk.report(first)
    desk.report(second)
    desk.turn()
    assert desk.cancelled() == {third}
    desk.report(third)
    assert desk.verdicts(third) == ["round_closed"]
    desk.close()


def test_a_device_is_given_as_much_longer_as_its_report_may_be_late(desk: SmallDesk) -> None:
    [plan] = desk.said_to(min(desk.told()), Plan)
    assert plan.deadline_s == JOB.federation.deadline_s * 3
