"""What the agent's machine asks its process to do."""

from __future__ import annotations

from dataclasses import dataclass

from mas_edge.protocol.messages import AnyMessage, Manifest, Plan


@dataclass(frozen=True)
class Tell:
    """Publish a message; ``after_chunks``: on the bulk connection, so that it follows the chunks sent before."""

    message: AnyMessage
    after_chunks: bool = False


@dataclass(frozen=True)
class Listen:
    """Subscribe to (or leave) the broadcast topic of an artifact."""

    artifact: str
    on: bool


@dataclass(frozen=True)
class SendChunks:
    """Send these chunks of an artifact in the store."""

    manifest: Manifest
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """Carry out this plan in the background and call ``on_finished`` or ``on_failed`` with its number.

    The number names this one piece of work: rounds of two runs, or of a run taken up again, may have the same name.
    """

    number: int
    plan: Plan


@dataclass(frozen=True)
class Interrupt:
    """Stop the work of this number: nobody waits for it any more."""

    number: int


@dataclass(frozen=True)
class Fetch:
    """Get these chunks of an artifact on another way than the broker's; ``metadata``: the newest signing metadata."""

    manifest: Manifest
    indices: tuple[int, ...]
    metadata: bool = False


Effect = Tell | Listen | SendChunks | Start | Interrupt | Fetch
