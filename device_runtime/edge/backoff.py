"""How long to wait before the next connection. No clock and no I/O: what happened goes in, seconds come out."""

from __future__ import annotations

import random

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 30.0
# Two devices with one name throw each other out at every connect. They must not do so at full speed, for ever.
TAKEOVER_DELAY_S, LAST_TAKEOVER_DELAY_S = 15.0, 300.0
STABLE_S = 10.0  # a connection that lasted this long starts the back-off afresh
SUSPICIOUS = 3  # so many connections in a row that did not last: somebody else uses our name


class Backoff:
    """Counts failures in a row; the delay doubles with each."""

    def __init__(self) -> None:
        self._failures = 0
        self._short_lived = 0
        self._takeovers = 0

    def lost(self, lasted_s: float, *, explained: bool) -> bool:
        """Take note of a connection that ended after ``lasted_s`` seconds; without a reason if not ``explained``.

        Returns:
            Whether this happens so often that somebody else seems to use our name.
        """
        if lasted_s > STABLE_S:
            self._failures = self._short_lived = 0
        elif not explained:
            self._short_lived += 1
        suspicious = not explained and self._short_lived >= SUSPICIOUS
        if suspicious:
            self.taken_over()
        return suspicious

    def taken_over(self) -> None:
        """Take note that the broker gave our session to another client."""
        self._takeovers += 1

    def next_delay_s(self) -> float:
        """Seconds until the next attempt, with jitter: a thousand devices must not come back at the same moment."""
        delay = _doubled(FIRST_DELAY_S, self._failures, LAST_DELAY_S)
        if self._takeovers:
            delay = max(delay, _doubled(TAKEOVER_DELAY_S, self._takeovers - 1, LAST_TAKEOVER_DELAY_S))
        self._failures += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


def _doubled(first: float, times: int, last: float) -> float:
    return min(last, first * 2.0 ** min(times, 16))
