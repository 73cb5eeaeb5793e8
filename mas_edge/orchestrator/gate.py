"""Who may speak now: a bucket of tokens for each device, so that a loud one takes nothing from the others. No clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mas_edge.orchestrator.limits import Limits
from mas_edge.protocol.messages import Manifest

MENTION_S = 600.0  # seconds in which a loud device is mentioned once: as often as a person would look


@dataclass
class Bucket:
    """``most`` at once, ``rate`` a second; full at first."""

    most: float
    rate: float
    room: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self.room = self.most

    def take(self, amount: float, now: float) -> bool:
        """Take ``amount`` out if so much is in."""
        if self._at is not None:
            self.room = min(self.most, self.room + self.rate * max(0.0, now - self._at))
        self._at = now
        if amount > self.room:
            return False
        self.room -= amount
        return True


@dataclass
class _Visitor:
    messages: Bucket
    births: Bucket
    lines: Bucket
    mentioned: Bucket  # that it is too loud
    artifacts: dict[str, Bucket] = field(default_factory=dict)  # bytes of each that it may still be sent
    refused: Counter[str] = field(default_factory=Counter)  # reports, by round


class Gate:
    """Counts what each device takes. The words for the operator come back as text, one for each thing that begins."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._visitors: dict[str, _Visitor] = {}
        self._full = False

    def message(self, device: str, now: float) -> tuple[bool, str]:
        """Whether a control message of ``device`` is looked at; if not, a text when the operator is to know why."""
        visitor = self._visitor(device)
        if visitor is None:
            first, self._full = not self._full, True
            text = f"{device} is ignored: {self._limits.devices} devices are known, which is the limit (devices)"
            return False, text if first else ""
        if visitor.messages.take(1.0, now):
            return True, ""
        return False, _once(visitor, f"{device} says too much at once: what is more is ignored (messages_per_s)", now)

    def birth(self, device: str, now: float) -> tuple[bool, str]:
        """Whether a birth of ``device`` is written down; if not, a text when the operator is to know why."""
        visitor = self._visitor(device)
        if visitor is None:
            return False, ""
        if visitor.births.take(1.0, now):
            return True, ""
        return False, _once(visitor, f"{device} is born too often: it is ignored for a while (births_per_s)", now)

    def line(self, device: str, text: str, now: float) -> str:
        """What the log says about ``device`` instead of ``text``: itself, a last word for now, or nothing."""
        visitor = self._visitor(device)
        if visitor is None or not visitor.lines.take(1.0, now):
            return ""
        return text if visitor.lines.room >= 1.0 else f"{text} (what more is wrong with it is not logged for now)"

    def sends(self, device: str, manifest: Manifest, wanted: int, now: float) -> tuple[bool, str]:
        """Whether ``device`` is sent ``wanted`` more bytes of an artifact; if not, a text as above."""
        visitor = self._visitor(device)
        if visitor is None:
            return False, ""
        artifact, size = manifest.artifact, manifest.size + manifest.chunk_size  # the last chunk counts as a whole one
        if artifact not in visitor.artifacts:
            visitor.artifacts[artifact] = Bucket(self._limits.resends * size, size / self._limits.resend_s)
        if visitor.artifacts[artifact].take(wanted, now):
            return True, ""
        return False, _once(visitor, f"{device} wants {artifact[:12]} again and again: it has to wait (resends)", now)

    def refuse(self, device: str, round_id: str) -> None:
        """A report of ``device`` was refused."""
        visitor = self._visitor(device)
        if visitor is not None:
            visitor.refused[round_id] += 1

    def is_refused(self, device: str, round_id: str) -> bool:
        """Whether so many reports were refused that the next one is not looked at."""
        visitor = self._visitor(device)
        return visitor is None or visitor.refused[round_id] >= self._limits.refused_reports

    def keep(self, rounds: set[str]) -> None:
        """Forget what was counted for rounds that are over, and of artifacts for all: each round has its own."""
        for visitor in self._visitors.values():
            visitor.artifacts.clear()
            visitor.refused = Counter({r: count for r, count in visitor.refused.items() if r in rounds})

    def _visitor(self, device: str) -> _Visitor | None:
        if device not in self._visitors and len(self._visitors) < self._limits.devices:
            limits = self._limits
            self._visitors[device] = _Visitor(
                Bucket(limits.messages_at_once, limits.messages_per_s),
                Bucket(limits.births_at_once, limits.births_per_s),
                Bucket(limits.lines_at_once, limits.lines_per_minute / 60),
                Bucket(1.0, 1 / MENTION_S),
            )
        return self._visitors.get(device)


def _once(visitor: _Visitor, text: str, now: float) -> str:
    return text if visitor.mentioned.take(1.0, now) else ""
