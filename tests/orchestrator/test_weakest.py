"""Limits that follow from what a small fleet showed: the slowest device, the smallest memory, and who was kept away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from mas_edge.job import Job
from mas_edge.mas.limits import Costs
from mas_edge.orchestrator.decision import decide
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.protocol.messages import Report
from tests.mas.matrices import LETTERS, TAG
from tests.orchestrator.test_decision import a_job, letters, limited, merged

DEADLINE_S = 100.0
WORK = Costs(10.0, dict.fromkeys(LETTERS, 10.0))  # of all five tasks 60, of a group of three 40
COSTS = {"multiply_accumulates": WORK, "memory_bytes": WORK}
BATCH = 16


def rounds_of(fleet: Mapping[str, Mapping[str, Any]], **refused: str) -> list[RoundRecord]:
    """Three merged rounds with these devices: their ``seconds`` of a round, and the ``batch`` they had room for."""
    found = []
    for index in range(3):
        reports = {
            device: Report(
                samples={}, losses={}, affinity=TAG.values.tolist(), seconds={"train": shown["seconds"]},
                batch_size=shown.get("batch", BATCH), steps=10,
            )
            for device, shown in fleet.items()
        }  # fmt: skip
        found.append(replace(merged(index, TAG.values), reports=reports, refused=dict(refused), kind="train"))
    return found


def job(groups: int | str = 2, share: float = 1.0) -> Job:
    made = a_job("mas-2", deadline_s=DEADLINE_S, batch_size=BATCH)
    return limited(replace(made, federation=replace(made.federation, groups=groups)), weakest_device=share)


def split(
    fleet: Mapping[str, Mapping[str, Any]], groups: int | str = 2, share: float = 1.0, **kept: str
) -> SplitRecord:
    return decide(job(groups, share), rounds_of(fleet, **kept), COSTS)


FAST = {"laptop": {"seconds": 6.0}, "pi": {"seconds": 30.0}}


def test_a_fleet_without_a_weak_device_is_split_as_without_limits() -> None:
    found = split(FAST)
    assert letters(found.groups) == letters(decide(a_job("mas-2"), rounds_of(FAST)).groups) == "sdn, kt"
    assert (
        found.reason
        == "pi bounds the groups by its speed: it trained the merged network for 30 s a round, 100 s are allowed"
    )


def test_the_slowest_device_bounds_how_much_a_group_may_be() -> None:
    # Of 135 s for 60 units, 100 s are 44: a group of three tasks takes 40. With 160 s only two take less than 38.
    three = split({**FAST, "phone": {"seconds": 135.0}})
    assert max(map(len, three.groups)) == 3
    two = split({**FAST, "phone": {"seconds": 160.0}}, groups=3)
    assert max(map(len, two.groups)) == 2
    assert "phone bounds the groups by its speed: it trained the merged network for 160 s" in two.reason


def test_half_of_the_deadline_is_half_of_the_room() -> None:
    assert (
        split({"phone": {"seconds": 80.0}}, groups=3, share=0.5).groups
        == split({"phone": {"seconds": 160.0}}, groups=3).groups
    )


def test_a_device_that_is_too_weak_for_any_split_leaves_the_word_to_the_next() -> None:
    found = split({**FAST, "fridge": {"seconds": 900.0}, "phone": {"seconds": 160.0}}, groups=3)
    assert found.reason.startswith("fridge is too weak for any split into 3; phone bounds the groups by its speed")
    assert max(map(len, found.groups)) == 2


def test_the_device_with_the_smallest_batch_bounds_what_a_group_takes_of_memory() -> None:
    # At half of the batch the merged network takes half: 30 of 60, an encoder and two heads.
    found = split({**FAST, "old-pi": {"seconds": 5.0, "batch": 8}, "tv": {"seconds": 5.0, "batch": 12}}, groups=3)
    assert max(map(len, found.groups)) == 2
    assert (
        "old-pi bounds the groups by its memory: the merged network fits at a batch of 8 instead of 16" in found.reason
    )


def test_who_was_kept_away_in_every_round_is_named_and_bounds_nothing() -> None:
    found = split(FAST, tablet="its battery is at 20 %", pi="it was hot")
    assert found.reason.endswith("not asked, as they refused every round: tablet (its battery is at 20 %)")
    assert letters(found.groups) == "sdn, kt"


@pytest.mark.parametrize("groups", [2, "auto"])
def test_a_fleet_that_showed_nothing_sets_no_limit(groups: int | str) -> None:
    found = split({"pi": {"seconds": 0.0}}, groups)
    assert found.reason.endswith("no device bounds the groups")


def test_without_the_key_nothing_is_looked_at() -> None:
    found = split({"phone": {"seconds": 1e6}}, share=0.0)
    assert (letters(found.groups), found.reason) == ("sdn, kt", "")
