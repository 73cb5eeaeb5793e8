from __future__ import annotations

import numpy as np
import pytest

from mas_edge.federation.measurements import affinity_over_rounds, mean_affinity
from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.split import best_split
from mas_edge.mas.stability import is_stable, stability
from mas_edge.mas.subsets import Floats
from mas_edge.protocol.errors import JobError


def measured(
    n: int = 6, clusters: int = 2, noise: float = 0.2, rounds: int = 10, devices: int = 4, seed: int = 0
) -> list[list[Floats]]:
    rng, cluster = np.random.default_rng(seed), np.arange(n) % clusters
    truth = np.where(cluster[:, None] == cluster, 0.3, 0.05)
    return [[truth + noise * rng.normal(size=(n, n)) for _ in range(devices)] for _ in range(rounds)]


def without(rounds: list[list[Floats]], share: float, seed: int = 1) -> list[list[Floats]]:
    """The same with that share of the pairs unmeasured."""
    rng = np.random.default_rng(seed)
    return [[np.where(rng.random(m.shape) < share, np.nan, m) for m in devices] for devices in rounds]


def test_a_clear_split_is_the_best_of_nearly_every_resample() -> None:
    found = stability(measured(), 2)
    assert found.split.groups == (("0", "2", "4"), ("1", "3", "5"))
    assert found.share > 0.95
    assert found.rounds == 10


def test_a_split_of_noise_is_not_stable() -> None:
    rounds = measured(clusters=1, noise=1.0)
    assert stability(rounds, 2).share < 0.6
    assert not is_stable(rounds, 2)


def test_more_rounds_make_it_stable() -> None:
    rounds = measured(noise=0.8, rounds=40)
    assert [is_stable(rounds[:count], 2) for count in (3, 40)] == [False, True]


def test_what_does_not_vary_is_stable_from_the_least_number_of_rounds_on() -> None:
    rounds = measured(noise=0.0)
    assert [is_stable(rounds[:count], 2) for count in range(5)] == [False, False, False, True, True]
    assert is_stable(rounds[:1], 2, at_least_rounds=1)
    assert stability(rounds, 2).errors == pytest.approx(np.zeros((6, 6)), abs=1e-12)


def test_rounds_in_which_nobody_measured_do_not_count() -> None:
    nothing = [np.full((6, 6), np.nan)] * 4
    assert not is_stable([*measured(noise=0.0)[:2], nothing, nothing, []], 2)
    assert is_stable([*measured(noise=0.0)[:3], nothing, []], 2)


def test_ties_are_stable() -> None:
    assert stability([[np.ones((4, 4))] * 2] * 3, 2).share == 1.0


def test_the_split_is_that_of_the_orchestrators_average() -> None:
    rounds = without(measured(noise=1.0), 0.4)
    mean = affinity_over_rounds([mean_affinity(devices) for devices in rounds]).matrix
    tasks = tuple("abcdef")
    assert stability(rounds, 3, tasks=tasks).split == best_split(AffinityMatrix(tasks, mean), 3)


def test_the_errors_are_those_of_a_mean_over_devices_and_rounds() -> None:
    # The error of a mean of 50 rounds of so many draws with deviation .2, within the bootstrap's own error.
    for devices in (1, 4):
        errors = stability(measured(rounds=50, devices=devices), 2, resamples=400).errors
        assert float(errors.mean()) == pytest.approx(0.2 / np.sqrt(50 * devices), rel=0.1)


def test_the_same_seed_gives_the_same_answer() -> None:
    rounds = without(measured(noise=1.0), 0.3)
    first, again, other = (stability(rounds, 2, seed=seed) for seed in (1, 1, 2))
    assert first.share == again.share
    assert first.errors.tobytes() == again.errors.tobytes()
    assert first.errors.tobytes() != other.errors.tobytes()


def test_limits_hold_in_the_resamples_too() -> None:
    tasks = tuple("abcdef")
    limit = GroupLimit("parameters", Costs(10.0, dict.fromkeys(tasks, 1.0)), 12.0)  # two heads a group
    found = stability(measured(noise=0.0), 3, tasks=tasks, limits=[limit])
    assert [len(group) for group in found.split.groups] == [2, 2, 2]
    assert found.share == 1.0


@pytest.mark.parametrize(("n", "groups"), [(9, 4), (16, 2), (14, 4), (24, 4)])
def test_many_tasks_and_groups_are_handled_by_a_table_or_by_a_short_search(n: int, groups: int) -> None:
    clear = measured(n=n, clusters=groups, noise=0.1)
    assert stability(clear, groups, resamples=40).share == 1.0
    assert stability(measured(n=n, clusters=groups, noise=3.0), groups, resamples=40).share < 0.7


def test_measurements_that_are_none_are_refused() -> None:
    with pytest.raises(JobError, match="expected arrays of one shape"):
        stability([], 2)
    with pytest.raises(JobError, match="expected arrays of one shape"):
        stability([[np.zeros((2, 2)), np.zeros((3, 3))]], 2)
    with pytest.raises(JobError, match="expected arrays of one shape"):
        stability([[np.zeros((2, 3))]], 2)
    with pytest.raises(JobError, match="no pair of tasks was measured"):
        stability([[np.full((3, 3), np.nan)]], 2)
    with pytest.raises(JobError, match="expected at least 2"):
        stability(measured(), 2, resamples=1)
    with pytest.raises(JobError, match="cannot split 6 tasks into 7 groups"):
        stability(measured(), 7)
