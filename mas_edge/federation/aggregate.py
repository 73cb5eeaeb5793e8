"""Folding updates into one accumulator as they arrive: memory does not grow with the number of devices.

FedAvg by sample count, per part: theta_part = sum_k n_k,part * theta_k,part / sum_k n_k,part. For a head, n_k is device
k's labelled samples of that task, so that a device without labels does not count; for the encoder it is the largest of
them, which is the device's sample count when every sample has at least one label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.weights import ENCODER, Layout, Vector, part_weights, sent_layout


class Accumulator:
    """The running weighted sum of one round's updates, in float64."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places = layout.slices()
        self._sum = np.zeros(layout.size, np.float64)
        self._weight: dict[str, int] = {}
        self.count = 0

    def fold(self, update: Vector, samples: Mapping[str, int]) -> None:
        """Add one update: the flat vector of ``sent_layout(layout, samples)``.

        Raises:
            WeightsError: the vector has another length, or the device counts for nothing.
        """
        sent, weights = sent_layout(self._layout, samples), part_weights(samples)
        if update.shape != (sent.size,) or weights[ENCODER] <= 0:
            message = f"update of shape {update.shape} with samples {dict(samples)}: expected {sent.size} numbers"
            raise WeightsError(message)
        for entry, source in zip(sent.entries, sent.slices().values(), strict=True):
            # One part at a time in float64: no second copy of the whole model.
            self._sum[self._places[entry.name]] += update[source].astype(np.float64) * weights[entry.part]
        for part, weight in weights.items():
            self._weight[part] = self._weight.get(part, 0) + weight
        self.count += 1

    def mean(self, previous: Vector) -> Vector:
        """The weighted mean, shape (layout.size,); parts nobody reported keep their ``previous`` numbers."""
        result = previous.astype(np.float32).copy()
        for entry in self._layout.entries:
            weight = self._weight.get(entry.part, 0)
            if weight:
                place = self._places[entry.name]
                result[place] = (self._sum[place] / weight).astype(np.float32)
        return result


def mean_affinity(
    measured: Sequence[NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The uniform mean over devices of their n x n affinities, and how many devices stand behind each pair.

    Source: S_ij = (1/K) sum_k S^k_ij (MAS, ICCV 2023). A NaN says that a device did not measure a pair, and does not
    count; a pair that nobody measured is 0. Expects at least one matrix.
    """
    stacked = np.stack(measured)
    seen = np.isfinite(stacked)
    count = seen.sum(axis=0)
    return np.where(seen, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), count


def affinity_over_rounds(
    rounds: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The uniform mean over rounds of their mean affinities; a round in which nobody measured a pair is left out.

    Takes and returns (matrix n x n, devices behind each pair n x n); averaging over rounds is what makes the split
    stable, because a single round's affinity is noisy.
    """
    measured = np.stack([devices > 0 for _, devices in rounds])
    total = np.stack([matrix for matrix, _ in rounds]).sum(axis=0, where=measured)
    devices = np.stack([devices for _, devices in rounds]).sum(axis=0)
    return total / np.maximum(measured.sum(axis=0), 1), devices


def weighted_losses(reports: Sequence[tuple[Mapping[str, float], Mapping[str, int]]]) -> dict[str, float]:
    """The mean over devices of per-task numbers, by labelled samples of that task."""
    total: dict[str, float] = {}
    weight: dict[str, int] = {}
    for values, samples in reports:
        for task, value in values.items():
            if samples.get(task, 0) > 0:
                total[task] = total.get(task, 0.0) + value * samples[task]
                weight[task] = weight.get(task, 0) + samples[task]
    return {task: total[task] / weight[task] for task in total}
