"""What operators have said and who belongs to the fleet, as the API shows it beside what the run itself says."""

from __future__ import annotations


class Staff:
    """Looked up in the library's thread."""

    @property
    def control(self) -> str:
        """What the operator has said last of the job."""
        return "running"

    @property
    def membership(self) -> dict[str, str]:
        """How devices stand in the fleet, by name; empty where no fleet is served."""
        return {}
