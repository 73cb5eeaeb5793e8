"""How the carrying out of a plan ends: with an outcome, or because it was stopped."""

from __future__ import annotations

from dataclasses import dataclass

from mas_edge.protocol.messages import Report


@dataclass(frozen=True)
class Outcome:
    """What a plan led to: a report and, after training, the safetensors bytes of what this device sends."""

    report: Report
    update: bytes | None = None


class Stopped(Exception):  # noqa: N818 - not an error: the round was cancelled or the process is to end
    """The work was interrupted between two steps."""
