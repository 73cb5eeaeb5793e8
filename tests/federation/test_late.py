"""Late work: who is busy with it, how long it is wanted, and what it counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.federation.late import Latecomers, LateWork, staleness_weight


def late(device: str = "a", index: int = 0, group: str = "merged", until: float = 100.0) -> LateWork:
    return LateWork(f"{group}-{index:04d}", device, group, index, f"weights-{index}", until)


def test_a_late_update_counts_for_less_the_later_it_is() -> None:
    assert [staleness_weight(tau, 0.5) for tau in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert staleness_weight(7, 0.0) == 1.0
    assert staleness_weight(1, 1.0) == 0.5


def test_who_works_late_is_busy_until_it_reports() -> None:
    latecomers = Latecomers()
    latecomers.add([late("a"), late("b"), late("c", group="group-0")])
    assert (latecomers.at_work(), latecomers.in_flight("merged")) == ({"a", "b", "c"}, 2)
    assert latecomers.find("merged-0000", "a") == late("a")
    latecomers.end("merged-0000", "a")
    assert (latecomers.at_work(), latecomers.find("merged-0000", "a")) == ({"b", "c"}, None)
    assert latecomers.rounds() == {"merged-0000", "group-0-0000"}


def test_nobody_counts_on_who_vanished_but_its_report_is_still_welcome() -> None:
    latecomers = Latecomers()
    latecomers.add([late("a"), late("b")])
    latecomers.on_lost("a")
    assert (latecomers.at_work(), latecomers.in_flight("merged")) == ({"b"}, 1)
    assert latecomers.find("merged-0000", "a") is not None
    assert latecomers.bases() == {"weights-0"}


OUTDATED: dict[str, tuple[dict[str, int], float, bool]] = {  # next round of each network, the time, whether it goes
    "it is not older than allowed": ({"merged": 3}, 0.0, False),
    "it is older than allowed": ({"merged": 4}, 0.0, True),
    "its network trains no more": ({"group-0": 1}, 0.0, True),
    "its device has given it up": ({"merged": 1}, 100.0, True),
}


@pytest.mark.parametrize("case", OUTDATED)
def test_late_work_is_dropped_or_not_when(case: str) -> None:
    next_rounds, now, gone = OUTDATED[case]
    latecomers = Latecomers()
    latecomers.add([late("a")])
    assert latecomers.outdated(next_rounds, 3, now) == ([late("a")] if gone else [])
    assert latecomers.at_work() == (set() if gone else {"a"})


keys = st.tuples(st.sampled_from("abc"), st.integers(0, 5))
events = st.lists(st.tuples(st.sampled_from(["add", "end", "lost", "pass"]), keys), max_size=30)


@given(events, st.integers(0, 3))
def test_whatever_happens_no_work_outlives_its_staleness_and_counts_add_up(
    history: list[tuple[str, tuple[str, int]]], most: int
) -> None:
    latecomers, following = Latecomers(), 0
    for kind, (device, index) in history:
        match kind:
            case "add":
                latecomers.add([late(device, min(index, following))])
            case "end":
                latecomers.end(late(device, index).round_id, device)
            case "lost":
                latecomers.on_lost(device)
            case _:
                following += 1
        latecomers.outdated({"merged": following}, most, 0.0)
        assert all(following - int(base.rpartition("-")[2]) <= most for base in latecomers.bases())
        assert len(latecomers.at_work()) <= latecomers.in_flight("merged")
