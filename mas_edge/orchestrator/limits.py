"""How much of the orchestrator one device, and a whole fleet, may take: numbers with their reasons.

A file of them is TOML with the keys of ``Limits``; a key that is not there has its default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mas_edge.protocol.errors import JobError
from mas_edge.protocol.toml import parse_toml

MAX_FILE_BYTES = 64 * 1024

Positive = Annotated[float, Meta(gt=0, le=1e9)]
AtLeastOne = Annotated[int, Meta(ge=1, le=10**9)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is taken in before a device is ignored for a while."""

    # Names that are remembered. Ten times what one broker was measured with; each costs some 2 KB of memory and disk.
    devices: AtLeastOne = 10_000
    # Control messages of one device. A pull over a fast link asks two hundred times a second; nothing else comes near.
    messages_per_s: Positive = 500.0
    messages_at_once: AtLeastOne = 2_000
    # Births of one device: each is a transaction that is synced to the disk. A new one comes with every connection, and
    # connections that end at once are made half a second apart, then ever more rarely.
    births_per_s: Positive = 0.2
    births_at_once: AtLeastOne = 20
    # How often its whole size a device may be sent of one artifact at once, and in which time it may have it again. One
    # is enough on a good link; a link that loses three chunks of four takes four.
    resends: AtLeastOne = 4
    resend_s: Positive = 30.0
    # Reports of one device that are refused in one round before the next ones are not looked at: each may be as large
    # as the network, and stays on the disk until the round is over.
    refused_reports: AtLeastOne = 5
    # Rounds in which nothing but refused reports came of a device, while others' were accepted, until it is left out:
    # one may be a bad card or a restart at a bad moment. Then for a day: time for somebody to look at it.
    quarantine_rounds: AtLeastOne = 3
    quarantine_s: Positive = 86_400.0
    # Lines of the log about one device; whoever makes more is mentioned once.
    lines_per_minute: Positive = 6.0
    lines_at_once: AtLeastOne = 20


def load_limits(path: Path) -> Limits:
    """Read a file of limits.

    Raises:
        JobError: it cannot be read, or a key is unknown, of a wrong type or out of range.
    """
    try:
        with path.open("rb") as file:
            tree = parse_toml(file.read(MAX_FILE_BYTES).decode("utf-8"))
        return msgspec.convert(tree, Limits)
    except OSError as error:
        message = f"limits {path}: cannot be read: {error.strerror}; expected a TOML file"
    except (ValueError, msgspec.ValidationError) as error:
        message = f"limits {path}: {error}; allowed there: {', '.join(Limits.__struct_fields__)}"
    raise JobError(message)
