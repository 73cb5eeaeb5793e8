"""The machines of a schedule: a real orchestrator and real agents on a disk of their own, which may die anywhere.

Only what lies between and below them is not real: ``schedules`` owns the network, the clocks and the dice, and
``schedule_disk`` the disks. A node dies by the exception ``Crash``, which is raised wherever something is about to
become durable or to be said, or has just become so; what is in memory is then dropped, and a new object is made on the
same disk. The time that a machine is given begins with each of its lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from msgspec.structs import replace

from device_runtime.agent import Agent
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.part_file import PartFile
from device_runtime.effects import Effect, Interrupt, Listen, SendChunks, Start, Tell
from device_runtime.pending import Finished, PendingOffers
from mas_edge.federation import flow
from mas_edge.federation.flow import GroupState, JobState, Local, RoundWork
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.orchestrator.filing import Work
from mas_edge.orchestrator.reception import Reception
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import EdgeError, ProtocolError
from mas_edge.protocol.messages import (
    AnyMessage,
    Birth,
    Manifest,
    Plan,
    Rebirth,
    Report,
    SampleCount,
    Status,
    decode_from_orchestrator,
    encode,
)
from mas_edge.protocol.program import Program
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import ENCODER, Entry, Layout, derive, gather, pack, sent_layout, unpack
from tests.faults.schedule_disk import Home

CHUNK = 1024  # the smallest there is: an artifact of three chunks is three kilobytes
TASKS = ("a", "b")
LAYOUT = Layout([Entry("encoder.w", [300], ENCODER), Entry("a.w", [200], "a"), Entry("b.w", [100], "b")])
RUN, FLEET = "j-1", "f"
TOPICS = Topics(FLEET)
SERVER = "orchestrator"
TICK_S = 2.0  # the orchestrator's loop looks at its job at least this often; the real one does every half second


class Crash(BaseException):
    """The process is killed here."""


class World(Protocol):
    """What a node sees of the schedule."""

    now: float

    def may_die(self, node: str, where: str) -> None:
        """Raise Crash if the dice say so."""
        ...

    def publish(self, key: str, topic: str, payload: bytes, *, retain: bool = False, chunk: bool = False) -> None:
        """Hand a message to the broker."""
        ...

    def work(self, device: str, number: int, plan: Plan) -> None:
        """Let a device's background thread begin."""
        ...

    def made(self, data: bytes) -> None:
        """The orchestrator made an artifact: kept for the rules, whatever becomes of it on the disk."""
        ...

    def listen(self, device: str, topic: str, on: bool) -> None:
        """Subscribe to a broadcast topic, or leave it."""
        ...

    def file(self, work: Work) -> None:
        """Let the orchestrator's clerk do this, some time after all that it was handed before."""
        ...

    def filed(self) -> None:
        """The clerk has something for the orchestrator's loop, which hears of it in its turn."""
        ...


def job(federation: Federation) -> Job:
    """A job of two tasks."""
    tasks = [Task(name=task, kind="value") for task in TASKS]
    return Job(name="j", fleet=FLEET, data=Data(input_shape=[3]), tasks=tasks, federation=federation)


# ---------------------------------------------------------------------- what is durable


class FragileArtifacts(ArtifactStore):
    """Small chunks, and a process that may die before and after everything that becomes durable."""

    def __init__(
        self, directory: Path, die: Callable[[str], None], made: Callable[[bytes], None] = lambda _: None
    ) -> None:
        super().__init__(directory)
        self._die, self._made = die, made

    def put(self, data: bytes, chunk_size: int | None = None, **how: bool) -> Manifest:
        self._made(data)
        self._die("before an artifact is put")
        manifest = super().put(data, CHUNK if chunk_size is None else chunk_size, **how)
        self._die("after an artifact is put")
        return manifest

    def put_pieces(self, pieces: Iterable[Buffer], chunk_size: int | None = None) -> Manifest:
        data = b"".join(pieces)
        self._made(data)
        self._die("before an artifact is put")
        manifest = super().put_pieces([data], CHUNK if chunk_size is None else chunk_size)
        self._die("after an artifact is put")
        return manifest

    def partial(self, manifest: Manifest) -> PartFile:
        self._die("before a part is made")
        return super().partial(manifest)


