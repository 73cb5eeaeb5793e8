"""The learning rate of each round: one schedule over all R rounds, through the split, unless a group has its own."""

from __future__ import annotations

from mas_edge.job import Optimizer


def learning_rate(optimizer: Optimizer, index: int, rounds: int) -> float:
    """The rate of round ``index`` of a schedule of ``rounds``: lr * (1 - r/R)**power, constant within a round.

    The released MAS code starts the schedule anew after the split; one continuous schedule is this kit's choice
    (docs/decisions/0003-continuous-learning-rate.md), the other is ``optimizer.after_split = "restart"``.
    """
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    return float(optimizer.learning_rate * (1 - index / rounds) ** optimizer.power)
