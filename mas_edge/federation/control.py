"""What an operator may say about a job, as a table without I/O.

running <-> paused        paused: no round is opened, those that are open end
held -> running           held: it waits for its first word (``mas-edge serve --hold``)
any of them -> aborted    the run ends; what it has is kept
"""

from __future__ import annotations

from typing import Literal

from mas_edge.protocol.errors import ServerError

Mode = Literal["running", "held", "paused", "aborted"]
JobVerb = Literal["start", "pause", "resume", "abort"]

_ALLOWED: dict[JobVerb, tuple[tuple[Mode, ...], Mode]] = {
    "start": (("held",), "running"),
    "pause": (("running",), "paused"),
    "resume": (("paused",), "running"),
    "abort": (("running", "held", "paused"), "aborted"),
}


def obeyed(mode: Mode, verb: JobVerb) -> Mode:
    """The mode after an operator's word.

    Raises:
        ServerError: it makes no sense in this mode.
    """
    before, after = _ALLOWED[verb]
    if mode not in before:
        said = {"held": "waits for its start"}.get(mode, f"is {mode}")
        message = f"the job {said}: it cannot {verb}; it takes now: {', '.join(verbs(mode)) or 'nothing'}"
        raise ServerError(message)
    return after


def verbs(mode: Mode) -> list[JobVerb]:
    """The words that a job takes in this mode."""
    return [verb for verb, (before, _) in _ALLOWED.items() if mode in before]
