"""One agent on a fake clock with a real store, and an orchestrator small enough to read that answers it."""

from __future__ import annotations

from collections import Counter, deque
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace

from device_runtime.agent import Agent
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.effects import Effect, Interrupt, Listen, SendChunks, Start, Tell
from device_runtime.pending import PendingOffers
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import decode_chunk, describe, encode_chunk, from_ranges
from mas_edge.protocol.messages import (
    AnyMessage,
    Birth,
    FromOrchestrator,
    Manifest,
    Offer,
    Plan,
    Receipt,
    Report,
    Training,
    Want,
    Weights,
)
from mas_edge.protocol.program import Program
from mas_edge.protocol.transfer import Incoming
from mas_edge.protocol.weights import ENCODER, Entry, Layout, derive, pack

MERGED = Layout([Entry("encoder.w", [40, 20], ENCODER), Entry("a.w", [30, 10], "a"), Entry("b.w", [20, 10], "b")])
GROUP = MERGED.of_parts({ENCODER, "a"})
UPDATE = np.random.default_rng(1).bytes(150_000)  # three chunks of the default size
REPORT = Report(samples={"a": 3}, losses={"a": 0.5})
ORCHESTRATOR: dict[str, Any] = {"sender": "orchestrator", "boot_id": "o", "seq": 1}

_M = TypeVar("_M", bound=AnyMessage)


def program_of(layout: Layout, group: str) -> bytes:
    tasks = sorted({entry.part for entry in layout.entries} - {ENCODER})
    program = Program(1, group, tasks, 4, [3], {}, layout, {})
    return program_format.dump(program)


MERGED_PROGRAM, GROUP_PROGRAM = program_of(MERGED, "merged"), program_of(GROUP, "group-0")
MERGED_WEIGHTS = pack(MERGED, np.random.default_rng(2).standard_normal(MERGED.size).astype(np.float32))
GROUP_WEIGHTS = derive(MERGED_WEIGHTS, GROUP)


def small(data: bytes) -> Manifest:
    """Described in many chunks."""
    return describe(data, 1024)


TRAINING = Training(
    learning_rate=0.1, momentum=0.9, weight_decay=0.0, local_epochs=1, seed=0, task_weights={}, affinity_period=0
)


def plan(round_id: str = "merged-0000", **changes: Any) -> Plan:
    """A plan to train the merged network."""
    fields: dict[str, Any] = {
        **ORCHESTRATOR, "job": "j-1", "round_id": round_id, "kind": "train", "group": "merged", "tasks": ["a", "b"],
        "deadline_s": 1000.0, "program": small(MERGED_PROGRAM), "training": TRAINING,
        "weights": Weights(manifest=small(MERGED_WEIGHTS)),
    }  # fmt: skip
    return Plan(**{**fields, **changes})


