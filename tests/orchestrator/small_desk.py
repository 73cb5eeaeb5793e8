"""An orchestrator without a broker: desk, reception, store and artifacts on disk; what it says is kept for the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation import flow
from mas_edge.federation.flow import JobState, RoundWork
from mas_edge.job import Job
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.orchestrator.reception import Reception
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol import program as program_format
from mas_edge.protocol.messages import (
    Ack,
    AnyMessage,
    Birth,
    Cancel,
    Manifest,
    Plan,
    Receipt,
    Refusal,
    SampleCount,
    Status,
    encode,
)
from mas_edge.protocol.program import Program
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import pack
from tests.orchestrator.small_run import JOB, LAYOUT, REPORT, group_state, numbers, offer, thing

PROGRAM = Program(
    format=1, group="merged", tasks=["a", "b"], batch_size=2, input_shape=[3], targets={}, layout=LAYOUT, methods={}
)
_M = TypeVar("_M", bound=AnyMessage)


def programs_in(artifacts: ArtifactStore) -> dict[str, Manifest]:
    return {"torch": artifacts.put(program_format.dump(PROGRAM)), "onnxruntime": thing("onnx")}


def a_job(**federation: Any) -> Job:
    """The small job with other settings of its rounds."""
    return replace(JOB, federation=replace(JOB.federation, **federation))


def birth(device: str, boot_id: str = "b", **changes: Any) -> Birth:
    """What a device of the small job says of itself."""
    tasks = {task: SampleCount(train=count, test=1) for task, count in REPORT.samples.items()}
    fields: dict[str, Any] = {
        "runtime": "0", "python": "3.11", "machine": "aarch64", "cores": 4, "memory_bytes": 1, "engine": "torch",
        "engines": ["torch"], "input_shape": [3], "tasks": tasks,
    }  # fmt: skip
    return Birth(sender=device, boot_id=boot_id, seq=1, **{**fields, **changes})


class Outbox:
    """Keeps what the orchestrator says and ships."""

    def __init__(self) -> None:
        self.said: list[tuple[str, AnyMessage]] = []
        self.shipped: list[Shipment] = []

    def sender(self) -> dict[str, Any]:
        return {"sender": "orchestrator", "boot_id": "o", "seq": 1}

    def tell(self, device: str, message: AnyMessage) -> int:
        self.said.append((device, message))
        return 1

    def ship(self, shipment: Shipment) -> None:
        self.shipped.append(shipment)


class SmallDesk:
    """An orchestrator in ``directory``; ``now`` is the test's to move. What it said is kept over a restart."""

    def __init__(self, directory: Path, job: Job = JOB, group: Mapping[str, Any] | None = None) -> None:
        self.outbox = Outbox()
        self.now = 0.0
        self._directory, self._job, self._group = directory, job, group or {}
        self._topics = Topics("f")
        self._begin()

    def _begin(self) -> None:
        directory, job = self._directory, self._job
        self.store = Store(directory)
        self.artifacts = ArtifactStore(directory / "artifacts")
        first = self.artifacts.put(pack(LAYOUT, numbers()))
        merged = group_state(programs=programs_in(self.artifacts), weights=first, **self._group)
        state = self.store.begin(job, JobState(run_id="j-1", phase="merge", merged=merged))
        self.desk = RoundsDesk(job, state, self.store, self.artifacts, self.outbox)
        self.reception = Reception(self.desk, self.store, self.artifacts, self.outbox, self._topics)
        self.desk.restore(self.now)

    def close(self) -> None:
        self.store.close()

    def restart(self) -> None:
        """The orchestrator is killed, and another takes up its work."""
        self.close()
        self._begin()

    # ------------------------------------------------------------------ the orchestrator's loop

    def turn(self, wait: float = 0.0) -> None:
        """One turn of the loop, ``wait`` seconds later."""
        self.now += wait
        due = [work for work in flow.due(self.desk.state) if isinstance(work, RoundWork)]
        self.desk.open(due, self.reception.registry, self.now)
        self.reception.poll(self.now)
        self.desk.fill(self.reception.registry, self.now)
        self.desk.poll(self.now)

    def round(self, round_id: str = "merged-0000") -> ActiveRound:
        return self.desk.active[round_id]

    def records(self) -> dict[str, RoundRecord]:
        return {record.round_id: record for record in self.store.records()}

    def weights(self, artifact: str) -> NDArray[np.float32]:
        """The numbers of an artifact of the small network."""
        data = self.artifacts.read(artifact)
        return np.frombuffer(data[-4 * LAYOUT.size :], "<f4").copy()

    def said_to(self, device: str, kind: type[_M]) -> list[_M]:
        """What was said to a device, of one kind, in order."""
        return [message for name, message in self.outbox.said if name == device and isinstance(message, kind)]

    def told(self, round_id: str = "merged-0000") -> set[str]:
        """The devices that got the plan of a round."""
        return {
            name for name, message in self.outbox.said if isinstance(message, Plan) and message.round_id == round_id
        }

    def cancelled(self, round_id: str = "merged-0000") -> set[str]:
        """The devices that were told to stop."""
        return {n for n, message in self.outbox.said if isinstance(message, Cancel) and message.round_id == round_id}

    def verdicts(self, device: str) -> list[str]:
        """Of the receipts that a device got."""
        return [receipt.verdict for receipt in self.said_to(device, Receipt)]

    # ------------------------------------------------------------------ the devices

    def arrive(self, *devices: str, boot_id: str = "b", **changes: Any) -> None:
        """Devices come to life."""
        for device in devices:
            self.reception.on_arrived(
                self._topics.birth(device), encode(birth(device, boot_id, **changes)), retained=False, now=self.now
            )

    def leave(self, device: str, boot_id: str = "b") -> None:
        """A device's last will arrives."""
        self._hear(self._topics.status(device), Status(sender=device, boot_id=boot_id, seq=0, online=False))

    def ack(self, device: str, round_id: str = "merged-0000") -> None:
        self._say(Ack(sender=device, boot_id="b", seq=1, job="j-1", round_id=round_id))

    def refuse(self, device: str, round_id: str = "merged-0000") -> None:
        self._say(Refusal(sender=device, boot_id="b", seq=1, job="j-1", round_id=round_id, reason="not today"))

    def report(self, device: str, round_id: str = "merged-0000", update: NDArray[np.float32] | None = None) -> None:
        """A device offers its finished work; its update is there at once."""
        manifest = self.artifacts.put(pack(LAYOUT, numbers() if update is None else update))
        self._say(offer(device, round_id, manifest=manifest))

    def offer(self, device: str, round_id: str, manifest: Manifest) -> None:
        """A device offers an update that is still to be fetched."""
        self._say(offer(device, round_id, manifest=manifest))

    def _say(self, message: AnyMessage) -> None:
        self._hear(self._topics.response(message.sender), message)

    def _hear(self, topic: str, message: AnyMessage) -> None:
        self.reception.on_arrived(topic, encode(message), retained=False, now=self.now)