class FragileOffers(PendingOffers):
    def __init__(self, directory: Path, die: Callable[[str], None]) -> None:
        super().__init__(directory)
        self._die = die

    def add(self, finished: Finished) -> None:
        self._die("before an offer is written down")
        super().add(finished)
        self._die("after an offer is written down")

    def remove(self, round_id: str) -> None:
        self._die("before an offer is forgotten")
        super().remove(round_id)
        self._die("after an offer is forgotten")


class FragileStore(Store):
    """The real store; its database is one in memory where the disk is simulated, and outlives the process there."""

    def __init__(self, home: Home, die: Callable[[str], None]) -> None:
        self._die, self._outlives = die, home.database is not None
        if home.database is None:
            super().__init__(home.directory)
        else:
            self.directory, self._db = home.directory, home.database

    def close(self) -> None:
        if not self._outlives:
            super().close()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        self._die("before a transaction")
        with super()._transaction() as db:
            yield db
            self._die("within a transaction")
        self._die("after a transaction")


# ---------------------------------------------------------------------- training


def trained(weights: bytes, layout: Layout, device: str, round_id: str, tasks: list[str]) -> bytes:
    """What a device makes of a round's weights: the same at every attempt, and another for each device and round."""
    held = {task: count for task, count in samples_of(device).items() if task in tasks}
    sent = sent_layout(layout, held)
    return pack(sent, (0.5 * gather(sent, unpack(weights)) + moved(device, round_id)).astype(np.float32))


def moved(device: str, round_id: str) -> np.float32:
    return np.float32(sum(device.encode()) % 13 + sum(round_id.encode()) % 7 / 8)


def samples_of(device: str) -> dict[str, int]:
    """Every third device holds labels of one task only."""
    number = int(device.rpartition("-")[2])
    held = {0: ("a", "b"), 1: ("a", "b"), 2: ("a",) if number % 2 else ("b",)}[number % 3]
    return dict.fromkeys(held, 3 + number)


# ---------------------------------------------------------------------- the orchestrator


