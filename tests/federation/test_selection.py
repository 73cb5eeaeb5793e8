"""Choosing devices: only those that can serve, those that served least first, and the same draw every time."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.federation.selection import deployable, eligible, select, told, why_not
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.protocol.messages import Birth, SampleCount

JOB = Job(
    name="j",
    data=Data(input_shape=[6, 64]),
    tasks=[Task(name="a", kind="value"), Task(name="b", kind="value")],
    federation=Federation(rounds=2, merge_rounds=1),
)
BIRTH = Birth(
    sender="pi-1", boot_id="b", seq=1, runtime="0.1.0", python="3.11", machine="aarch64", cores=4,
    memory_bytes=2**30, engine="torch", engines=["torch"], input_shape=[6, 64],
    tasks={"a": SampleCount(train=10, test=2)},
)  # fmt: skip

UNFIT: dict[str, tuple[Birth, str]] = {
    "another input shape": (replace(BIRTH, input_shape=[6, 32]), r"its input has shape \[6, 32\], the job's \[6, 64\]"),
    "no engine": (replace(BIRTH, engine=""), "engine is not installed"),
    "labels of other tasks": (replace(BIRTH, tasks={"z": SampleCount(train=9, test=9)}), "no training labels for a, b"),
    "an owner who forbids it now": (
        replace(BIRTH, ineligible="its owner's rules: it is not charging"),
        "^not now: its owner's rules: it is not char",
    ),
    "only test labels": (replace(BIRTH, tasks={"a": SampleCount(train=0, test=9)}), "no training labels for a, b"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_device_that_cannot_serve_is_never_chosen_and_told_why(case: str) -> None:
    birth, reason = UNFIT[case]
    assert re.search(reason, why_not(birth, JOB, ["a", "b"]))
    assert eligible({"pi-1": BIRTH, "pi-2": birth}, JOB, ["a", "b"]) == ["pi-1"]


def test_labels_of_one_task_of_the_group_are_enough() -> None:
    assert why_not(BIRTH, JOB, ["a", "b"]) == ""
    assert why_not(BIRTH, JOB, ["b"]) != ""


@pytest.mark.parametrize("case", UNFIT)
def test_every_device_with_the_jobs_input_gets_the_models_labels_or_not(case: str) -> None:
    birth, _ = UNFIT[case]
    fits = birth.input_shape == BIRTH.input_shape
    assert deployable({"pi-1": BIRTH, "pi-2": birth}, JOB) == (["pi-1", "pi-2"] if fits else ["pi-1"])


@pytest.mark.parametrize(
    ("goal", "factor", "idle", "rounds", "expected"),
    [
        (4, 1.0, 100, 1, 4),
        (4, 1.3, 100, 1, 6),  # 5.2
        (10, 1.1, 100, 1, 11),  # and not 12 for the sake of 11.000000000000002
        (10, 1.3, 100, 1, 13),
        (4, 1.3, 5, 1, 5),
        (4, 1.3, 3, 1, 4),  # up to four of the three that are there
        (4, 1.3, 10, 2, 5),  # the next round finds its share
        (4, 1.3, 8, 2, 4),
        (4, 1.3, 9, 2, 4),
    ],
)
def test_spare_devices_are_told_where_there_are_any_and_no_other_round_needs_them(
    goal: int, factor: float, idle: int, rounds: int, expected: int
) -> None:
    assert told(goal, factor, idle, rounds) == expected


device_names = st.lists(st.from_regex(r"[a-z][0-9]{1,2}", fullmatch=True), unique=True, max_size=12)
numbers_served = st.dictionaries(st.from_regex(r"[a-z][0-9]", fullmatch=True), st.integers(0, 5))


@given(device_names, st.integers(1, 8), numbers_served, st.integers(0, 9))
def test_up_to_k_devices_are_chosen_and_the_choice_depends_on_nothing_but_its_arguments(
    names: list[str], k: int, served: dict[str, int], seed: int
) -> None:
    chosen = select(names, k, served, seed, "merged-0001")
    assert len(chosen) == min(k, len(names)) == len(set(chosen))
    assert set(chosen) <= set(names)
    assert chosen == select(sorted(names, reverse=True), k, dict(reversed(served.items())), seed, "merged-0001")


@given(device_names, st.integers(1, 8), numbers_served, st.integers(0, 9))
def test_nobody_is_chosen_before_one_who_served_less(
    names: list[str], k: int, served: dict[str, int], seed: int
) -> None:
    chosen = select(names, k, served, seed, "merged-0001")
    left = set(names) - set(chosen)
    most = max((served.get(name, 0) for name in chosen), default=0)
    assert all(served.get(name, 0) >= most for name in left)


@given(device_names.filter(bool), st.integers(1, 8), st.integers(1, 30), st.integers(0, 9))
def test_over_many_rounds_everybody_serves_equally_often(names: list[str], k: int, rounds: int, seed: int) -> None:
    served = Counter(dict.fromkeys(names, 0))
    for number in range(rounds):
        served.update(select(names, k, served, seed, f"merged-{number:04d}"))
    assert max(served.values()) - min(served.values()) <= 1


def test_ties_are_drawn_anew_in_every_round_and_by_every_seed() -> None:
    names = [f"pi-{i}" for i in range(10)]
    by_round = {tuple(select(names, 3, {}, 0, f"merged-{i:04d}")) for i in range(20)}
    by_seed = {tuple(select(names, 3, {}, seed, "merged-0000")) for seed in range(20)}
    assert len(by_round) > 10
    assert len(by_seed) > 10
