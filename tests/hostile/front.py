"""The orchestrator's desk and reception with an open round, a real store, and an outbox that is a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import JobState
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.reception import Reception
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import chunk_span, describe, encode_chunk
from mas_edge.protocol.messages import AnyMessage, Birth, Offer, SampleCount, encode
from mas_edge.protocol.program import Program
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import pack
from tests.orchestrator.small_run import JOB, LAYOUT, group_state, numbers, offer, spec

TOPICS = Topics(JOB.fleet)
ROUND = "merged-0000"
PROGRAM = Program(
    format=1, group="merged", tasks=["a", "b"], batch_size=2, input_shape=[3], targets={}, layout=LAYOUT, methods={}
)
DEVICES = ("pi-1", "pi-2")


class Outbox:
    """What the orchestrator says, as it says it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, AnyMessage]] = []
        self.shipped: list[Shipment] = []

    def sender(self) -> dict[str, Any]:
        return {"sender": "orchestrator", "boot_id": "o", "seq": 1}

    def tell(self, device: str, message: AnyMessage) -> int:
        self.told.append((device, message))
        return len(encode(message))

    def ship(self, shipment: Shipment) -> None:
        self.shipped.append(shipment)


class Front:
    """One orchestrator on one directory."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self.store = Store(directory)
        self.artifacts = ArtifactStore(directory / "artifacts")
        self.program = self.artifacts.put(program_format.dump(PROGRAM))
        merged = group_state(
            programs={"torch": self.program, "onnxruntime": self.program},
            weights=self.artifacts.put(pack(LAYOUT, numbers())),
        )
        state = self.store.begin(JOB, JobState(run_id="j-1", phase="merge", merged=merged))
        if not self.store.has_rounds():
            self.store.open_round(spec(ROUND, *DEVICES), "merge")
        self.outbox = Outbox()
        self.desk = RoundsDesk(JOB, state, self.store, self.artifacts, self.outbox)
        self.reception = Reception(self.desk, self.store, self.artifacts, self.outbox, TOPICS, limits)
        self.desk.restore(0.0)

    def arrive(self, topic: str, payload: bytes, now: float = 0.0, *, retained: bool = False) -> None:
        self.reception.on_arrived(topic, payload, retained=retained, now=now)

    def be_born(self, device: str, now: float = 0.0) -> None:
        self.arrive(TOPICS.birth(device), encode(birth(device)), now)

    def upload(self, device: str, seed: int, now: float = 0.0) -> Offer:
        """An honest device's report, with all its pieces."""
        update = pack(LAYOUT, numbers(seed=seed))
        made = offer(device, manifest=describe(update, 1024))
        assert made.manifest is not None
        self.arrive(TOPICS.response(device), encode(made), now)
        frame = encode_chunk(made.manifest, 0, update[chunk_span(made.manifest, 0)])
        self.arrive(TOPICS.upload(device), frame, now)
        return made


def birth(device: str, **changes: Any) -> Birth:
    fields: dict[str, Any] = {
        "sender": device, "boot_id": "b", "seq": 1, "runtime": "0", "python": "3", "machine": "m", "cores": 1,
        "memory_bytes": 1, "engine": "torch", "engines": ["torch"], "input_shape": [3],
        "tasks": {task: SampleCount(train=5, test=5) for task in ("a", "b")},
    }  # fmt: skip
    return Birth(**{**fields, **changes})


@contextmanager
def front_in(directory: Path, limits: Limits | None = None) -> Iterator[Front]:
    front = Front(directory, limits)
    try:
        yield front
    finally:
        front.store.close()