class SlowClerk:
    """The clerk's thread, which the schedule lets go on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def hand(self, work: Work) -> None:
        """As ``mas_edge.orchestrator.filing.Clerk.hand``."""
        self._world.file(work)


class Server:
    """The loop of ``mas_edge.orchestrator.service`` on the schedule's clock; steps that need torch are pure here."""

    def __init__(self, home: Home, made: Job, world: World, life: int) -> None:
        self._world, self._life, self._seq, self._born = world, life, 0, world.now
        self._look = False  # something has come since the last look at the job
        self.store = FragileStore(home, self._die)
        try:
            self.artifacts = FragileArtifacts(home.artifacts, self._die, world.made)
            state = self.store.begin(made, JobState(run_id=RUN))
            clerk = SlowClerk(world)
            self.desk = RoundsDesk(made, state, self.store, self.artifacts, self, clerk)
            self.reception = Reception(
                self.desk, self.store, self.artifacts, self, TOPICS, clerk=clerk, on_filed=world.filed
            )
            self._restored = False
        except BaseException:
            self.store.close()
            raise

    def close(self) -> None:
        self.store.close()

    @property
    def done(self) -> bool:
        return self.desk.state.phase == "done"

    @property
    def _now(self) -> float:
        return self._world.now - self._born

    @property
    def rounds(self) -> int:
        """How many rounds were ever opened."""
        return int(self.store._rows("SELECT COUNT(*) FROM rounds")[0][0])

    def on_connected(self) -> None:
        if not self._restored:
            self.desk.restore(self._now)
            self._restored = True
        self._ask_everybody()
        self.step()

    def on_arrived(self, topic: str, payload: bytes, *, retained: bool) -> None:
        self.reception.on_arrived(topic, payload, retained=retained, now=self._now)
        self._look = True

    def on_filed(self) -> None:
        self.reception.on_filed(self._now)
        self._look = True

    def step(self) -> None:
        now, self._look = self._now, False
        work = flow.due(self.desk.state)
        rounds = [each for each in work if isinstance(each, RoundWork)]
        for each in work:
            if isinstance(each, Local):
                self._take(each)
                return self.step()
        self.desk.open(rounds, self.reception.registry, now)
        self.reception.poll(now)
        if self.reception.asks_everybody(now):
            self._ask_everybody()
        self.desk.fill(self.reception.registry, now)
        self.desk.poll(now)
        return None

    def _ask_everybody(self) -> None:
        self._world.publish(SERVER, TOPICS.command_all, encode(Rebirth(**self.sender())))

    @property
    def next_step(self) -> float:
        """When it wants to look at its job, by the schedule's clock."""
        if self._look:
            return self._world.now
        return self._born + min(self._now + TICK_S, self.desk.next_poll, self.reception.next_poll)

    # ------------------------------------------------------------------ the outbox

    def sender(self) -> dict[str, Any]:
        self._seq += 1
        return {"sender": SERVER, "boot_id": f"o-{self._life}", "seq": self._seq}

    def tell(self, device: str, message: AnyMessage) -> int:
        self._die("before something is said")
        payload = encode(message)
        self._world.publish(SERVER, TOPICS.command(device), payload)
        return len(payload)

    def ship(self, shipment: Shipment) -> None:
        topic = TOPICS.chunk(shipment.receiver) if shipment.receiver else TOPICS.broadcast(shipment.manifest.artifact)
        for index in shipment.indices:
            try:
                frame = bytes(self.artifacts.read_frame(shipment.manifest, index))
            except EdgeError:  # pruned meanwhile
                return
            self._world.publish(SERVER, topic, frame, chunk=True)

    # ------------------------------------------------------------------ steps of its own

    def _take(self, work: Local) -> None:
        state = {"prepare": self._prepare, "split": self._split, "export": self._export}[work.step](self.desk.state)
        self.store.save(state)
        self.desk.move(state)

    def _prepare(self, state: JobState) -> JobState:
        merge = self.desk.job.federation.most_merge_rounds
        first = self.artifacts.put(pack(LAYOUT, np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)))
        return flow.prepared(state, self._group("merged", list(TASKS), first, 0, merge))

    def _split(self, state: JobState) -> JobState:
        assert state.merged is not None
        source, groups = self.artifacts.read(state.merged.weights.artifact), []
        parts = [[task] for task in TASKS] if self.desk.job.federation.groups == 2 else [list(TASKS)]
        for number, tasks in enumerate(parts):
            weights = self.artifacts.put(derive(source, LAYOUT.of_parts({ENCODER, *tasks})))
            group = self._group(
                f"group-{number}", tasks, weights, state.merged.next_round, self.desk.job.federation.rounds
            )
            groups.append(replace(group, derive_from=state.merged.weights.artifact))
        return flow.split(state, groups)

    def _export(self, state: JobState) -> JobState:
        models = {}
        for group in state.groups:
            model = self.artifacts.put(b"model of " + group.name.encode() + bytes(1500))
            models[group.name] = ({"onnx": model}, self.artifacts.put(b"golden of " + group.name.encode()))
        return flow.exported(state, models)

    def _group(self, name: str, tasks: list[str], weights: Manifest, start: int, end: int) -> GroupState:
        layout = LAYOUT.of_parts({ENCODER, *tasks})
        program = Program(1, name, tasks, 1, [3], {}, layout, {}, engine="onnxruntime")
        made = self.artifacts.put(program_format.dump(program))
        return GroupState(
            name=name, tasks=tasks, programs={"onnxruntime": made}, weights=weights, next_round=start, end_round=end,
            last_round=end,
        )  # fmt: skip

    def _die(self, where: str) -> None:
        self._world.may_die(SERVER, where)


# ---------------------------------------------------------------------- a device


