"""What the agent keeps in mind of its work: plans under way, artifacts that arrive, results that wait for a receipt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from device_runtime.edge.part_file import PartFile
from device_runtime.pending import Finished
from mas_edge.protocol.messages import Manifest, Plan
from mas_edge.protocol.transfer import Incoming, Outgoing

# A broker that is started again is back within seconds, and its queues with it. Then another way is tried, at first
# soon again, later rarely: whoever is asked may be down with the broker.
STALLED_S, STALLED_MAX_S = 20.0, 300.0


@dataclass
class Errand:
    """A plan on its way to its report."""

    number: int
    plan: Plan
    deadline: float
    began: float
    fetched: float = 0.0  # seconds from the plan until everything was there
    stage: Literal["fetch", "ready", "work"] = "fetch"
    received_bytes: int = 0


@dataclass
class Download:
    """An artifact on its way to the disk. ``pause``: between two attempts to get it on another way."""

    manifest: Manifest
    part: PartFile
    incoming: Incoming
    pause: float = field(default_factory=lambda: STALLED_S)
    not_before: float = -math.inf

    def stalled(self, now: float) -> tuple[int, ...]:
        """The chunks to be fetched on another way now, because none has come for long; mostly nothing."""
        if now < max(self.incoming.stalled_since + STALLED_S, self.not_before):
            return ()
        self.not_before, self.pause = now + self.pause, min(2 * self.pause, STALLED_MAX_S)
        return tuple(self.incoming.held.missing())


@dataclass
class Pending:
    """Finished work that the orchestrator has not spoken its last word on."""

    finished: Finished
    outgoing: Outgoing | None
    repeat: float  # seconds until it is offered once more
    next_send: float = 0.0
    sync_at: float = math.inf  # when it is to be safe from a power cut; infinity: it is


def named(plan: Plan) -> list[Manifest]:
    """Every artifact that carrying out a plan takes."""
    if plan.undo:
        return []  # what it names is what is to be left
    manifests = [plan.program]
    if plan.weights:
        manifests.append(plan.weights.manifest)
    if plan.health:
        manifests += [plan.health.golden]
        manifests += [plan.health.all_in_one.model, plan.health.all_in_one.golden] if plan.health.all_in_one else []
    return manifests
