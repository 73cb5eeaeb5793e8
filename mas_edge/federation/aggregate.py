"""Folding updates into one accumulator as they arrive: memory does not grow with the number of devices.

FedAvg by sample count, per part: theta_part = sum_k n_k,part * theta_k,part / sum_k n_k,part. For a head, n_k is device
k's labelled samples of that task, so that a device without labels does not count; for the encoder it is the largest of
them, which is the device's sample count when every sample has at least one label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Report
from mas_edge.protocol.weights import Layout, Numbers, Vector, part_weights, sent_layout

PIECE = 128 * 1024  # numbers that are computed at a time: 1 MiB in float64, which a server's second cache holds


class Accumulator:
    """The running weighted sum of one round's updates, in float64."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._places = layout.slices()
        self._sum = np.zeros(layout.size, np.float64)
        self._weight: dict[str, float] = {}  # whole numbers unless late updates were folded
        self.count = 0

    def fold(self, update: Numbers, samples: Mapping[str, int]) -> None:
        """Add one update: the flat vector of ``sent_layout(layout, samples)``.

        Raises:
            WeightsError: the vector has another length, or the device counts for nothing.
        """
        self._fold(update, samples, None, 1.0, 1.0)

    def fold_late(
        self, update: Numbers, samples: Mapping[str, int], base: Numbers, now: Numbers, scale: float,
        shrink: float = 1.0,
    ) -> None:  # fmt: skip
        """Add an update that began from the weights ``base``, as if it had begun from those of ``now``.

        Both have the shape (layout.size,). It is moved to now + shrink * (update - base), and counts ``scale`` times as
        much as its samples say (``mas_edge.federation.late``); ``shrink``: see ``mas_edge.federation.robust``.

        Raises:
            WeightsError: as ``fold``.
        """
        self._fold(update, samples, (base, now), scale, shrink)

    def _fold(
        self, update: Numbers, samples: Mapping[str, int], moved: tuple[Numbers, Numbers] | None, scale: float,
        shrink: float,
    ) -> None:  # fmt: skip
        sent, weights = check_update(self._layout, update, samples), part_weights(samples)
        for entry, source in zip(sent.entries, sent.slices().values(), strict=True):
            place, weight = self._places[entry.name], weights[entry.part] * scale
            for start in range(0, entry.size, PIECE):  # a piece at a time in float64: no second copy of anything
                stop = min(start + PIECE, entry.size)
                there = slice(place.start + start, place.start + stop)
                part = update[source.start + start : source.start + stop].astype(np.float64)
                if moved is not None:
                    base, now = moved
                    if shrink == 1.0:  # in this order, so that what did not move is added to the bit
                        part += now[there]
                        part -= base[there]
                    else:
                        part -= base[there]
                        part *= shrink
                        part += now[there]
                part *= weight
                self._sum[there] += part
        for name, weight in weights.items():
            self._weight[name] = self._weight.get(name, 0) + weight * scale
        self.count += 1

    def mean(self, previous: Vector) -> Vector:
        """The weighted mean, shape (layout.size,); parts nobody reported keep their ``previous`` numbers."""
        return np.concatenate([np.empty(0, np.float32), *self.means(previous)])

    def means(self, previous: Vector) -> Iterator[Vector]:
        """The weighted mean in pieces, one after the other: for a model that is to be in memory once, not twice."""
        for entry in self._layout.entries:
            place, weight = self._places[entry.name], self._weight.get(entry.part, 0)
            for start in range(place.start, place.stop, PIECE):
                there = slice(start, min(start + PIECE, place.stop))
                yield (self._sum[there] / weight if weight else previous[there]).astype(np.float32)


def check_update(layout: Layout, update: Numbers, samples: Mapping[str, int]) -> Layout:
    """The layout that a device with these samples sends.

    Raises:
        WeightsError: the vector has another length, or the device counts for nothing.
    """
    sent = sent_layout(layout, samples)
    if update.shape != (sent.size,) or max(part_weights(samples).values(), default=0) <= 0:
        message = f"update of shape {update.shape} with samples {dict(samples)}: expected {sent.size} numbers"
        raise WeightsError(message)
    return sent


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


def mean_task_weights(reports: Iterable[Report]) -> dict[str, float]:
    """What GradNorm on the devices has made of the task weights: their mean by labelled samples of the task, of sum n.

    A task that no device with labels reported is absent; n are the others.
    """
    means = weighted_losses([(report.task_weights, report.samples) for report in reports])
    total = sum(means.values())
    return {task: mean * len(means) / total for task, mean in means.items()} if total > 0 else {}