class OneDevice:
    """``losing[kind]`` messages of a kind get lost before one arrives; ``effects`` is all the agent ever did."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 0.0
        self.losing: Counter[str] = Counter()
        self.effects: list[Effect] = []
        self.holds = {small(data).artifact: data for data in (MERGED_PROGRAM, MERGED_WEIGHTS, GROUP_PROGRAM)}
        self.received: dict[str, Incoming] = {}
        self.working = True  # finish whatever is started, at once
        self._todo: deque[Effect] = deque()
        self.restart()

    # ------------------------------------------------------------------ the device

    def restart(self) -> None:
        """A new process on the same disk."""
        self._todo.clear()
        store = ArtifactStore(self.directory / "artifacts")
        pending = PendingOffers(self.directory / "pending")
        self.agent = Agent("pi-1", f"boot-{self.now}", _birth, store, pending)

    def connect(self) -> None:
        self.do(self.agent.on_connected(self.now))

    def receive(self, message: FromOrchestrator) -> None:
        if not self._lost(type(message).__name__):
            self.do(self.agent.on_message(message, self.now))

    def do(self, effects: list[Effect]) -> None:
        """Carry out what the agent asks for, and everything that follows from it at this moment."""
        self._todo.extend(effects)
        self.effects += effects
        while self._todo:
            effect = self._todo.popleft()
            match effect:
                case Tell(Want() as want) if not self._lost("want"):
                    self._send_chunks(want)
                case Tell(Offer() as offer) if not self._lost("offer"):
                    self._on_offer(offer)
                case SendChunks(manifest, indices):
                    self._on_upload(manifest, indices)
                case Start(number, started) if self.working:
                    update = UPDATE if started.kind == "train" else None
                    self.do(self.agent.on_finished(number, REPORT, update, self.now))

    def wait(self, seconds: float) -> None:
        """Let the time pass, waking the agent when it asked for it."""
        end = self.now + seconds
        while self.now < end:
            due = [self.agent.next_poll, *(incoming.next_poll for incoming in self.received.values())]
            self.now = min(max(min(due), self.now + 0.01), end)
            self.do(self.agent.poll(self.now))
            for artifact, incoming in list(self.received.items()):
                self._ask(artifact, incoming)

    # ------------------------------------------------------------------ what the device did

    def told(self, kind: type[_M]) -> list[_M]:
        return [e.message for e in self.effects if isinstance(e, Tell) and isinstance(e.message, kind)]

    def started(self) -> list[str]:
        return [effect.plan.round_id for effect in self.effects if isinstance(effect, Start)]

    def interrupted(self) -> list[int]:
        return [effect.number for effect in self.effects if isinstance(effect, Interrupt)]

    def asked_for(self, data: bytes) -> list[int]:
        """The chunks of ``data`` that were wanted, one by one."""
        manifest = small(data)
        wants = [want for want in self.told(Want) if want.artifact == manifest.artifact]
        return [index for want in wants for index in from_ranges(want.ranges, 10**6)]

    def listening(self) -> set[str]:
        topics: set[str] = set()
        for effect in self.effects:
            if isinstance(effect, Listen):
                (topics.add if effect.on else topics.discard)(effect.artifact)
        return topics

    # ------------------------------------------------------------------ the orchestrator

    def _send_chunks(self, want: Want) -> None:
        data = self.holds[want.artifact]
        manifest = replace(small(data), artifact=want.artifact)
        for index in from_ranges(want.ranges, 10**6):
            if not self._lost("chunk"):
                start = index * manifest.chunk_size
                frame = encode_chunk(manifest, index, data[start : start + manifest.chunk_size])
                self.do(self.agent.on_chunk(frame, self.now))

    def _on_offer(self, offer: Offer) -> None:
        if offer.manifest is None:
            self._receipt(offer)
            return
        incoming = self.received.setdefault(offer.manifest.artifact, Incoming(offer.manifest))
        if incoming.complete:
            self._receipt(offer)
        self._ask(offer.manifest.artifact, incoming)

    def _ask(self, artifact: str, incoming: Incoming) -> None:
        if ranges := incoming.poll(self.now):
            self.receive(Want(**ORCHESTRATOR, artifact=artifact, ranges=ranges))

    def _on_upload(self, manifest: Manifest, indices: tuple[int, ...]) -> None:
        incoming = self.received[manifest.artifact]
        for index in indices:
            frame = self.agent.store.read_frame(manifest, index)
            if not self._lost("upload") and not incoming.complete:
                incoming.on_chunk(decode_chunk(frame), self.now)
                self._ask(manifest.artifact, incoming)
        if incoming.complete:
            self._receipt(next(o for o in reversed(self.told(Offer)) if o.manifest == manifest))

    def _receipt(self, offer: Offer) -> None:
        self.receive(Receipt(**ORCHESTRATOR, job=offer.job, round_id=offer.round_id, verdict="accepted"))

    def _lost(self, kind: str) -> bool:
        if self.losing[kind] > 0:
            self.losing[kind] -= 1
            return True
        return False


def _birth(boot_id: str, seq: int) -> Birth:
    return Birth(
        sender="pi-1", boot_id=boot_id, seq=seq, runtime="0", python="3", machine="m", cores=1, memory_bytes=1,
        engine="torch", engines=["torch"], input_shape=[3], tasks={},
    )  # fmt: skip
