"""The gate: whether plans may be taken and trainings go on. No clock and no files: both are passed in."""

from __future__ import annotations

import threading
from collections.abc import Collection

from device_runtime.policy.rules import BEFORE_ONLY, OF_DEPLOYMENT, Broken, Conditions, Rules, broken
from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import PlanKind

# How often a paused training asks again, and an interruption of it is noticed.
ASK_AGAIN_S = 0.5


class GivenUp(DeviceError):  # noqa: N818 - no fault of anybody: the owner wants the device back
    """A training that was begun ends: the owner's rules do not hold any more."""


class Gate:
    """What the rules say, as of the last ``see``. One thread sees, others ask."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._broken: list[Broken] = []
        self._paused: float | None = None
        self._told: frozenset[str] = frozenset()

    def see(self, now: Conditions) -> None:
        """Judge the device as it is now."""
        with self._lock:
            self._broken = broken(self._rules, now, [each.rule for each in self._broken])

    def why_not(self, kind: PlanKind) -> str:
        """Why a plan of this kind is not taken; empty if it is."""
        return self._text(OF_DEPLOYMENT if kind == "deploy" else None)

    def reasons(self) -> list[str]:
        """Every rule that does not hold, in words."""
        with self._lock:
            return [each.text for each in self._broken]

    def news(self) -> bool:
        """Whether other rules are broken than when this was asked last; a number that moved is no news."""
        with self._lock:
            told, self._told = self._told, frozenset(each.rule for each in self._broken)
            return told != self._told

    def between_batches(self, kind: PlanKind, now: float) -> float:
        """How long to wait before this is asked again; 0 = go on. ``now`` in monotonic seconds.

        Raises:
            GivenUp: the rules did not hold for ``pause_s`` seconds, or will not hold again today.
        """
        with self._lock:
            stopping = self._matter(OF_DEPLOYMENT if kind == "deploy" else None, without=BEFORE_ONLY)
            if not stopping:
                self._paused = None
                return 0.0
            if self._paused is None:
                self._paused = now
            waited = now - self._paused
            if any(each.lasting for each in stopping) or waited >= self._rules.pause_s:
                self._paused = None
                after = f"after a pause of {waited:.0f} s" if waited >= 1 else "in the middle of the work"
                message = f"given up {after}: {_joined(stopping)}"
                raise GivenUp(message)
            return ASK_AGAIN_S

    def begin(self) -> None:
        """New work: it has not waited yet."""
        with self._lock:
            self._paused = None

    def _text(self, only: Collection[str] | None) -> str:
        with self._lock:
            found = self._matter(only)
        return _joined(found) if found else ""

    def _matter(self, only: Collection[str] | None, without: Collection[str] = ()) -> list[Broken]:
        return [each for each in self._broken if (only is None or each.rule in only) and each.rule not in without]


def _joined(found: list[Broken]) -> str:
    return "its owner's rules: " + "; ".join(each.text for each in found)
