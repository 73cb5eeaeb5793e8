"""Where nothing measures: joules out of the processor's seconds, with the error that such a guess has.

joules = watts of a busy core x CPU seconds. What a busy core takes beside an idle one was measured at the plug for
few boards; for the rest a range is all that is known, and the estimate is its middle, with half its width as error. An
owner with a plug meter writes their own board's number into the policy file: ``[power] watts_per_core``, ``error``.
"""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """What a second of one busy core costs."""

    watts_per_core: float
    error: float  # relative: 0.3 is 30 % up or down
    basis: str

    @property
    def source(self) -> str:
        """For people and records."""
        return f"CPU seconds x {self.watts_per_core:.3g} W ({self.basis})"


# 6.4 W with four busy cores less 2.7 W idle, over four; plug meters differ by a third with the case and the supply
PI_4 = Estimate(0.93, 0.35, "Raspberry Pi 4")
# From 0.3 W (a small core of a Pi Zero 2 W) to 2.7 W (a large one of a phone at full clock)
ARM = Estimate(1.5, 0.8, "some ARM core")
# From 2 W (a core of a thin laptop under its limit) to 14 W (a desktop's single busy core at full clock)
X86 = Estimate(8.0, 0.75, "some x86 core")
# Neither: anything between the two
UNKNOWN = Estimate(7.2, 0.96, "some core")


def estimate_for(model: str, architecture: str) -> Estimate:
    """What is known of a board. ``model`` as its device tree names it, ``architecture`` as ``uname -m``."""
    if model.startswith("Raspberry Pi 4"):
        return PI_4
    if architecture.startswith(("arm", "aarch64")):
        return ARM
    return X86 if architecture in ("x86_64", "AMD64", "i686", "i386") else UNKNOWN
