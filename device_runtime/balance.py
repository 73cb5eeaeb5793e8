"""GradNorm on the device: task weights that bring the tasks' gradients to a common length (Chen et al. 2018).

arXiv 1711.02257, as released with MAS: gradient norms at the encoder's output z, and weights that are nudged by a fixed
share per step in place of the paper's gradient descent on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.protocol.messages import Balance, Training

Numbers = NDArray[np.float64]


class TaskWeights:
    """The task weights of one plan: those it begins with, or what GradNorm makes of them step by step."""

    def __init__(self, tasks: Sequence[str], training: Training) -> None:
        self._tasks, self._balance = tasks, training.balance
        self._now = np.array([training.task_weights.get(task, 1.0) for task in tasks], np.float64)
        given = training.balance.initial_losses if training.balance else {}
        self._first = np.array([given.get(task, np.nan) for task in tasks], np.float64)

    @property
    def vector(self) -> NDArray[np.float32]:
        """What the next step takes, shape (n,)."""
        return self._now.astype(np.float32)

    def move(self, results: Mapping[str, NDArray[Any]]) -> None:
        """Go on from one step's ``losses`` and ``norms`` [n]; does nothing where the plan does not balance."""
        if self._balance is None:
            return
        losses, norms = results["losses"].astype(np.float64), results["norms"].astype(np.float64)
        # A loss of 0 says that the batch held no label of the task: its first loss is yet to come.
        self._first = np.where(np.isnan(self._first) & (losses > 0), losses, self._first)
        self._now = rebalanced(self._now, norms, losses, self._first, self._balance)

    def state(self) -> tuple[list[float], list[float]]:
        """The weights now, and the losses that progress is measured from (NaN where there was none yet)."""
        return self._now.tolist(), self._first.tolist()

    def restore(self, now: list[float], first: list[float]) -> None:
        """Go on from an earlier ``state``."""
        self._now, self._first = np.array(now, np.float64), np.array(first, np.float64)

    def moved(self) -> dict[str, float]:
        """The weights by task for the report; empty where the plan does not balance."""
        return dict(zip(self._tasks, self._now.tolist(), strict=True)) if self._balance else {}


def rebalanced(weights: Numbers, norms: Numbers, losses: Numbers, first: Numbers, balance: Balance) -> Numbers:
    """The task weights [n] after one step, of sum n; ``first`` = L_i(0), NaN where there was none yet.

    G_i = w_i * |dL_i/dz|; r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0)); a weight is multiplied by 1 + rate if G_i is
    below mean(G) * r_i**alpha, else by 1 - rate. This, and the means, are over tasks whose L_i and L_i(0) are above 0;
    any other keeps its weight, but for the common factor that keeps the sum at n.
    """
    known = (losses > 0) & (first > 0)  # a NaN compares as false
    moved = weights.copy()
    if known.any():
        lengths, progress = weights[known] * norms[known], losses[known] / first[known]
        target = lengths.mean() * (progress / progress.mean()) ** balance.alpha
        moved[known] *= np.where(lengths < target, 1 + balance.rate, 1 - balance.rate)
    total = float(moved.sum())
    return moved * (len(moved) / total) if total > 0 else weights
