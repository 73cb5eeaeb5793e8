"""How the carrying out of a plan ends: with an outcome, or because it was stopped."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mas_edge.protocol.messages import Board, Report


@dataclass(frozen=True)
class Outcome:
    """What a plan led to: a report and, after training, the safetensors bytes of what this device sends."""

    report: Report
    update: bytes | None = None

    def seen_on(self, board: Board | None) -> Outcome:
        """The same with battery and heat in its report."""
        return Outcome(msgspec.structs.replace(self.report, board=board), self.update)


class Stopped(Exception):  # noqa: N818 - not an error: the round was cancelled or the process is to end
    """The work was interrupted between two steps."""
