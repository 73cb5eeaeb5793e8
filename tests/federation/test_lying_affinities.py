"""Devices that lie about affinities: a minority does not flip the split, where a mean lets one of them do it.

The truth is a matrix that was measured and published (tests.mas.matrices); each honest device sees it with noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mas_edge.federation.measurements import Average, mean_affinity
from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.split import best_split
from tests.mas.matrices import COSINE, TAG

Matrix = NDArray[np.float64]
DEVICES, LIARS = 20, 6  # 30 %
NOISE = 0.1  # of a device, to each true number
LIES: dict[str, Callable[[Matrix], Matrix]] = {
    "the opposite": lambda true: -true,
    "the opposite, a hundred times": lambda true: -100 * true,
    "huge numbers": lambda true: np.where(np.indices(true.shape).sum(axis=0) % 2, 1e30, -1e30),
    "that nothing helps anything": np.zeros_like,
}
SEEDS = range(5)


def groups(tasks: tuple[str, ...], measured: list[Matrix], average: Average) -> set[frozenset[str]]:
    matrix = AffinityMatrix(tasks, mean_affinity(measured, average=average).matrix)
    return {frozenset(group) for group in best_split(matrix, 2).groups}


def honest(true: Matrix, seed: int) -> list[Matrix]:
    rng = np.random.default_rng(seed)
    return [true * (1 + NOISE * rng.standard_normal(true.shape)) for _ in range(DEVICES)]


@pytest.mark.parametrize("truth", [TAG, COSINE], ids=["TAG", "COSINE"])
@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_median_keeps_the_split_with_three_liars_of_ten(truth: AffinityMatrix, lie: str, seed: int) -> None:
    measured = honest(truth.values, seed)
    right = groups(truth.tasks, measured, "mean")
    measured[:LIARS] = [LIES[lie](truth.values)] * LIARS
    assert groups(truth.tasks, measured, "median") == right


@pytest.mark.parametrize("truth", [TAG, COSINE], ids=["TAG", "COSINE"])
@pytest.mark.parametrize("average", ["median", "trimmed"])
@pytest.mark.parametrize("lie", LIES)
def test_one_liar_of_five_is_left_out_by_both(truth: AffinityMatrix, average: Average, lie: str) -> None:
    measured = honest(truth.values, 0)
    right = groups(truth.tasks, measured, "mean")
    measured[: DEVICES // 5] = [LIES[lie](truth.values)] * (DEVICES // 5)
    assert groups(truth.tasks, measured, average) == right


@pytest.mark.parametrize("truth", [TAG, COSINE], ids=["TAG", "COSINE"])
def test_a_mean_is_decided_by_one(truth: AffinityMatrix) -> None:
    measured = honest(truth.values, 0)
    right = groups(truth.tasks, measured, "mean")
    measured[0] = LIES["the opposite, a hundred times"](truth.values)
    assert groups(truth.tasks, measured, "mean") != right
