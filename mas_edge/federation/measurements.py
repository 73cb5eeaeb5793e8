"""Averaging what devices measure: affinities over the devices of a round, and over rounds. Pure functions on arrays.

K devices, n tasks; a matrix is [n, n], row = source, column = recipient. A pair that a device did not measure is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Counts = NDArray[np.int64]
Average = Literal["mean", "median", "trimmed"]


class RoundAffinity(NamedTuple):
    """The affinity of one round."""

    matrix: Matrix  # 0 where no device, or fewer than the quorum, measured the pair
    devices: Counts  # that stand behind each pair; 0 where they are fewer than the quorum


class MeanAffinity(NamedTuple):
    """The affinity over several rounds."""

    matrix: Matrix  # the mean over the rounds that count; 0 where there is none
    devices: Counts  # device-rounds that stand behind each pair
    rounds: Counts  # that measured each pair
    spread: Matrix  # standard error of the mean over rounds; NaN where fewer than two rounds measured the pair


def mean_affinity(
    measured: Sequence[Matrix],
    *,
    weights: Sequence[float] | None = None,
    quorum: int = 1,
    average: Average = "mean",
) -> RoundAffinity:
    """The average over devices of their affinities, pair by pair, over those that measured the pair.

    ``mean`` without weights is S_ij = (1/K) sum_k S^k_ij (MAS, ICCV 2023). ``weights`` [K] is what each device counts
    for, such as its samples; one that counts for 0 has not measured. ``trimmed`` leaves out the lowest and the highest
    quarter of the devices (rounded down, but of three the two outer ones) before the mean. ``median`` is the middle
    device's number, or the mean of the two middle ones, and looks at no weights: one device that counts for more than
    all others together would be the median. The last two stay within the range of the other devices' numbers whatever
    one device sends, if three or more measured the pair.

    Expects at least one matrix. A pair measured by fewer than ``quorum`` devices counts as not measured.
    """
    stacked = np.stack(measured)
    share = np.ones(len(stacked)) if weights is None else np.asarray(weights, np.float64)
    seen = np.isfinite(stacked) & (share > 0)[:, None, None]
    order = np.argsort(np.where(seen, stacked, np.inf), axis=0, kind="stable")  # what was not seen comes last
    ranked = np.take_along_axis(stacked, order, axis=0)
    count = seen.sum(axis=0)
    cut, rank = _cut(count, average), np.arange(len(stacked))[:, None, None]
    kept = (rank >= cut) & (rank < count - cut)
    counted = np.where(kept, share[order] if average != "median" else 1.0, 0.0)
    total = np.where(kept, ranked, 0.0) * counted
    enough = count >= max(quorum, 1)
    mean = total.sum(axis=0) / np.where(enough, counted.sum(axis=0), 1.0)
    return RoundAffinity(np.where(enough, mean, 0.0), np.where(enough, count, 0))


def _cut(count: Counts, average: Average) -> Counts:
    """How many of ``count`` devices are left out at either end."""
    match average:
        case "mean":
            return np.zeros_like(count)
        case "median":
            return np.maximum(count - 1, 0) // 2
        case "trimmed":
            return np.where(count == 3, 1, count // 4)


def affinity_over_rounds(rounds: Sequence[RoundAffinity | tuple[Matrix, Counts]]) -> MeanAffinity:
    """The uniform mean over rounds of their affinities; a round in which nobody measured a pair is left out of it.

    Averaging over rounds is what makes the split stable, because a single round's affinity is noisy: ``spread`` says
    how noisy the mean still is, s / sqrt(R) with s the sample standard deviation over the R rounds.
    """
    matrices, devices = np.stack([matrix for matrix, _ in rounds]), np.stack([devices for _, devices in rounds])
    seen = devices > 0
    count = seen.sum(axis=0)
    mean = matrices.sum(axis=0, where=seen) / np.maximum(count, 1)
    off = np.where(seen, matrices, mean) - mean
    error = np.sqrt((off * off).sum(axis=0) / (np.maximum(count - 1, 1) * np.maximum(count, 1)))
    return MeanAffinity(mean, devices.sum(axis=0), count, np.where(count >= 2, error, np.nan))
