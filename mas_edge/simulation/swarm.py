"""Many virtual devices on one real broker: a load test of a broker, a network and an orchestrator.

Each device is a real agent with an artifact store and a connection of its own; one selector serves them all, without a
thread each. They learn nothing: a "trained" update is the weights that came, plus a number that is the device's own.
What differs from a real device: one connection instead of two, no last will, and QoS 0 for control messages, which the
protocol says again until they are answered.
"""

from __future__ import annotations

import logging
import platform
import selectors
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from device_runtime.agent import Agent
from device_runtime.edge.address import parse_url, why_unreachable
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.backoff import Backoff
from device_runtime.edge.bulk_client import BulkClient, Code, Message, Told
from device_runtime.edge.fragments import Assembly, PacketLimit
from device_runtime.edge.tls import context_for
from device_runtime.effects import Effect, Interrupt, Listen, SendChunks, Start, Tell
from device_runtime.pending import PendingOffers
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import BrokerError, EdgeError
from mas_edge.protocol.messages import (
    Birth,
    Plan,
    Report,
    SampleCount,
    Status,
    decode_from_orchestrator,
    encode,
)
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import Layout, gather, pack, unpack

log = logging.getLogger(__name__)

SAMPLES = SampleCount(train=32, test=8)  # that each device says it holds of every task
KEEPALIVE_S = 60  # of a connection that is mostly idle: a thousand pings a minute cost nothing
TICK_S = 0.25  # how often the clocks of all devices are looked at
CACHE_BYTES = 4 * 1024 * 1024  # of artifacts that a device keeps for later: a thousand share one disk
FAREWELL_S = 3.0  # in which the last words have to be written


class _Device:
    """One virtual device and its connection."""

    def __init__(self, number: int, swarm: Swarm) -> None:
        self.name = f"{swarm.prefix}-{number:05d}"
        self.number = number
        self.boot_id = uuid.uuid4().hex
        self.client = swarm.new_client(self.name)
        self.limit = PacketLimit(swarm.address.max_packet)
        self.assembly = Assembly()
        self.backoff = Backoff()
        self.connected = False
        self.connect_at = 0.0
        self.socket: socket.socket | None = None  # as the selector knows it
        self.written_soon = False  # whether it is in the swarm's list of those with something to write
        directory = swarm.directory / self.name
        self.store = ArtifactStore(directory / "artifacts")
        self.agent = Agent(
            self.name, self.boot_id, lambda boot_id, seq: swarm.birth(self.name, boot_id, seq), self.store,
            PendingOffers(directory / "pending"),
        )  # fmt: skip
        client = self.client
        client.on_connect = lambda _c, _d, flags, code, told: swarm.on_connect(self, code, told)
        client.on_disconnect = lambda *_: swarm.on_disconnect(self)
        client.on_message = lambda _c, _d, message: swarm.on_message(self, message)
        client.on_subscribe = lambda *_: None
        client.on_socket_register_write = lambda: swarm.on_data_to_write(self)


