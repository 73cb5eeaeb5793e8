"""What one message may hold at most: bounds that hold before anything is stored, summed or shown.

Every number here is far above what a device has to say and far below what would hurt whoever listens. How *often* a
device may speak, and how many devices there may be, is the orchestrator's to say (``mas_edge.orchestrator.limits``).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_WORD = 200  # characters of a version, a machine, an engine; the longest in use has 40
MAX_REASON = 500  # characters of a text for people: what fits on a screen, and a log of thousands of them on a disk
MAX_ERROR = 2000  # characters of an error: a path may have a thousand, and what was found is quoted in part
MAX_TASKS = 256  # of one device: four times what a job may have
MAX_ENGINES = 16  # four exist
MAX_AXES = 8  # of an input; five would do
MAX_COUNT = 2**53  # beyond this a float64 does not hold every whole number, and means would no longer be exact
MAX_SAMPLES = 2**40  # of one task on one device; a thousand devices together stay below MAX_COUNT
MAX_BATCH = 2**16  # sixteen times what a job may ask for

Word = Annotated[str, Meta(max_length=MAX_WORD)]
Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Samples = Annotated[int, Meta(ge=0, le=MAX_SAMPLES)]
BatchSize = Annotated[int, Meta(ge=0, le=MAX_BATCH)]


def one_line(text: str, most: int = MAX_REASON) -> str:
    """``text`` from elsewhere as one line of at most ``most`` characters, without blanks at its ends and in a row."""
    return printable(" ".join(printable(text, 2 * most).split()), most)


def printable(text: str, most: int) -> str:
    """``text`` of at most ``most`` characters that may stand in a log and on a terminal.

    Line ends and control characters would forge lines of a log or move a terminal's cursor: they become blanks.
    """
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    return shown if shown.isprintable() else "".join(letter if letter.isprintable() else " " for letter in shown)
