"""Each method's groups, out of records written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from mas_edge.federation.methods import with_method
from mas_edge.job import Data, Federation, Job, Limits, Method, Task
from mas_edge.mas.controls import random_split
from mas_edge.mas.limits import Costs
from mas_edge.mas.split import partitions, value_of
from mas_edge.orchestrator.decision import decide, measured_affinity, needs_costs, settled, step_seconds
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.messages import Report
from tests.mas.matrices import LETTERS, TAG
from tests.orchestrator.small_run import record

Floats = NDArray[np.float64]
EQUAL = Costs(1.0, dict.fromkeys(LETTERS, 0.1))  # an encoder, and heads of a tenth of it


def a_job(method: str, tasks: Sequence[str] = LETTERS, **federation: Any) -> Job:
    settings = {"rounds": 10, "merge_rounds": 3, **federation}
    named = [Task(name=name, kind="value") for name in tasks]
    job = Job(name="j", data=Data(input_shape=[3]), tasks=named, federation=msgspec.convert(settings, Federation))
    return with_method(job, method)


def limited(job: Job, **limits: float) -> Job:
    return msgspec.structs.replace(job, limits=msgspec.convert(limits, Limits))


def merged(index: int, *measured: Floats, tasks: Sequence[str] = LETTERS, **changes: Any) -> RoundRecord:
    """A merged round in which each device measured one of the matrices; its affinity is their mean."""
    n = len(tasks)
    reports = {
        f"pi-{at}": Report(samples={}, losses={}, affinity=matrix.tolist()) for at, matrix in enumerate(measured)
    }
    fields: dict[str, Any] = {
        "tasks": list(tasks), "index": index, "reports": reports,
        "affinity": np.mean(measured, axis=0).tolist() if measured else None,
        "affinity_devices": np.full((n, n), len(measured)).tolist() if measured else None,
    }  # fmt: skip
    return record(f"merged-{index:04d}", **{**fields, **changes})


def three_rounds(matrix: Floats = TAG.values, tasks: Sequence[str] = LETTERS) -> list[RoundRecord]:
    return [merged(index, matrix, matrix, tasks=tasks) for index in range(3)]


def letters(groups: Sequence[Sequence[str]]) -> str:
    return ", ".join("".join(group) for group in groups)


# ---------------------------------------------------------------------- methods that measure nothing

PLAIN = {"one-by-one": "s, d, n, k, t", "all-in-one": "sdnkt", "gradnorm": "sdnkt", "standalone": "sdnkt"}


@pytest.mark.parametrize("method", PLAIN)
def test_methods_without_a_choice_ask_for_no_measurement(method: str) -> None:
    found = decide(a_job(method), [])
    assert letters(found.groups) == letters(found.serves) == PLAIN[method]
    assert (found.tasks, found.affinity, found.value) == (list(LETTERS), None, None)


def test_a_random_split_is_drawn_from_the_seed_and_asks_for_no_measurement() -> None:
    jobs = [msgspec.structs.replace(a_job("random-2"), seed=seed) for seed in range(12)]
    found = [decide(job, []).groups for job in jobs]
    assert found == [[list(group) for group in random_split(LETTERS, 2, seed)] for seed in range(12)]
    assert found == [decide(job, []).groups for job in jobs]
    assert len({letters(groups) for groups in found}) > 3


# ---------------------------------------------------------------------- MAS and its controls

# The picks on TAG's published matrix (docs/decisions/0001-exactly-n-groups.md): exactly N, at most N.
PUBLISHED = {
    1: ("sdnkt", "sdnkt"), 2: ("sdn, kt", "sdn, kt"), 3: ("sd, n, kt", "sd, n, kt"),
    4: ("s, d, n, kt", "sd, n, kt"), 5: ("s, d, n, k, t", "sd, n, kt"),
}  # fmt: skip


@pytest.mark.parametrize("number", PUBLISHED)
def test_mas_takes_the_best_split_into_exactly_n_groups_or_into_at_most_n(number: int) -> None:
    exactly, at_most = PUBLISHED[number]
    found = decide(a_job(f"mas-{number}"), three_rounds())
    assert letters(found.groups) == letters(found.serves) == exactly
    assert found.value == found.bound == pytest.approx(value_of(TAG, found.groups))
    assert letters(decide(a_job(f"mas-{number}", at_most=True), three_rounds()).groups) == at_most


def test_what_a_split_was_decided_on_is_kept() -> None:
    found = decide(a_job("mas-2"), three_rounds())
    assert found.affinity is not None
    np.testing.assert_allclose(found.affinity, TAG.values)
    assert found.affinity_devices == [[6] * 5] * 5
    np.testing.assert_allclose(np.array(found.affinity_spread, np.float64), np.zeros((5, 5)), atol=1e-12)
    assert found.runner_up is not None
    assert letters(found.runner_up) == "sd, nkt"
    assert found.runner_up_value == pytest.approx(0.21851)


def test_scratch_is_decided_like_mas() -> None:
    assert decide(a_job("scratch-3"), three_rounds()) == decide(a_job("mas-3"), three_rounds())


def test_the_worst_split_is_the_worst_of_all() -> None:
    found = decide(a_job("worst-2"), three_rounds())
    named = [[[LETTERS[i] for i in group] for group in split] for split in partitions(5, 2)]
    assert len(named) == 15
    worst = min(named, key=lambda groups: value_of(TAG, groups))
    assert found.groups == worst
    assert found.value == pytest.approx(value_of(TAG, worst))


def test_every_trains_all_groups_of_that_size_and_only_the_best_split_answers() -> None:
    found = decide(a_job("every-2"), three_rounds())
    assert len(found.groups) == 30
    assert len({frozenset(group) for group in found.groups}) == 30
    assert letters([served for served in found.serves if served]) in ("sdn, kt", "kt, sdn")
    assert all(served in ([], group) for group, served in zip(found.groups, found.serves, strict=True))


# ---------------------------------------------------------------------- overlapping groups


def test_tag_serves_each_task_by_the_group_that_helps_it_most() -> None:
    """By hand. a helps b by 4, b helps a by 1, c helps a by 3, a helps c by 2: (a, b) for b, (a, c) for a and c."""
    matrix = np.array([[0.0, 4.0, 2.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    found = decide(a_job("tag-2", "abc"), three_rounds(matrix, "abc"))
    assert (found.groups, found.serves) == ([["a", "c"], ["a", "b"]], [["a", "c"], ["b"]])
    assert found.value == pytest.approx(4 + 3 + 2)
    assert found.affinity == matrix.tolist()


def test_hoa_goes_by_the_losses_of_its_probes() -> None:
    """By hand. Alone each task has 1; only (a, b) does better: .5 + .6 + 1."""
    losses: dict[str, dict[str, float]] = {
        "a": {"a": 1.0}, "b": {"b": 1.0}, "c": {"c": 1.0}, "ab": {"a": 0.5, "b": 0.6}, "ac": {"a": 2.0, "c": 2.0},
        "bc": {"b": 2.0, "c": 2.0},
    }  # fmt: skip
    records = [
        record(f"evaluate-probe-{at}", kind="evaluate", phase="probe_evaluation", group=f"probe-{at}",
               tasks=list(tasks), losses=values)
        for at, (tasks, values) in enumerate(losses.items())
    ]  # fmt: skip
    trained = record("probe-3-0000", phase="probe", group="probe-3", tasks=["a", "b"], losses={"a": 9.0, "b": 9.0})
    found = decide(a_job("hoa-2", "abc"), [trained, *records])
    assert found.groups == [["a", "b"], ["c"]]
    assert found.value == pytest.approx(2.1)
    with pytest.raises(JobError, match=r"loss of task 'c' in group \['b', 'c'\] is None"):
        decide(a_job("hoa-2", "abc"), records[:-1])


# ---------------------------------------------------------------------- measurements


@pytest.mark.parametrize("method", ["mas-2", "mas-auto", "worst-2", "every-2", "scratch-2", "tag-2"])
def test_without_a_measurement_there_is_nothing_to_decide_by(method: str) -> None:
    job = a_job(method)
    evaluated = merged(2, TAG.values, kind="evaluate")
    for records in ([], [merged(0), merged(1)], [evaluated]):
        with pytest.raises(ServerError, match=r"no device measured an affinity .*: lower affinity\.period, or train"):
            decide(job, records, {"multiply_accumulates": EQUAL})


def test_the_affinity_is_the_mean_over_the_merged_rounds_with_its_standard_error() -> None:
    one, other = np.zeros((5, 5)), np.full((5, 5), 0.5)
    found = measured_affinity([merged(0, one), merged(1, other)])
    assert (found.matrix[0, 1], found.spread[0, 1]) == (0.25, pytest.approx(0.25))


def test_a_round_that_nobody_measured_in_does_not_count() -> None:
    one, other = np.zeros((5, 5)), np.ones((5, 5))
    found = measured_affinity([merged(0, one), merged(1, one), merged(2), merged(3, other)])
    assert (found.matrix[0, 1], found.devices[0, 1]) == (pytest.approx(1 / 3), 3)


def test_an_abandoned_round_does_not_count_beside_the_one_that_was_done_again() -> None:
    good, bad = TAG.values, -TAG.values
    records = [merged(0, good), merged(1, bad, outcome="abandoned"), merged(1, good), merged(2, good)]
    assert decide(a_job("mas-2"), records) == decide(a_job("mas-2"), [merged(i, good) for i in range(3)])


def test_what_was_measured_after_the_split_counts_as_much_as_all_before_it() -> None:
    before, after = np.zeros((5, 5)), np.ones((5, 5))
    group = record("group-0-0003", group="group-0", phase="groups", index=3)
    found = measured_affinity([*(merged(i, before) for i in range(3)), group, merged(4, after)])
    assert (found.matrix[0, 1], found.rounds[0, 1], found.devices[0, 1]) == (0.5, 4, 4)


def test_groups_that_train_stay_unless_others_gain_more_than_the_noise() -> None:
    other = [["s", "d"], ["n", "k", "t"]]
    job = a_job("mas-2")
    certain = decide(job, three_rounds(), current=other)
    assert (letters(certain.groups), certain.reason) == ("sdn, kt", "")
    swing = 4 * np.outer([1, 1, -1, -1, -1], [1, 1, -1, -1, -1])
    noisy = [merged(index, TAG.values + sign * swing) for index, sign in enumerate((1, -1, 1, -1))]
    stays = decide(job, noisy, current=other)
    assert stays.groups == other
    assert stays.value == pytest.approx(value_of(TAG, other))
    assert "the groups stay" in stays.reason
    assert stays.runner_up is not None
    assert letters(stays.runner_up) == "sdn, kt"


# ---------------------------------------------------------------------- limits


HEAVY = {"parameters": Costs(100, {"s": 10, "d": 10, "n": 25, "k": 5, "t": 5})}


def test_a_split_over_a_limit_is_not_chosen() -> None:
    """(s, d, n) would take 145; the best of what fits into 140 is the runner-up."""
    job = a_job("mas-2")
    assert letters(decide(job, three_rounds(), HEAVY).groups) == "sdn, kt"
    found = decide(limited(job, parameters=140), three_rounds(), HEAVY)
    assert letters(found.groups) == "sd, nkt"
    assert all(HEAVY["parameters"].of(group) <= 140 for group in found.groups)


def test_the_worst_split_keeps_limits_too() -> None:
    found = decide(limited(a_job("worst-2"), parameters=140), three_rounds(), HEAVY)
    assert all(HEAVY["parameters"].of(group) <= 140 for group in found.groups)


def test_a_limit_that_no_split_keeps_is_the_jobs_error() -> None:
    few = limited(a_job("mas-2"), parameters=120)
    with pytest.raises(JobError, match=r"cannot split 5 tasks into 2 groups within the limit of parameters \(at most"):
        decide(few, three_rounds(), HEAVY | {"parameters": Costs(100, dict.fromkeys(LETTERS, 10))})
    none = limited(a_job("mas-5"), parameters=120)
    with pytest.raises(JobError, match=r"task 'n' alone takes 125 parameters"):
        decide(none, three_rounds(), HEAVY)


def test_costs_are_needed_for_limits_and_to_find_the_number_of_groups() -> None:
    assert not needs_costs(a_job("mas-2"))
    assert needs_costs(a_job("mas-auto"))
    assert all(needs_costs(limited(a_job("mas-2"), **{name: 1})) for name in Limits.__struct_fields__)


def test_a_step_takes_as_long_as_on_the_slowest_device_and_follows_the_work() -> None:
    def report(seconds: float, steps: int) -> Report:
        return Report(samples={}, losses={}, seconds={"train": seconds, "load": 9.0}, steps=steps)

    records = [
        merged(0, reports={"pi-1": report(4.0, 4), "pi-2": report(1.0, 4)}),
        merged(1, reports={"pi-1": report(2.0, 4), "pi-3": report(6.0, 4)}),
        record("group-0-0003", phase="groups", group="group-0", reports={"pi-1": report(99.0, 1)}),
    ]
    costs = step_seconds(records, EQUAL)
    assert costs.of(LETTERS) == pytest.approx(1.5)
    assert costs.of(["k", "t"]) == pytest.approx(1.5 * 1.2 / 1.5)
    with pytest.raises(ServerError, match=r"limits\.step_seconds needs a time, and no device has trained"):
        step_seconds(records[2:], EQUAL)


# ---------------------------------------------------------------------- the number of groups


def test_auto_weighs_every_number_of_groups_and_says_why_it_took_one() -> None:
    """Three of ten rounds were merged: N groups cost .3 + .7 (N + .5) / 1.5 of the merged network."""
    found = decide(a_job("mas-auto"), three_rounds(), {"multiply_accumulates": EQUAL})
    assert letters(found.groups) == "sdn, kt"
    assert [row.groups for row in found.candidates] == [1, 2, 3, 4, 5]
    assert [row.chosen for row in found.candidates] == [False, True, False, False, False]
    assert [row.cost for row in found.candidates] == pytest.approx(
        [1.0, *(0.3 + 0.7 * (n + 0.5) / 1.5 for n in range(2, 6))]
    )
    assert [row.gain for row in found.candidates[:3]] == pytest.approx([0, 0.192395, 0.196055])
    assert [row.noise for row in found.candidates] == pytest.approx([0.0] * 5)
    assert found.reason.startswith("2 groups gain +0.1924 beyond noise over all in one at 1.47 times its cost")


def test_auto_stays_with_one_group_where_rounds_disagree_by_more_than_a_split_gains() -> None:
    noisy = [merged(index, TAG.values + sign) for index, sign in enumerate((1.0, -1.0, 1.0, -1.0))]
    found = decide(a_job("mas-auto"), noisy, {"multiply_accumulates": EQUAL})
    assert letters(found.groups) == "sdnkt"
    assert found.reason == "no split gains anything beyond noise over all in one: stay with 1 group"
    assert all(row.noise > row.gain for row in found.candidates[1:4]), "there is one split into five, so no luck in it"


def test_auto_leaves_out_the_numbers_of_groups_that_keep_no_limit() -> None:
    job = limited(a_job("mas-auto"), parameters=120)
    costs = {"multiply_accumulates": EQUAL, "parameters": Costs(100, dict.fromkeys(LETTERS, 10))}
    found = decide(job, three_rounds(), costs)
    assert [row.groups for row in found.candidates] == [3, 4, 5]
    assert letters(found.groups) == "sd, n, kt"


# ---------------------------------------------------------------------- when merging can end


def far_apart(rng: np.random.Generator, noise: float) -> Floats:
    """Affinities with two plain groups, (s, d, n) and (k, t)."""
    same = np.array([[(i < 3) == (j < 3) for j in range(5)] for i in range(5)])
    values: Floats = np.where(same, 0.5, 0.0) + noise * rng.normal(size=(5, 5))
    return values


def rounds_of(count: int, noise: float) -> list[RoundRecord]:
    rng = np.random.default_rng(1)
    return [merged(index, *(far_apart(rng, noise) for _ in range(4))) for index in range(count)]


@pytest.mark.parametrize("method", ["mas-2", "mas-auto"])
def test_a_split_is_settled_when_no_other_choice_of_rounds_and_devices_would_change_it(method: str) -> None:
    job = a_job(method, merge_rounds="auto")
    assert settled(job, rounds_of(3, noise=0.05))
    assert not settled(job, rounds_of(3, noise=3.0))


def test_two_rounds_settle_nothing_and_rounds_without_a_measurement_are_none() -> None:
    job, clear = a_job("mas-2", merge_rounds="auto"), rounds_of(3, noise=0.05)
    assert not settled(job, clear[:2])
    assert not settled(job, [])
    assert not settled(job, [*clear[:2], merged(2)])
    others = [
        msgspec.structs.replace(clear[2], outcome="abandoned"),
        msgspec.structs.replace(clear[2], kind="evaluate"),
    ]
    assert not settled(job, [*clear[:2], *others])
    assert settled(job, [*clear[:2], *others, clear[2]])


def test_the_first_method_of_a_job_file_is_mas() -> None:
    job = Job(name="j", data=Data(input_shape=[3]), tasks=[Task(name=name, kind="value") for name in LETTERS],
              federation=Federation(rounds=10, merge_rounds=3))  # fmt: skip
    assert job.method == Method()
    assert letters(decide(job, three_rounds()).groups) == "sdn, kt"
