"""How long to wait before the next connection. No clock and no I/O: what happened goes in, seconds come out.

Three things keep us from connecting again at once, and each has a count of its own:

* nobody was reached: the broker is away;
* connections end soon after they began: a bad network, or another client that uses our name and is thrown out by us as
  we are by it. The two look the same until it has happened often: so the delay doubles from the shortest on, and a cut
  after a calm time costs no more than one short delay;
* the broker said that it gave our session to another client: that is no accident.
"""

from __future__ import annotations

import random

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 30.0
# Two devices with one name throw each other out at every connect. They must not do so at full speed, for ever.
TAKEOVER_DELAY_S, LAST_TAKEOVER_DELAY_S = 15.0, 300.0
STABLE_S = 10.0  # a connection that lasted this long was a good one
# ... if it also lasted so many times our own delay: a rival, who is at most one doubling ahead of us, was back by then.
RIVAL = 3.0
# So many connections in a row that did not last, without a reason: somebody else uses our name. A network that is cut
# by accident so often in a row, in spite of the growing delays, is hardly there.
SUSPICIOUS = 5


class Backoff:
    """Counts what went wrong in a row; the delay doubles with each."""

    def __init__(self) -> None:
        self._unreached = 0
        self._short_lived = 0
        self._unexplained = 0  # of the short-lived
        self._takeovers = 0
        self._just_taken_over = False

    def lost(self, lasted_s: float, *, explained: bool) -> bool:
        """Take note of a connection that ended after ``lasted_s`` seconds; without a reason if not ``explained``.

        Returns:
            Whether this happens so often that somebody else seems to use our name.
        """
        self._unreached = 0
        if lasted_s > max(STABLE_S, RIVAL * self.longest_s):
            self._short_lived = self._unexplained = self._takeovers = 0
        if lasted_s <= STABLE_S or self._short_lived:
            self._short_lived += 1
            self._unexplained += not explained
        self._takeovers += self._just_taken_over
        self._just_taken_over = False
        return not explained and self._unexplained >= SUSPICIOUS

    def taken_over(self) -> None:
        """Take note that the broker gave our session to another client; ``lost`` follows."""
        self._just_taken_over = True

    def next_delay_s(self) -> float:
        """Seconds until the next attempt, with jitter: a thousand devices must not come back at the same moment."""
        delay = self.longest_s
        self._unreached += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret

    @property
    def longest_s(self) -> float:
        """The longest that the next delay may be."""
        away = _doubled(FIRST_DELAY_S, self._unreached, LAST_DELAY_S)
        cut = _doubled(FIRST_DELAY_S, max(0, self._short_lived - 1), LAST_TAKEOVER_DELAY_S)
        rival = _doubled(TAKEOVER_DELAY_S, self._takeovers - 1, LAST_TAKEOVER_DELAY_S) if self._takeovers else 0.0
        return max(away, cut, rival)


def _doubled(first: float, times: int, last: float) -> float:
    return min(last, first * 2.0 ** min(times, 16))
