"""How long a round waits for its devices: a multiple of what those of its last rounds have taken. Pure."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from mas_edge.protocol.messages import PlanKind

# The longest wait of a device before it connects again is 30 s: a round must outlast one broken connection.
FLOOR_S = 30.0
# The slow tenth of the reports may be a phone that was put away: the factor is for such, not for the typical device.
QUANTILE = 0.9
# A network and its devices change slowly; five rounds smooth a single slow one, and forget a device that left.
ROUNDS = 5
# Of fewer reports a high quantile is the largest by chance.
MIN_REPORTS = 3


def deadline_s(observed: Sequence[float], factor: float, most: float, attempt: int) -> float:
    """Seconds until a round closes: ``factor`` times the 0.9 quantile of the ``observed`` report times.

    Not below FLOOR_S, doubled with every abandoned ``attempt``, and never above ``most``, which is also the answer
    where ``factor`` is 0 or fewer than MIN_REPORTS reports were observed.
    """
    if not factor or len(observed) < MIN_REPORTS:
        return most
    ordered = sorted(observed)
    high = ordered[math.ceil(QUANTILE * len(ordered)) - 1]
    return min(most, max(FLOOR_S, factor * high) * 2.0 ** min(attempt, 32))  # more would not fit into a float


class ReportTimes:
    """Seconds from the opening of a round to each accepted report, of the last rounds of each kind and network."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[PlanKind, str], deque[list[float]]] = defaultdict(lambda: deque(maxlen=ROUNDS))

    def note(self, kind: PlanKind, group: str, seconds: Iterable[float]) -> None:
        """A round closed; one in which nobody was timed says nothing."""
        if timed := list(seconds):
            self._rounds[kind, group].append(timed)

    def of(self, kind: PlanKind, group: str) -> list[float]:
        """What the next round of this kind and network may expect."""
        return [each for timed in self._rounds[kind, group] for each in timed]