class Swarm:
    """Devices ``PREFIX-NNNNN`` of one fleet, numbered from ``first`` on; their files are below ``directory``.

    Raises:
        BrokerError: the URL is malformed.
    """

    def __init__(
        self, url: str, fleet: str, count: int, directory: Path, *, tasks: Sequence[str], input_shape: Sequence[int],
        engine: str = "torch", prefix: str = "swarm", first: int = 0,
    ) -> None:  # fmt: skip
        self.address = parse_url(url)
        self.prefix = prefix
        self.directory = directory
        self.updates = 0  # trained so far
        self._tasks, self._input_shape, self._engine = list(tasks), list(input_shape), engine
        self._tls = context_for(self.address) if self.address.tls else None
        self._topics = Topics(fleet)
        self._selector = selectors.DefaultSelector()
        self._to_write: list[_Device] = []
        self._devices = [_Device(number, self) for number in range(first, first + count)]

    @property
    def connected(self) -> int:
        """How many devices the broker has let in."""
        return sum(device.connected for device in self._devices)

    def __str__(self) -> str:
        return f"{self.connected} of {len(self._devices)} devices are connected; {self.updates} updates so far"

    def run(self, stop: Callable[[], bool]) -> None:
        """Serve all devices until ``stop()``; then leave the fleet politely. Looks at ``stop`` every TICK_S seconds."""
        next_tick = 0.0
        try:
            while not stop():
                now = time.monotonic()
                if now >= next_tick:
                    next_tick = now + TICK_S
                    self._tick(now)
                self._move_bytes(max(0.0, next_tick - time.monotonic()))
        finally:
            self._leave()

    # ------------------------------------------------------------------ what a device is made of

    def new_client(self, name: str) -> BulkClient:
        """The connection of a device, not yet opened."""
        five = self.address.version != "3.1.1"
        return BulkClient(self.address, name + self.address.suffix, KEEPALIVE_S, five=five, tls=self._tls)

    def birth(self, name: str, boot_id: str, seq: int) -> Birth:
        """What a device says of itself."""
        return Birth(
            sender=name, boot_id=boot_id, seq=seq, runtime="swarm", python=platform.python_version(),
            machine=platform.machine(), cores=1, memory_bytes=0, engine=self._engine, engines=[self._engine],
            input_shape=self._input_shape, tasks=dict.fromkeys(self._tasks, SAMPLES),
        )  # fmt: skip

    # ------------------------------------------------------------------ the loop

    def _tick(self, now: float) -> None:
        for device in self._devices:
            if device.connected:
                device.client.loop_misc()
                if device.agent.next_poll <= now:
                    self._carry(device, device.agent.poll(now))
            elif device.client.socket() is None and now >= device.connect_at:
                self._connect(device, now)

    def _connect(self, device: _Device, now: float) -> None:
        device.connect_at = now + device.backoff.next_delay_s()
        try:
            device.client.reconnect()
        except OSError as error:
            log.warning("%s: %s", device.name, why_unreachable(error, self.address))
            return
        sock = device.client.socket()
        if sock is not None:
            device.socket = sock
            self._selector.register(sock, selectors.EVENT_READ, device)

    def _move_bytes(self, timeout_s: float) -> None:
        pending, self._to_write = self._to_write, []
        for device in pending:
            device.written_soon = False
            self._write(device)
        for key, events in self._selector.select(0.0 if self._to_write else timeout_s):
            device = key.data
            if events & selectors.EVENT_READ:
                device.client.loop_read()
            if events & selectors.EVENT_WRITE:
                self._write(device)

    def _write(self, device: _Device) -> None:
        device.client.loop_write()
        sock = device.client.socket()
        if sock is not None:  # what the socket did not take goes when it is ready
            more = selectors.EVENT_WRITE if device.client.want_write() else 0
            if self._selector.get_key(sock).events != selectors.EVENT_READ | more:
                self._selector.modify(sock, selectors.EVENT_READ | more, device)

    def on_data_to_write(self, device: _Device) -> None:
        """Something was queued on a connection."""
        if not device.written_soon:
            device.written_soon = True
            self._to_write.append(device)

    def on_connect(self, device: _Device, code: Code, told: Told) -> None:
        """The broker has answered."""
        if code.is_failure:
            log.error("%s: the broker at %s refuses the connection (%s)", device.name, self.address, code)
            return
        device.connected, device.limit.told, device.backoff = True, told.MaximumPacketSize or 0, Backoff()
        for topic in (self._topics.command(device.name), self._topics.command_all, self._topics.chunk(device.name)):
            device.client.subscribe(topic)
        self._say(device, self._topics.status(device.name), self._status(device, online=True))
        self._carry(device, device.agent.on_connected(time.monotonic()))

    def on_disconnect(self, device: _Device) -> None:
        """The connection has ended: another attempt follows, not all at the same moment."""
        device.connected = False
        device.connect_at = time.monotonic() + device.backoff.next_delay_s()
        if device.socket is not None:
            self._selector.unregister(device.socket)
            device.socket = None

    def _status(self, device: _Device, *, online: bool) -> bytes:
        return encode(Status(sender=device.name, boot_id=device.boot_id, seq=0, online=online))

    def _leave(self) -> None:
        for device in self._devices:
            if device.connected:
                self._say(device, self._topics.status(device.name), self._status(device, online=False))
                device.client.disconnect()
        until = time.monotonic() + FAREWELL_S
        while self.connected and time.monotonic() < until:
            self._move_bytes(TICK_S)
        for device in self._devices:
            if (sock := device.client.socket()) is not None:
                sock.close()
        self._selector.close()

    # ------------------------------------------------------------------ messages and effects

    def on_message(self, device: _Device, message: Message) -> None:
        """A control message or a piece of an artifact has come."""
        now = time.monotonic()
        try:
            payload = device.assembly.take(message.topic, message.payload)
            if payload is None:
                return
            if message.topic.endswith("/cmd"):
                self._carry(device, device.agent.on_message(decode_from_orchestrator(bytes(payload)), now))
            else:
                self._carry(device, device.agent.on_chunk(payload, now))
            self._carry(device, device.agent.poll(now))
        except EdgeError as error:
            log.warning("%s: %s", device.name, error)

    def _carry(self, device: _Device, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(Birth() as birth):
                    self._say(device, self._topics.birth(device.name), encode(birth))
                case Tell(message):
                    self._say(device, self._topics.response(device.name), encode(message))
                case SendChunks(manifest, indices):
                    for index in indices:
                        frame = device.store.read_frame(manifest, index)
                        self._say(device, self._topics.upload(device.name), frame)
                case Listen(artifact, True):
                    device.client.subscribe(self._topics.broadcast(artifact))
                case Listen(artifact, False):
                    device.client.unsubscribe(self._topics.broadcast(artifact))
                case Start(number, plan):
                    self._carry(device, self._work(device, number, plan))
                case Interrupt():
                    pass  # work is done at once: there is none to interrupt

    def _say(self, device: _Device, topic: str, payload: bytes | bytearray) -> None:
        try:
            for piece in device.limit.split(topic, payload):
                device.client.publish(topic, piece)
        except BrokerError as error:
            log.warning("%s: %s", device.name, error)

    def _work(self, device: _Device, number: int, plan: Plan) -> list[Effect]:
        try:
            report, update = _carry_out(device.store, plan, device.number + 1)
        except EdgeError as error:
            return device.agent.on_failed(number, str(error))
        self.updates += update is not None
        effects = device.agent.on_finished(number, report, update, time.monotonic())
        device.store.prune(CACHE_BYTES, device.agent.in_use())
        return effects


def _carry_out(store: ArtifactStore, plan: Plan, own: float) -> tuple[Report, bytes | None]:
    """What a plan comes to without an engine."""
    if plan.kind == "deploy" or plan.weights is None:
        return Report(samples={}, losses={}, healthy=True), None
    losses: Mapping[str, float] = dict.fromkeys(plan.tasks, 1.0)
    if plan.kind == "evaluate":
        return Report(samples=dict.fromkeys(plan.tasks, SAMPLES.test), losses=dict(losses), metrics=dict(losses)), None
    layout = _layout(store.read(plan.program.artifact))
    vector = gather(layout, unpack(store.read(plan.weights.manifest.artifact)))
    vector += np.float32(own)
    report = Report(samples=dict.fromkeys(plan.tasks, SAMPLES.train), losses=dict(losses))
    return report, pack(layout, vector)


@lru_cache(maxsize=8)  # of the programs of the present groups: every device has the same
def _layout(program: bytes) -> Layout:
    return program_format.load(program).layout
