"""Where a run lies, and how its job stands beside its phase: held up by an operator, or served by nobody."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mas_edge.federation.control import Mode
from mas_edge.federation.flow import OVER
from mas_edge.orchestrator.orders import told
from mas_edge.orchestrator.served import is_served

_HELD_UP: dict[Mode, str] = {
    "held": "held: it waits for its start (mas-edge job RUN start)",
    "paused": "paused: no round is opened before it is resumed (mas-edge job RUN resume)",
}
UNSERVED = "nobody serves this run; devices are shown as they were at last (mas-edge serve goes on with it)"


def state_of(directory: Path) -> Path:
    """The state directory that ``directory`` is, or holds: also the ``--out`` of a demo is a run to people."""
    return directory / "state" if (directory / "state" / "state.db").is_file() else directory


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What operators have said last, and whether an orchestrator works on it."""

    control: Mode
    served: bool

    def remarks(self, phase: str) -> dict[str, str]:
        """What a person has to know beside the phase, by what it is about; nothing of a job that runs, or is over."""
        if phase in OVER:
            return {}
        found = {"job": _HELD_UP.get(self.control, ""), "server": "" if self.served else UNSERVED}
        return {about: remark for about, remark in found.items() if remark}

    def words(self, phase: str) -> str:
        """The phase and how it stands, for a cell of a table."""
        if phase in OVER:
            return phase
        held_up = [self.control] if self.control in _HELD_UP else []
        return ", ".join([phase.replace("_", " "), *held_up, "served" if self.served else "stopped"])


def standing_of(state: Path) -> Standing:
    """How the job in the directory ``state`` stands now.

    Raises:
        ServerError: ``orders.db`` cannot be used.
    """
    return Standing(control=told(state) or "running", served=is_served(state))
