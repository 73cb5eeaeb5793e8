from __future__ import annotations

import pytest

from mas_edge.mas.merge import Group, all_in_one, inheritance
from mas_edge.protocol.errors import JobError


def test_all_tasks_are_merged_into_one_group() -> None:
    assert all_in_one(["b", "a"]) == Group("merged", ("b", "a"))


def test_the_parts_of_a_group_are_the_encoder_and_its_heads() -> None:
    assert all_in_one(["a", "b"]).parts == ("encoder", "a", "b")


def test_every_group_inherits_the_encoder_and_the_heads_of_its_tasks() -> None:
    groups = [Group("one", ("a", "c")), Group("other", ("b",)), Group("overlapping", ("c",))]
    assert inheritance(all_in_one(["a", "b", "c"]), groups) == {
        "one": ("encoder", "a", "c"),
        "other": ("encoder", "b"),
        "overlapping": ("encoder", "c"),
    }


def test_a_task_that_the_source_does_not_hold_is_refused() -> None:
    with pytest.raises(JobError, match=r"of the tasks \('a', 'b'\)"):
        inheritance(all_in_one(["a", "b"]), [Group("g", ("a", "c"))])


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(JobError, match="names of their own"):
        inheritance(all_in_one(["a", "b"]), [Group("g", ("a",)), Group("g", ("b",))])


@pytest.mark.parametrize("tasks", [(), ("a", "a")])
def test_a_group_without_tasks_or_with_a_task_twice_is_refused(tasks: tuple[str, ...]) -> None:
    with pytest.raises(JobError, match="at least one task and every task once"):
        Group("g", tasks)
