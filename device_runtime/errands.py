"""What the agent keeps in mind of its work: plans under way, artifacts that arrive, results that wait for a receipt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from device_runtime.edge.part_file import PartFile
from device_runtime.pending import Finished
from mas_edge.protocol.messages import Manifest, Plan
from mas_edge.protocol.transfer import Incoming, Outgoing


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
    """An artifact on its way to the disk."""

    manifest: Manifest
    part: PartFile
    incoming: Incoming


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
