"""One job on virtual devices: the orchestrator's desk, reception, steps and store, with a loop of its own.

Everything that decides, counts or computes is what a real fleet runs: the flow and the rounds, selection, aggregation,
plans, the exported programs and the device's session. Only what lies between is not there: no broker, no chunks on the
way, no clock that could run out. The bytes of a round are those that the same distribution would have sent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation import flow
from mas_edge.federation.flow import JobState, Local, RoundWork
from mas_edge.job import Job, check
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.orchestrator.reception import Reception
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.steps import Steps
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import HEADER_BYTES, chunk_count
from mas_edge.protocol.errors import DeviceError, EdgeError, ServerError
from mas_edge.protocol.messages import AnyMessage, Birth, FromDevice, Manifest, Offer, Plan, encode
from mas_edge.protocol.topics import Topics
from mas_edge.simulation.fleet import VirtualDevice, device_folders, virtual_fleet

SENDER = "orchestrator"
PATIENCE_S = 60.0  # longer than a broadcast waits for the wants of all devices
Progress = Callable[[JobState], None]
Tamper = Callable[[Plan, FromDevice, ArtifactStore], FromDevice]  # what becomes of a device's answer to a plan


def honest(_: Plan, answer: FromDevice, __: ArtifactStore) -> FromDevice:
    """What a device says arrives as it is."""
    return answer


class Simulation:
    """A job on the data folders below ``data``, its state in ``state``; a second one there goes on with it.

    ``tamper``: what malicious devices say instead of what they trained (``mas_edge.simulation.poison``).

    Raises:
        JobError: the job is wrong, or ``state`` holds a run of other settings.
        DataError: a data folder cannot be opened.
        ServerError: ``state`` cannot be used.
    """

    def __init__(
        self, job: Job, data: Path, state: Path, engine: str = "torch", tamper: Tamper = honest
    ) -> None:  # fmt: skip
        check(job)
        self._tamper = tamper
        folders = device_folders(data)
        self._topics = Topics(job.fleet)
        self._store = Store(state)
        try:
            self._begin(job, folders, state, engine)
        except EdgeError:
            self._store.close()
            raise

    def _begin(self, job: Job, folders: Sequence[Path], state: Path, engine: str) -> None:
        self._artifacts = ArtifactStore(state / "artifacts")
        begun = self._store.begin(job, JobState(run_id=f"{job.name}-{uuid.uuid4().hex[:8]}"))
        self._outbox = _Outbox(self._topics)
        self._desk = RoundsDesk(_without_spares(job), begun, self._store, self._artifacts, self._outbox)
        self._reception = Reception(self._desk, self._store, self._artifacts, self._outbox, self._topics)
        self._steps = Steps(job, self._artifacts, state)
        self._fleet = virtual_fleet(folders, self._artifacts, engine)
        self._held: dict[str, set[str]] = {name: set() for name in self._fleet}

    def run(self, progress: Progress = lambda _: None) -> JobState:
        """Train and evaluate; ends before models would be exported and deployed.

        Raises:
            JobError, ServerError: the job cannot go on; its state stays as it was.
        """
        try:
            for device in self._fleet.values():
                self._arrive(device.birth())
            self._desk.restore(time.monotonic())
            if self._desk.state.phase == "prepare":
                progress(self._desk.state)  # it takes the longest of all steps at first
            while self._desk.state.phase not in ("export", "deploy", "done"):
                self._step()
                progress(self._desk.state)
        except DeviceError as error:  # this machine's disk: the artifact store is the devices' own
            raise ServerError(str(error)) from None
        finally:
            self._reception.close()
            self._store.close()
        return self._desk.state

    def _step(self) -> None:
        self._reception.judge(time.monotonic())
        due = flow.due(self._desk.state)
        if isinstance(due[0], Local):
            state, split = self._steps.take(due[0], self._desk.state, self._store.records())
            self._store.save(state, split)
            self._desk.move(state)
            return
        rounds, failed = [work for work in due if isinstance(work, RoundWork)], self._desk.state.attempts
        self._desk.open(rounds, self._reception.registry, time.monotonic())
        self._require_devices()
        self._desk.poll(time.monotonic())  # tells the devices
        told = self._outbox.take()
        self._fetch(told)
        for device, plan in told:
            self._work(device, plan)
        self._desk.fill(self._reception.registry, time.monotonic())  # finds others for those who refused
        self._desk.poll(time.monotonic())  # closes the rounds
        self._require_reports(failed)

    def _require_devices(self) -> None:
        """Raise ServerError if no round could open: nobody will come who is not here."""
        if not self._desk.active:
            desk = self._desk
            reasons = {desk.supply.why_not(device.birth(), desk.networks) for device in self._fleet.values()}
            least = f"{len(self._fleet)} are there, federation.min_devices is {desk.job.federation.min_devices}"
            message = f"the virtual devices cannot serve this job: {'; '.join(sorted(reasons - {''})) or least}"
            raise ServerError(message)

    def _require_reports(self, before: Mapping[str, int]) -> None:
        """Raise ServerError if a round was abandoned: the same devices would fail again in the same way.

        ``before``: the attempts that had failed when this step began, in a run that was gone on with since.
        """
        if self._desk.state.attempts != before:
            last = self._store.records()[-1]
            message = f"round {last.round_id} failed: {'; '.join(sorted(set(last.refused.values())))}"
            raise ServerError(message)

    def _fetch(self, told: Sequence[tuple[str, Plan]]) -> None:
        """Count what the devices would ask for: programs and weights, but what they hold or can derive."""
        now = time.monotonic()
        for device, plan in told:
            held = self._held[device]
            derived = plan.weights is not None and plan.weights.derive_from in held
            for manifest in [plan.program, *([plan.weights.manifest] if plan.weights else [])]:
                there = manifest.artifact in held or (derived and manifest != plan.program)
                ranges = [] if there else [(0, chunk_count(manifest))]
                for shipment in self._desk.distribution.on_want(device, manifest.artifact, ranges, True, now):
                    self._count(shipment)
                held.add(manifest.artifact)
        for shipment in self._desk.distribution.poll(now + PATIENCE_S):
            self._count(shipment)

    def _count(self, shipment: Shipment) -> None:
        topic = self._topics.chunk(shipment.receiver) if shipment.receiver else self._topics.broadcast("0" * 64)
        self._desk.active[shipment.round_id].traffic.add_sent(
            shipment.kind, _frames(shipment.manifest, len(shipment.indices), len(topic))
        )

    def _work(self, name: str, plan: Plan) -> None:
        """One device's work on one plan; what it has to say arrives as from a broker."""
        device: VirtualDevice = self._fleet[name]
        answer = self._tamper(plan, device.carry_out(plan), self._artifacts)
        active = self._desk.active.get(plan.round_id)
        if isinstance(answer, Offer) and answer.manifest and active:
            chunks = chunk_count(answer.manifest)
            self._held[name].add(answer.manifest.artifact)
            active.traffic.received_update += _frames(answer.manifest, chunks, len(self._topics.upload(name)))
        self._arrive(answer)

    def _arrive(self, message: Any) -> None:
        name = message.sender
        topic = self._topics.birth(name) if isinstance(message, Birth) else self._topics.response(name)
        self._reception.on_arrived(topic, encode(message), retained=False, now=time.monotonic())


