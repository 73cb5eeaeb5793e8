"""How long a fault may cost, out of what is configured; what is measured is held beside it.

A delay between two attempts to connect is between half of its length and the whole, and doubles at each that fails.
"""

from __future__ import annotations

from device_runtime.edge.backoff import FIRST_DELAY_S, LAST_DELAY_S
from mas_edge.orchestrator.broker import supervisor

# What a machine that does other things at the same time takes to start a broker, or to connect and be answered; one
# that is idle takes 0.1 s.
ANSWER_S = 1.0


def after_absence(away_s: float) -> float:
    """The longest until a client is connected whose broker was away for so long."""
    failed = 0
    while FIRST_DELAY_S / 2 * (2.0 ** (failed + 1) - 1) < away_s:
        failed += 1
    return away_s + min(FIRST_DELAY_S * 2.0**failed, LAST_DELAY_S) + ANSWER_S


def after_broker(deaths: int) -> float:
    """The longest until a client is connected whose broker died for the ``deaths``-th time in a minute."""
    return after_absence(min(supervisor.FIRST_DELAY_S * 2.0 ** (deaths - 1), supervisor.LAST_DELAY_S))


def after_cut(delay_s: float) -> float:
    """The longest until a client is connected that was cut off; ``delay_s``: the longest that it waits before."""
    return delay_s + ANSWER_S


def after_start(start_s: float) -> float:
    """The longest until a process is heard that was started again, and whose start took ``start_s`` undisturbed.

    It costs one re-connect interval at most, also if its first attempt fails.
    """
    return start_s + FIRST_DELAY_S + ANSWER_S