class Device:
    """The loop of ``device_runtime.runtime`` on the schedule's clock; its work is ``trained``."""

    def __init__(self, key: str, name: str, home: Home, world: World, life: int, cache: int) -> None:
        self.key, self.name, self._world, self._cache, self._born = key, name, world, cache, world.now
        self.boot_id = f"{key}-{life}"
        self.store = FragileArtifacts(home.artifacts, self._die)
        offers = FragileOffers(home.pending, self._die)
        self.agent = Agent(name, self.boot_id, self._birth, self.store, offers)
        self.interrupted: set[int] = set()

    @property
    def _now(self) -> float:
        return self._world.now - self._born

    def on_connected(self) -> None:
        status = Status(sender=self.name, boot_id=self.boot_id, seq=0, online=True)
        self._world.publish(self.key, TOPICS.status(self.name), encode(status), retain=True)
        self._carry(self.agent.on_connected(self._now))

    def on_arrived(self, topic: str, payload: bytes) -> None:
        try:
            if topic.endswith("/cmd"):
                self._carry(self.agent.on_message(decode_from_orchestrator(payload), self._now))
            else:
                self._carry(self.agent.on_chunk(payload, self._now))
        except ProtocolError:  # a damaged piece: it is asked for again
            pass
        self.step()

    def on_worked(self, number: int, plan: Plan, reason: str) -> None:
        """The background thread is done, or gave up for ``reason``."""
        self.store.prune(self._cache, self.agent.in_use())
        if number in self.interrupted:
            reason = "interrupted"
        try:
            report, update = (Report(samples={}, losses={}), None) if reason else self._carry_out(plan)
        except EdgeError as error:
            reason = str(error)
        if reason:
            self._carry(self.agent.on_failed(number, reason))
        else:
            self._carry(self.agent.on_finished(number, report, update, self._now))
        self.step()

    def step(self) -> None:
        self._carry(self.agent.poll(self._now))

    @property
    def next_step(self) -> float:
        """When it wants to look at its work, by the schedule's clock."""
        return self._born + self.agent.next_poll

    @property
    def last_will(self) -> bytes:
        return encode(Status(sender=self.name, boot_id=self.boot_id, seq=0, online=False, reason="connection lost"))

    def _carry_out(self, plan: Plan) -> tuple[Report, bytes | None]:
        samples = {task: count for task, count in samples_of(self.name).items() if task in plan.tasks}
        numbers = dict.fromkeys(samples, 0.5)
        if plan.kind == "deploy":
            self.store.read(plan.program.artifact)
            return Report(samples={}, losses={}, healthy=True), None
        assert plan.weights is not None
        weights = self.store.read(plan.weights.manifest.artifact)
        layout = program_format.load(self.store.read(plan.program.artifact)).layout
        if plan.kind == "evaluate":
            return Report(samples=samples, losses=numbers, metrics=numbers), None
        update = trained(weights, layout, self.name, plan.round_id, plan.tasks)
        return Report(samples=samples, losses=numbers, steps=1, batch_size=1), update

    def _carry(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._die("before an effect")
            match effect:
                case Tell(Birth() as message):
                    self._world.publish(self.key, TOPICS.birth(self.name), encode(message), retain=True)
                case Tell(message):
                    self._world.publish(self.key, TOPICS.response(self.name), encode(message))
                case SendChunks(manifest, indices):
                    self._send(manifest, indices)
                case Listen(artifact, on):
                    self._world.listen(self.key, TOPICS.broadcast(artifact), on)
                case Start(number, plan):
                    self._world.work(self.key, number, plan)
                case Interrupt(number):
                    self.interrupted.add(number)

    def _send(self, manifest: Manifest, indices: tuple[int, ...]) -> None:
        for index in indices:
            try:
                frame = bytes(self.store.read_frame(manifest, index))
            except EdgeError:  # pruned: nobody waits for it any more
                return
            self._world.publish(self.key, TOPICS.upload(self.name), frame, chunk=True)

    def _birth(self, boot_id: str, seq: int) -> Birth:
        tasks = {task: SampleCount(train=count, test=count) for task, count in samples_of(self.name).items()}
        return Birth(
            sender=self.name, boot_id=boot_id, seq=seq, runtime="0", python="3", machine="m", cores=1, memory_bytes=0,
            engine="onnxruntime", engines=["onnxruntime"], input_shape=[3], tasks=tasks,
            checks_in=True,
        )  # fmt: skip

    def _die(self, where: str) -> None:
        self._world.may_die(self.key, where)