def _without_spares(job: Job) -> Job:
    """The job as its rounds are drawn here: nobody vanishes or is late, so that spare devices would only cost work."""
    plain = replace(
        job.federation,
        over_selection=1.0,
        deadline_factor=0.0,
        late_updates="refuse",
        mode="synchronous",
        concurrency=0,
    )
    return replace(job, federation=plain)


class _Outbox:
    """Takes the orchestrator's words in; of all of them virtual devices only need the plans."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._plans: list[tuple[str, Plan]] = []
        self._seq = 0

    def sender(self) -> dict[str, Any]:
        self._seq += 1
        return {"sender": SENDER, "boot_id": "simulated", "seq": self._seq}

    def tell(self, device: str, message: AnyMessage) -> int:
        if isinstance(message, Plan):
            self._plans.append((device, message))
        return len(encode(message)) + len(self._topics.command(device))

    def ship(self, shipment: Shipment) -> None:
        """Nothing travels: virtual devices read the orchestrator's artifacts."""

    def take(self) -> list[tuple[str, Plan]]:
        plans, self._plans = self._plans, []
        return plans


def _frames(manifest: Manifest, chunks: int, topic_bytes: int) -> int:
    """The bytes of that many chunks, with their headers and topics; all of them are the whole artifact."""
    whole = chunk_count(manifest)
    return round(manifest.size * chunks / max(whole, 1)) + chunks * (HEADER_BYTES + topic_bytes)
