"""One round as a state machine without I/O: events and the time go in, what to send and the outcome come out.

A selected device is *told* (the plan is sent again until it answers), *working* (it acknowledged), and then *done*
(its report was accepted) or *out* (it refused, or it vanished and did not come back within the grace).
The round closes as soon as it has the reports it needs, or no one is told or working, and at the deadline at the
latest. With fewer reports than the minimum it is abandoned; the job goes on with another attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mas_edge.protocol.messages import PlanKind

# A plan is repeated because PUBACK is not delivery: a broker may drop what it acknowledged.
PLAN_REPEAT_S = 2.0
PLAN_REPEAT_MAX_S = 15.0
# A device whose last will fired often is back within a few seconds (Wi-Fi); after this the round stops waiting for it.
LOST_GRACE_S = 5.0

Stage = Literal["told", "working", "done", "out"]
Outcome = Literal["complete", "deadline", "abandoned"]


@dataclass
class _Participant:
    stage: Stage = "told"
    next_send: float = 0.0
    repeat: float = PLAN_REPEAT_S
    lost_at: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class RoundSpec:
    """What the round is: fixed when it opens, and stored, so that a restarted orchestrator goes on with the same."""

    round_id: str
    kind: PlanKind
    group: str
    index: int
    selected: tuple[str, ...]
    deadline_s: float
    min_reports: int
    supplies: dict[str, str] = field(default_factory=dict)  # of the selected devices: the program or model each gets
    goal: int = 0  # reports that are enough; 0: those of all selected devices
    late_count: bool = False  # reports of earlier rounds count for the goal and the minimum


@dataclass
class Round:
    """The machine."""

    spec: RoundSpec
    opened: float
    late: int = 0  # reports of earlier rounds that came
    _participants: dict[str, _Participant] = field(init=False)

    def __post_init__(self) -> None:
        self._participants = {name: _Participant(next_send=self.opened) for name in self.spec.selected}

    @property
    def reports(self) -> int:
        """How many reports were accepted; with those of earlier rounds, if they count."""
        return self._count("done") + (self.late if self.spec.late_count else 0)

    @property
    def enough(self) -> bool:
        """Whether the goal is reached."""
        return 0 < self.spec.goal <= self.reports

    @property
    def missing(self) -> int:
        """How many reports of the goal cannot come any more from those who are at it, and present."""
        present = sum(p.stage in ("told", "working") and p.lost_at is None for p in self._participants.values())
        return max(0, self.spec.goal - self.reports - present)

    def at_work(self) -> set[str]:
        """The devices that are told or working."""
        return {name for name, participant in self._participants.items() if participant.stage in ("told", "working")}

    def enlarge(self, supplies: Mapping[str, str], now: float) -> None:
        """Further devices take part, each with the program it gets: they are told at the next poll."""
        selected = (*self.spec.selected, *supplies)
        self.spec = replace(self.spec, selected=selected, supplies={**self.spec.supplies, **supplies})
        self._participants |= {name: _Participant(next_send=now) for name in supplies}

    @property
    def deadline(self) -> float:
        """When the round closes at the latest."""
        return self.opened + self.spec.deadline_s

    def stage_of(self, device: str) -> Stage | None:
        """Where a device stands, None if it was not selected."""
        participant = self._participants.get(device)
        return participant.stage if participant else None

    def stages(self) -> dict[str, Stage]:
        """Where every selected device stands."""
        return {name: participant.stage for name, participant in self._participants.items()}

    def reasons(self) -> dict[str, str]:
        """Why devices are out."""
        return {name: p.reason for name, p in self._participants.items() if p.stage == "out"}

    def on_ack(self, device: str) -> None:
        """The device has the plan."""
        self._move(device, "working", "")

    def on_refused(self, device: str, reason: str) -> None:
        """The device cannot, or its report was refused for good."""
        self._move(device, "out", reason)

    def on_accepted(self, device: str) -> None:
        """The device's report was accepted; this is final."""
        if device in self._participants:
            self._participants[device].stage = "done"

    def on_late(self) -> None:
        """A report of an earlier round was accepted."""
        self.late += 1

    def on_lost(self, device: str, now: float) -> None:
        """The device's last will arrived."""
        participant = self._participants.get(device)
        if participant and participant.stage in ("told", "working") and participant.lost_at is None:
            participant.lost_at = now

    def on_back(self, device: str, now: float) -> None:
        """The device is there (again): it is told once more, for it may have lost the plan with its memory."""
        participant = self._participants.get(device)
        if participant and (participant.stage in ("told", "working") or self._gave_up_on(participant)):
            participant.stage, participant.lost_at = "told", None
            participant.next_send, participant.repeat = now, PLAN_REPEAT_S

    def poll(self, now: float) -> list[str]:
        """The devices to send the plan to now."""
        due = []
        for name, participant in self._participants.items():
            if participant.lost_at is not None and now >= participant.lost_at + LOST_GRACE_S:
                self._move(name, "out", _VANISHED)
            elif participant.stage == "told" and participant.lost_at is None and now >= participant.next_send:
                due.append(name)
                participant.next_send = now + participant.repeat
                participant.repeat = min(2 * participant.repeat, PLAN_REPEAT_MAX_S)
        return due

    def outcome(self, now: float, awaited: int = 0) -> Outcome | None:
        """How the round ended, or None while it is open; ``awaited``: late reports that are still to come for it."""
        waiting = self._count("told") + self._count("working") + (awaited if self.spec.late_count else 0)
        if self.enough:
            return "complete"
        if waiting and now < self.deadline:
            return None
        if self.reports < min(self.spec.min_reports, self.spec.goal or len(self._participants)) or not self.reports:
            return "abandoned"
        return "deadline" if waiting else "complete"

    @property
    def next_poll(self) -> float:
        """When ``poll`` or ``outcome`` may have something new, if no event comes before."""
        times = [self.deadline]
        for participant in self._participants.values():
            if participant.lost_at is not None and participant.stage in ("told", "working"):
                times.append(participant.lost_at + LOST_GRACE_S)
            elif participant.stage == "told":
                times.append(participant.next_send)
        return min(times)

    def _gave_up_on(self, participant: _Participant) -> bool:
        return participant.stage == "out" and participant.reason == _VANISHED

    def _move(self, device: str, stage: Stage, reason: str) -> None:
        participant = self._participants.get(device)
        if participant and participant.stage in ("told", "working"):
            participant.stage, participant.lost_at, participant.reason = stage, None, reason

    def _count(self, stage: Stage) -> int:
        return sum(participant.stage == stage for participant in self._participants.values())


_VANISHED = "it vanished and did not come back"
