"""How many groups pay: the gain that chance does not explain, for what the job then costs.

For every number of groups N, with the best split into exactly N:

- gain(N) = value - value of all in one, in the unit of the affinities;
- cost(N) = (1 - share) + share * (sum of the groups' costs) / (cost of the merged network), the job's cost against that
  of staying merged, when the groups train for ``share`` of the rounds. Each group beyond the first pays for one more
  encoder;
- noise(N) = sigma sqrt(2 ln M): what the best of the M = S(n, N) splits is expected to gain at most if all of them are
  worth the same and the affinities differ by errors only (the bound on the maximum of M normal variables). sigma is
  the standard error of the gain, a linear form in the affinities, from theirs taken as independent.

The choice is the N with the largest (gain - noise) / cost, the fewest groups of equals; where no gain exceeds its noise
it is N = 1. Why: docs/decisions/0015-how-many-groups-pay.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.controls import stirling
from mas_edge.mas.limits import Costs, GroupLimit
from mas_edge.mas.split import Split, best_split, splits_by_number, value_of
from mas_edge.mas.subsets import Floats
from mas_edge.protocol.errors import JobError

ROUNDING = 1e-12  # of the largest affinity: a larger number of groups has to be better by more


@dataclass(frozen=True)
class Candidate:
    """One number of groups: the best split into it, what that gains and costs (see the module), and whether it won."""

    groups: int
    split: Split
    gain: float
    noise: float
    cost: float
    chosen: bool = False

    @property
    def score(self) -> float:
        """The gain beyond noise for the job's relative cost; all in one has 0."""
        return (self.gain - self.noise) / self.cost if self.groups > 1 else 0.0


@dataclass(frozen=True)
class Choice:
    """The split that was chosen, all candidates in the order of their number of groups, and one line that says why."""

    split: Split
    candidates: tuple[Candidate, ...]
    reason: str


def choose_split(
    matrix: AffinityMatrix,
    costs: Costs,
    share: float,
    errors: Floats | None = None,
    limits: Sequence[GroupLimit] = (),
    seed: int = 0,
) -> Choice:
    """Return the split into as many groups as pay.

    Args:
        matrix: the affinities.
        costs: of a group in training, in any unit, such as multiply-accumulates.
        share: of the job's rounds after the split, from 0 to 1.
        errors: the standard error of each affinity, shape (n, n); None: they are taken as exact.
        limits: what every group has to keep; numbers of groups with which none fit are left out.
        seed: of the search, where it is not exact.

    Raises:
        JobError: the share or the errors cannot be, a task has no cost, or the search refuses the tasks.
    """
    _check(matrix, share, errors)
    rows = [
        _candidate(matrix, split, costs, share, errors) for split in splits_by_number(matrix, limits, seed)
    ]  # fmt: skip
    rounding = ROUNDING * float(np.abs(matrix.off_diagonal).max())
    winner = next(row for row in rows if row.score >= max(row.score for row in rows) - rounding)
    split = best_split(matrix, winner.groups, limits=limits, seed=seed)  # once more, for its bound
    if split.value < winner.split.value:
        split = Split(winner.split.value, winner.split.groups, split.bound)
    chosen = replace(_candidate(matrix, split, costs, share, errors), chosen=True)
    marked = tuple(chosen if row is winner else row for row in rows)
    return Choice(split, marked, _reason(marked, errors is not None))


def gain_error(matrix: AffinityMatrix, groups: Sequence[Sequence[str]], errors: Floats) -> float:
    """Return the standard error of a split's gain over all in one, from those of the affinities, shape (n, n)."""
    n = len(matrix.tasks)
    if n == 1:
        return 0.0
    weights = np.full((n, n), -1 / (n * (n - 1)))  # of each affinity in the gain: minus that in all in one
    for group in groups:
        at = [matrix.tasks.index(task) for task in group]
        if len(at) == 1:
            weights[at, :] += 1 / (2 * n * (n - 1))
            weights[:, at] += 1 / (2 * n * (n - 1))
        else:
            weights[np.ix_(at, at)] += 1 / (n * (len(at) - 1))
    np.fill_diagonal(weights, 0.0)
    return float(np.linalg.norm(weights * errors))


def _candidate(matrix: AffinityMatrix, split: Split, costs: Costs, share: float, errors: Floats | None) -> Candidate:
    n, count, merged = len(matrix.tasks), len(split.groups), costs.of(matrix.tasks)
    if count == 1:
        return Candidate(1, split, 0.0, 0.0, 1.0)
    gain = split.value - value_of(matrix, [matrix.tasks])
    sigma = gain_error(matrix, split.groups, errors) if errors is not None else 0.0
    noise = sigma * math.sqrt(2 * math.log(stirling(n, count)))
    apart = sum(costs.of(group) for group in split.groups) / merged if merged > 0 else 1.0
    return Candidate(count, split, gain, noise, 1 - share + share * apart)


def _reason(rows: Sequence[Candidate], measured: bool) -> str:
    winner = next(row for row in rows if row.chosen)
    beyond = "beyond noise " if measured else ""
    if winner.groups == 1:
        return f"no split gains anything {beyond}over all in one: stay with 1 group"
    if winner.score <= 0:
        return (
            f"no split gains anything {beyond}over all in one; {winner.groups} groups are the best that fit the limits"
        )
    text = (
        f"{winner.groups} groups gain {winner.gain - winner.noise:+.4g} {beyond}over all in one "
        f"at {winner.cost:.2f} times its cost: {winner.score:.4g} for each time, the most of all"
    )
    larger = [row for row in rows if row.groups > winner.groups]
    if not larger:
        return text
    second = max(larger, key=lambda row: row.score)
    return f"{text}; {second.groups} groups gain {second.gain - second.noise:+.4g} at {second.cost:.2f} times"


def _check(matrix: AffinityMatrix, share: float, errors: Floats | None) -> None:
    n = len(matrix.tasks)
    if not 0 <= share <= 1:
        message = f"share of the rounds after the split is {share}: expected a number from 0 to 1"
        raise JobError(message)
    if errors is not None and (errors.shape != (n, n) or not (errors[~np.eye(n, dtype=bool)] >= 0).all()):
        message = f"standard errors of the affinities: expected {n} x {n} numbers of at least 0"
        raise JobError(message)
