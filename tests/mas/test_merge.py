from __future__ import annotations

import pytest

from mas_edge.mas.merge import Group, all_in_one, groups_of, inheritance
from mas_edge.mas.split import Split, best_split
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import LETTERS, TAG


def test_all_tasks_are_merged_into_one_group() -> None:
    assert all_in_one(["b", "a"]) == Group("merged", ("b", "a"))


def test_the_parts_of_a_group_are_the_encoder_and_its_heads() -> None:
    assert all_in_one(["a", "b"]).parts == ("encoder", "a", "b")


def test_the_groups_of_a_split_are_numbered_in_its_order() -> None:
    groups = groups_of(best_split(TAG, 2))
    assert groups == (Group("group-0", ("s", "d", "n")), Group("group-1", ("k", "t")))


def test_every_group_inherits_the_encoder_and_each_head_goes_to_one_group() -> None:
    inherited = inheritance(all_in_one(LETTERS), groups_of(best_split(TAG, 3)))
    assert inherited == {
        "group-0": ("encoder", "s", "d"),
        "group-1": ("encoder", "n"),
        "group-2": ("encoder", "k", "t"),
    }


@pytest.mark.parametrize("groups", [(("a",),), (("a", "b"), ("b",)), (("a", "b", "c"),), ()])
def test_groups_that_are_no_partition_of_the_merged_tasks_are_refused(groups: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(JobError, match="in exactly one group"):
        inheritance(all_in_one(["a", "b"]), groups_of(Split(0.0, groups)))


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(JobError, match="of its own name"):
        inheritance(all_in_one(["a", "b"]), [Group("g", ("a",)), Group("g", ("b",))])


@pytest.mark.parametrize("tasks", [(), ("a", "a")])
def test_a_group_without_tasks_or_with_a_task_twice_is_refused(tasks: tuple[str, ...]) -> None:
    with pytest.raises(JobError, match="at least one task and every task once"):
        Group("g", tasks)
