"""The device process: the agent's machine, two MQTT connections, and one background thread that carries out plans."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import msgspec

from device_runtime.agent import Agent
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.fragments import room
from device_runtime.edge.lock import lock_directory
from device_runtime.edge.mqtt import Arrived, Connected, Disconnected, Event, Frame, Link, Will
from device_runtime.edge.web import Site
from device_runtime.effects import Effect, Fetch, Interrupt, Listen, SendChunks, Start, Tell
from device_runtime.elsewhere import Elsewhere, Fetched, TrustRenewed
from device_runtime.engines import base_name, runnable
from device_runtime.holdings import Holdings
from device_runtime.home_assistant_link import open_home
from device_runtime.host import Host
from device_runtime.last_words import LastWords
from device_runtime.logs import about
from device_runtime.outcome import Outcome, Stopped
from device_runtime.pending import PendingOffers
from device_runtime.policy.file import Policy
from device_runtime.policy.watch import Watch
from device_runtime.power.meter import Meter
from device_runtime.power.survey import survey
from device_runtime.trust.anchor import open_verifier
from device_runtime.trust.seals import Seals
from device_runtime.work import Bench, Programs, Where
from mas_edge.protocol.artifact import HEADER_BYTES, chunk_size_for
from mas_edge.protocol.errors import DeviceError, EdgeError, ProtocolError, TransferError
from mas_edge.protocol.messages import Birth, Plan, Refusal, Status, decode_from_orchestrator, encode
from mas_edge.protocol.topics import Topics

log = logging.getLogger(__name__)

RUNTIME_VERSION = "0.1.0"
# How long the loop sleeps at most: it looks after a stop request at least this often.
TICK_S = 0.5
# Artifacts kept for later rounds, older ones go first: a few times what the work in hand needs (the weights before
# these, those of other groups), within bounds. The flash is its owner's; and a file that takes the place of one that
# just went is written several times faster than into memory that the system has not touched yet (measured).
CACHE_TIMES = 3
CACHE_LEAST_BYTES, CACHE_MOST_BYTES = 64 * 1024 * 1024, 512 * 1024 * 1024
INTERRUPTED = "interrupted"  # a plan's work, because nobody wants it any more
# How long the process in which models are tried waits for the next plan: the models of all groups are sent together,
# and this is what one may still need to arrive. It holds the memory of an engine meanwhile.
MORE_S = 5.0
_HERE = Host()


@dataclass(frozen=True)
class Settings:
    """What the owner of the device chose."""

    name: str
    fleet: str
    broker: str
    state: Path
    engine: str  # as ``open_engine`` takes it; ``engines.choice`` finds one that works
    engines: tuple[str, ...] = ()  # that work here, beside this one
    memory: int = 0  # bytes that the process may hold; 0 = no limit
    policy: Policy = field(default_factory=Policy)
    site: Site | None = None  # where the fleet hands out what the broker does not bring
    home_assistant: str = ""  # the prefix of Home Assistant's discovery; "" = it is told nothing
    trial: Where = "auto"  # where models are tried before they are used


@dataclass(frozen=True)
class _Began:
    plan: Plan


@dataclass(frozen=True)
class _Finished:
    number: int
    outcome: Outcome | None
    reason: str = ""


class Runtime:
    """One device on one broker. ``run`` returns when ``stop`` is set. ``bench``: the kind that carries out plans."""

    def __init__(self, settings: Settings, data: Holdings, bench: type[Bench] = Bench, host: Host = _HERE) -> None:
        self._settings = settings
        self._topics = Topics(settings.fleet)
        self._events: queue.SimpleQueue[Event | _Began | _Finished | Fetched | TrustRenewed] = queue.SimpleQueue()
        self._plans: queue.SimpleQueue[Start | None] = queue.SimpleQueue()
        self._interrupted: set[int] = set()
        self._leaving = False
        self._refused_for = ""
        self._store = ArtifactStore(settings.state / "artifacts")
        self._data = data
        self._power = survey(host, settings.policy.power)
        self._meter = Meter(self._power.sensors, self._power.estimate)
        self.watch = Watch(settings.policy.rules, settings.state, host, self._meter.spent)
        self._bench = bench(
            data, self._store, Programs(settings.engine), settings.state / "deployed", self._meter,
            checkpoints=settings.state / "checkpoints",
            last_words=LastWords(settings.state / "last-words.json", host),
        )  # fmt: skip
        self._bench.trial = settings.trial
        self._told: tuple[int, dict[str, str]] = (0, {})
        self._boot_id = uuid.uuid4().hex
        self.verifier = open_verifier(settings.state, settings.fleet, settings.name)
        self.agent = Agent(
            settings.name, self._boot_id, self._birth, self._store, PendingOffers(settings.state / "pending"),
            unwilling=self.watch.gate.why_not, seals=Seals(self.verifier),
        )  # fmt: skip
        self._elsewhere = Elsewhere(settings.site, self.verifier, self._events.put) if settings.site else None
        self.agent.elsewhere = self._elsewhere is not None
        gone = self._status(online=False, reason="connection lost")
        self._control = Link(
            settings.broker, settings.name, self._events.put, will=Will(self._topics.status(settings.name), gone)
        )
        self._home = open_home(
            settings.home_assistant, settings.fleet, settings.name, RUNTIME_VERSION, host, self._control
        )
        self.agent.chunk_size = self._chunk_size
        self._bulk = Link(settings.broker, f"{settings.name}-data", self._on_bulk_event, bulk=True)
        self._outbox: queue.SimpleQueue[Tell | SendChunks | None] = queue.SimpleQueue()

    def run(self, stop: threading.Event, alive: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop`` is set; then leave the fleet politely. ``alive`` is called at every turn of the loop.

        Raises:
            DeviceError: the state directory cannot be used, or another device runtime works in it.
        """
        with _lock(self._settings.state):
            if self._settings.memory:
                self._bench.limit(self._settings.memory)
            self._bench.learn()
            self._bench.settle()
            for problem in self._power.problems:
                log.warning("power: %s", problem)
            self._meter.start()
            self.watch.start()
            self._serve(stop, alive)

    def _serve(self, stop: threading.Event, alive: Callable[[], None]) -> None:
        name = self._settings.name
        self._control.subscribe(self._topics.command(name))
        self._control.subscribe(self._topics.command_all)
        self._control.subscribe(self._topics.orchestrator)
        self._bulk.subscribe(self._topics.chunk(name), qos=0)
        threads = [threading.Thread(target=target, daemon=True) for target in (self._work, self._send)]
        for thread in threads:
            thread.start()
        self._control.start()
        self._bulk.start()
        if self._elsewhere:
            self._elsewhere.start()
        try:
            while not stop.is_set():
                alive()
                self._step()
        finally:
            self._stop(threads)

    def _stop(self, threads: list[threading.Thread]) -> None:
        self._leaving = True
        self._plans.put(None)
        self._outbox.put(None)
        if self._elsewhere:
            self._elsewhere.stop()
        farewell = self._status(online=False, reason="stopped")
        self._control.publish(self._topics.status(self._settings.name), farewell, retain=True)
        self._bulk.stop()
        self._control.stop()
        for thread in threads:
            thread.join(timeout=5)

    def _step(self) -> None:
        now = time.monotonic()
        self._carry(self.look_after_rules())
        try:
            event = self._events.get(timeout=max(0.0, min(TICK_S, self.agent.next_poll - now)))
        except queue.Empty:
            self._carry(self.agent.poll(time.monotonic()))
            return
        try:
            self._carry(self._react(event, time.monotonic()))
        except ProtocolError as error:
            log.warning("ignored: %s", error)
        except MemoryError:  # the work takes it all: what is not understood now is said again
            log.warning("not enough memory to take in a message")
        self._carry(self.agent.poll(time.monotonic()))

    def look_after_rules(self) -> list[Effect]:
        """Tell the orchestrator when the owner's rules forbid something else than when it was told last."""
        return self.agent.introduce() if self.watch.gate.news() else []

    def _react(self, event: Event | _Began | _Finished | Fetched | TrustRenewed, now: float) -> list[Effect]:
        match event:
            case Connected():
                log.info("connected to %s", self._control.address)  # the URL itself holds secrets
                status = self._status(online=True, reason="")
                self._control.publish(self._topics.status(self._settings.name), status, retain=True)
                self._home.connected()
                return self.agent.on_connected(now)
            case Disconnected(reason):
                log.warning("disconnected: %s", reason)
            case Arrived(_, payload):
                return self.agent.on_message(decode_from_orchestrator(payload), now)
            case Frame(_, data):
                return self.agent.on_chunk(data, now)
            case Fetched(frame):
                return self._on_fetched(frame, now)
            case TrustRenewed():
                return self.agent.on_trust_renewed(now)
            case _Began(plan):
                self._home.began(plan)
            case _Finished(number, outcome, reason):
                self._make_room()
                if outcome is None:
                    self._home.failed("" if reason == INTERRUPTED else reason)
                    return [*self.agent.on_failed(number, reason), *self._say_what_changed()]
                self._home.ended(outcome.report)
                finished = self.agent.on_finished(number, outcome.report, outcome.update, now)
                return [*finished, *self._say_what_changed()]
        return []

    def _say_refusal(self, message: object) -> None:
        """Tell the device's owner too, once for each reason: plans are sent again and again."""
        if isinstance(message, Refusal) and message.reason != self._refused_for:
            self._refused_for = message.reason
            log.warning("%s is refused: %s", message.round_id, message.reason)

    def _on_fetched(self, frame: bytes, now: float) -> list[Effect]:
        try:
            return self.agent.on_chunk(frame, now)
        finally:
            if self._elsewhere:
                self._elsewhere.taken()

    def _carry(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(message, after_chunks):
                    if after_chunks:
                        self._outbox.put(effect)
                    elif isinstance(message, Birth):
                        self._control.publish(self._topics.birth(self._settings.name), encode(message), retain=True)
                    else:
                        self._say_refusal(message)
                        self._control.publish(self._topics.response(self._settings.name), encode(message))
                case SendChunks():
                    self._outbox.put(effect)
                case Listen(artifact, on):
                    topic = self._topics.broadcast(artifact)
                    if on:
                        self._bulk.subscribe(topic, qos=0)
                    else:
                        self._bulk.unsubscribe(topic)
                case Start():
                    self._plans.put(effect)
                case Fetch() if self._elsewhere:
                    self._elsewhere.fetch(effect)
                case Interrupt(number):
                    self._interrupted.add(number)

    def _on_bulk_event(self, event: Event) -> None:
        if isinstance(event, Frame):
            self._events.put(event)

    def _work(self) -> None:
        """The background thread: one plan at a time."""
        try:
            while (start := self._next_plan()) is not None:
                with about(start.plan.job, start.plan.round_id):
                    self._events.put(self._carry_out(start.number, start.plan))
        finally:
            self._bench.rest()

    def _next_plan(self) -> Start | None:
        with contextlib.suppress(queue.Empty):
            return self._plans.get(timeout=MORE_S)
        self._bench.rest()
        return self._plans.get()

    def _carry_out(self, number: int, plan: Plan) -> _Finished:
        def stop() -> bool:
            return self.watch.hold(plan.kind, lambda: self._leaving or number in self._interrupted)

        self.watch.begin(plan.kind)
        self._events.put(_Began(plan))
        log.info("%s: %s of %s", plan.round_id, plan.kind, ", ".join(plan.tasks))
        try:
            outcome = self._bench.carry_out(plan, stop)
        except Stopped:
            return _Finished(number, None, INTERRUPTED)
        except EdgeError as error:
            log.error("%s: %s", plan.round_id, error)
            return _Finished(number, None, str(error))
        except MemoryError:
            return _Finished(number, None, "not enough memory on this device")
        except Exception as error:  # a fault of ours or of an engine must not end the agent
            log.exception("%s failed", plan.round_id)
            return _Finished(number, None, f"unexpected {type(error).__name__}: {error}")
        finally:
            self._interrupted.discard(number)
            self.watch.end(self._bench.joules)
        return _Finished(number, outcome.seen_on(self.watch.board()))

    def _send(self) -> None:
        """The thread that may wait for the network: chunks, and the words that must follow them."""
        name = self._settings.name
        while (item := self._outbox.get()) is not None:
            try:
                if isinstance(item, Tell):
                    self._bulk.send_bulk(self._topics.response(name), encode(item.message))
                    continue
                for index in item.indices:
                    frame = self._store.read_frame(item.manifest, index)
                    self._bulk.send_bulk(self._topics.upload(name), frame)
            except EdgeError as error:
                log.warning("not sent: %s", error)

    def _chunk_size(self, size: int) -> int | None:
        """The largest chunks of an update that need not be cut on their way; None where they would be too many."""
        limit = self._bulk.packet_limit
        topic_bytes = len(self._topics.upload(self._settings.name))
        try:
            return chunk_size_for(size, room(limit, topic_bytes) - HEADER_BYTES) if limit else None
        except TransferError:
            return None

    def _make_room(self) -> None:
        in_use = self.agent.in_use()
        needed = CACHE_TIMES * self._store.size_of(in_use)
        self._store.prune(min(max(needed, CACHE_LEAST_BYTES), CACHE_MOST_BYTES), in_use)

    def _status(self, *, online: bool, reason: str) -> bytes:
        return encode(Status(sender=self._settings.name, boot_id=self._boot_id, seq=0, online=online, reason=reason))

    def _say_what_changed(self) -> list[Effect]:
        """Who ran out of memory allows less of it from now on, and who deployed a model answers with another one.

        The orchestrator must know before the next plan.
        """
        if (self._bench.step_memory, self._bench.models) == self._told:
            return []
        return self.agent.introduce()

    def _birth(self, boot_id: str, seq: int) -> Birth:
        self._told = (self._bench.step_memory, self._bench.models)
        self.watch.gate.news()  # what is told here is no news any more
        forbidden = self.watch.gate.why_not("train")
        self._home.held_back(forbidden)
        return msgspec.structs.replace(
            birth_of(self._settings.name, boot_id, seq, self._data, self._settings.engine, self._settings.engines),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            step_memory_bytes=self._bench.step_memory, max_packet=self._control.packet_limit,
            ineligible=forbidden, checks_in=True, models=self._told[1],
        )  # fmt: skip


def birth_of(name: str, boot_id: str, seq: int, data: Holdings, engine: str, engines: Sequence[str] = ()) -> Birth:
    """What a device says of itself whatever it lives in: its software, its processor, its engines and its data.

    ``engine``: as ``open_engine`` takes it; ``engines``: others that were found to work.
    """
    base = base_name(engine)
    return Birth(
        sender=name, boot_id=boot_id, seq=seq, runtime=RUNTIME_VERSION, python=platform.python_version(),
        machine=platform.machine(), cores=os.cpu_count() or 1, memory_bytes=0,
        engine=base, engines=list(dict.fromkeys([base, *engines, *runnable()])),
        input_shape=list(data.input_shape), tasks=data.counts(),
    )  # fmt: skip


def _lock(state: Path) -> TextIO:
    """Keep a state directory to this process."""
    try:
        return lock_directory(state)
    except BlockingIOError:
        message = f"another device runtime works in {state}; stop it, or give this one a --state of its own"
        raise DeviceError(message) from None
    except OSError as error:
        message = f"state directory {state} cannot be used: {error.strerror}; choose another --state"
        raise DeviceError(message) from None
