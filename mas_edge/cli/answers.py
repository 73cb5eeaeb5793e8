"""An order of the command line: whoever serves the run takes it, now or when it is started again."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from pathlib import Path

from mas_edge.cli.progress import if_slow
from mas_edge.orchestrator.served import is_served
from mas_edge.protocol.errors import ServerError

ANSWER_S = 10.0  # an orchestrator that works looks for orders twice a second
_LOOK_S = 0.1


def whoever_types() -> str:
    """How an order of the command line is signed."""
    try:
        return f"command line of {getpass.getuser()}"
    except (KeyError, OSError):  # a container may run as a number that has no name
        return f"command line of user {os.getuid()}"


def wait_for_answer(directory: Path, answer: Callable[[], str | None], *, quiet: bool) -> None:
    """Wait until an order is answered; not at all where nobody serves the run.

    Args:
        directory: that of the run, in which the order stands.
        answer: None until the order is taken, "" when it was obeyed, else why not.
        quiet: print nothing.

    Raises:
        ServerError: the order was refused, or not taken in time.
    """
    if not is_served(directory):
        if not quiet:
            print("noted; nobody serves this run now: it is done as soon as `mas-edge serve` is started again")
        return
    deadline = time.monotonic() + ANSWER_S
    with if_slow("waiting until the orchestrator takes the order"):
        while (found := answer()) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
    if found is None:
        message = f"the orchestrator has not taken the order within {ANSWER_S:g} s; it is noted: see its log"
        raise ServerError(message)
    if found:
        raise ServerError(found)
