"""The orchestrator: one loop over what the broker brings, what the clock says and what the workshop finished.

All decisions are made in this loop's thread. Chunks leave through the post's thread, updates are synced by a clerk's.
Programs are traced in the workshop, mostly a process of its own, which another thread waits for. What must survive a
crash is in the store before anyone is told.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.mqtt import Arrived, Connected, Disconnected, Event, Frame
from mas_edge.export.targets import TARGETS, require_installed
from mas_edge.federation import flow
from mas_edge.federation.flow import JobState, Local, Provided, RoundWork
from mas_edge.federation.supply import Wanted
from mas_edge.job import Job, check
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker import open_broker
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.orchestrator.filing import Filing
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.mailbox import Mailbox
from mas_edge.orchestrator.orders_desk import OrdersDesk
from mas_edge.orchestrator.post import Post
from mas_edge.orchestrator.reception import Reception
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.orchestrator.result import result_of, rolled_out_of
from mas_edge.orchestrator.rollout_desk import RolloutDesk
from mas_edge.orchestrator.rollout_store import remembered
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.sealing import Sealing, open_publisher
from mas_edge.orchestrator.steps import FIRST_FORMAT
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.workshop_process import open_workshop
from mas_edge.protocol.errors import DeviceError, EdgeError, ServerError
from mas_edge.protocol.messages import OrchestratorState, Rebirth
from mas_edge.protocol.topics import Topics

log = logging.getLogger(__name__)

EVENTS_AT_A_TIME = 16  # a few milliseconds' worth; what is due by the clock waits no longer
TICK_S = 0.5  # the loop looks after a stop request at least this often
CONNECT_TIMEOUT_S = 30.0
BEFORE_A_STEP = ("merged_evaluation", "probe_evaluation", "group_evaluation")  # the orchestrator's own comes next
PACE_DRIFT = 1.5  # the fleet has grown so much since its pace was shown to all: show it again


@dataclass(frozen=True)
class _Made:
    """The workshop finished a step of the orchestrator's own."""

    state: JobState | None
    split: SplitRecord | None = None
    error: EdgeError | None = None


@dataclass(frozen=True)
class _Filed:
    """The clerk has brought an upload to its end."""


@dataclass(frozen=True)
class _Supplied:
    """The workshop made what a device needs, or cannot."""

    wanted: Wanted
    made: Provided | None
    reason: str = ""


class Orchestrator:
    """One job on one fleet; the state directory remembers where it stands. ``signing``: what signs its plans.

    Raises:
        JobError: the job is wrong, or the directory holds a run of other settings.
        ServerError: a directory cannot be used, or a package is missing with which models are exported.
    """

    def __init__(
        self, job: Job, state_dir: Path, broker_url: str, limits: Limits | None = None, signing: Path | None = None,
        *, stay: bool = False, hold: bool = False,
    ) -> None:  # fmt: skip
        check(job)
        require_installed(TARGETS[FIRST_FORMAT])  # said now, not when the job has been trained
        publisher = open_publisher(signing) if signing else None
        self._events: Mailbox[Event | _Made | _Supplied | _Filed] = Mailbox()
        self._store = Store(state_dir)
        artifacts = ArtifactStore(state_dir / "artifacts")
        try:
            state = self._store.begin(job, JobState(run_id=f"{job.name}-{uuid.uuid4().hex[:8]}"))
        except EdgeError:
            self._store.close()  # whoever asks again, with the right job, must not find the directory in use
            raise
        topics = Topics(job.fleet)
        self._post = Post(broker_url, topics, artifacts, self._hear, self._on_shipped, self._limit_of)
        self._clerk = Filing("clerk")
        self._desk = RoundsDesk(job, state, self._store, artifacts, self._post, self._clerk)
        if publisher is not None:
            self._desk.sealing = Sealing(publisher, job.fleet, artifacts, self._desk.distribution)
            if publisher.notice:
                self._desk.log("warning", publisher.notice)
        self._desk.rollouts = self._rollouts = RolloutDesk(self._desk, self._store, self._post, state_dir)
        self._orders = OrdersDesk(self._desk, state_dir, hold=hold)
        self._stay = stay
        self._reception = Reception(
            self._desk, self._store, artifacts, self._post, topics, limits,
            self._clerk, lambda: self._events.put_own(_Filed()),
        )  # fmt: skip
        self._steps = open_workshop(job, artifacts, state_dir)
        self._workshop = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workshop")
        self._shown_interval_s = self._desk.pace.interval_s
        self._failure: EdgeError | None = None

    @property
    def state(self) -> JobState:
        """Where the job stands."""
        return self._desk.state

    def run(self, stop: threading.Event) -> bool:
        """Work on the job until it is done (True), or ``stop`` is set or it was aborted (False).

        A rollout under way belongs to it.

        Raises:
            BrokerError: the broker cannot be reached.
            JobError, ServerError: the job cannot go on; its state stays as it was.
        """
        try:
            self._warm()  # while the broker and the devices connect
            run = self.state.run_id  # from here on the log knows whose lines these are
            log.info("run %s: phase %s", run, self.state.phase, extra={"job": run})
            self._post.start(CONNECT_TIMEOUT_S)
            self._desk.restore(time.monotonic())
            while not stop.is_set() and self._goes_on:
                self._step()
                if self._failure is not None:
                    raise self._failure
            self._reception.close()
        except DeviceError as error:  # this machine's disk: the artifact store is the devices' own
            raise ServerError(str(error)) from None
        finally:
            self._events.close()
            self._steps.close()
            self._show(online=False)
            self._post.stop()
            self._clerk.close()
            self._workshop.shutdown(wait=False, cancel_futures=True)
            self._rollouts.close()
            self._orders.close()
            self._store.close()
        return self.state.phase == "done"

    @property
    def _goes_on(self) -> bool:
        """Whether there is more to do than to be asked to leave."""
        if self.state.phase == "aborted":
            return False
        return self._stay or self._rollouts.is_busy or self.state.phase != "done"

    def _step(self) -> None:
        self._start_due()
        now = time.monotonic()
        until = min(now + TICK_S, self._desk.next_poll, self._reception.next_poll)
        self._take_events(max(0.0, until - now))
        now = time.monotonic()
        self._reception.poll(now)
        if self._reception.asks_everybody(now):
            self._post.tell_all(Rebirth(**self._post.sender()))
        phase = self.state.phase
        self._desk.fill(self._reception.registry, now)
        self._desk.poll(now)
        self._rollouts.poll(self._reception.registry, now)
        self._orders.poll(now)
        if self.state.phase != phase:
            self._warm()  # while devices evaluate
        if self.state.phase != phase or self._desk.pace.interval_s > PACE_DRIFT * self._shown_interval_s:
            self._show(online=True)

    def _hear(self, event: Event) -> None:
        """On a connection's thread: what it brings waits for the loop, and the connection for room."""
        match event:
            case Arrived(topic, payload) | Frame(topic, payload):
                self._events.put(event, len(topic) + len(payload))
            case _:
                self._events.put(event, 0)

    def _take_events(self, timeout_s: float) -> None:
        """React to what comes within ``timeout_s``, and to what lies there already: many chunks cost one look round."""
        with contextlib.suppress(queue.Empty):
            self._react(self._events.get(timeout_s))
            for _ in range(EVENTS_AT_A_TIME - 1):
                self._react(self._events.get())

    def _start_due(self) -> None:
        if self._desk.making or self._orders.is_held_up:
            return
        rounds: list[RoundWork] = []
        for work in flow.due(self.state):
            if isinstance(work, Local):
                self._desk.making = True
                self._workshop.submit(self._make, work, self.state, self._store.records())
                return
            rounds.append(work)
        rounds = self._rollouts.due(rounds)
        if lacking := self._desk.lacking([*rounds, *self._rollouts.works()], self._reception.registry):
            self._desk.making = True
            self._workshop.submit(self._provide, lacking[0], self.state)
            return
        self._desk.open(rounds, self._reception.registry, time.monotonic())

    def _warm(self) -> None:
        """Have the workshop ready if there will be work for it soon: it takes seconds to start."""
        if self.state.phase in BEFORE_A_STEP or any(isinstance(work, Local) for work in flow.due(self.state)):
            self._workshop.submit(self._steps.warm)

    def _make(self, work: Local, state: JobState, records: list[RoundRecord]) -> None:
        """In the workshop's thread: a step that needs torch and time, but no broker."""
        try:
            made = _Made(*self._steps.take(work, state, records))
        except EdgeError as error:
            made = _Made(None, error=error)
        except Exception as error:  # a fault of ours, or of a user's network: the loop must hear of it
            log.exception("step %s failed", work.step)
            made = _Made(None, error=ServerError(f"step {work.step} failed: {type(error).__name__}: {error}"))
        self._events.put_own(made)

    def _provide(self, wanted: Wanted, state: JobState) -> None:
        """In the workshop's thread: what a device needs beside what every group has. Other rounds go on meanwhile."""
        try:
            event = _Supplied(wanted, self._steps.provide(wanted, state))
        except EdgeError as error:
            event = _Supplied(wanted, None, str(error))
        except Exception as error:  # an exporter's packages raise what they like: the loop must hear of it
            log.exception("making %s failed", wanted)
            event = _Supplied(wanted, None, f"{type(error).__name__}: {error}")
        self._events.put_own(event)

    def _on_supplied(self, event: _Supplied) -> None:
        self._desk.making = False
        if event.made is None:
            self._desk.supply.refuse(event.wanted, event.reason)
            what = " ".join(event.wanted)
            self._desk.log("warning", f"cannot be made, its devices are left out: {what}: {event.reason}")
        else:
            state = flow.provided(self.state, event.made)
            self._store.save(state)
            self._desk.move(state)
        self._reception.review()

    def _react(self, event: Event | _Made | _Supplied | _Filed) -> None:
        match event:
            case Connected():
                self._show(online=True)
                self._post.tell_all(Rebirth(**self._post.sender()))
            case Disconnected(reason):
                self._desk.log("warning", f"broker: {reason}")
            case Arrived(topic, payload, retained):
                self._reception.on_arrived(topic, payload, retained=retained, now=time.monotonic())
            case Frame(topic, data):
                self._reception.on_arrived(topic, data, retained=False, now=time.monotonic())
            case _Made(_, _, EdgeError() as error):
                self._failure = error
            case _Filed():
                self._reception.on_filed(time.monotonic())
            case _Supplied():
                self._on_supplied(event)
            case _Made(JobState() as state, split, _):
                self._desk.making = False
                self._store.save(state, split)
                self._desk.move(state)
                self._show(online=True)

    def _show(self, *, online: bool) -> None:
        sender = self._post.sender()
        self._shown_interval_s = self._desk.pace.interval_s
        state = OrchestratorState(
            **sender, online=online, job=self.state.run_id, phase=self.state.phase,
            next_checkin_s=self._shown_interval_s if online else 0.0,
        )  # fmt: skip
        self._post.show(state)

    def _limit_of(self, device: str | None) -> int:
        """Called on the post's thread, too: it reads what the loop writes in one stroke."""
        return self._reception.registry.packet_limit(device)

    def _on_shipped(self, shipment: Shipment, size: int) -> None:
        if active := self._desk.active.get(shipment.round_id):
            active.traffic.add_sent(shipment.kind, size)
        else:
            self._rollouts.on_shipped(shipment.round_id, size)


def run_job(
    job: Job, state: str | Path, broker: str = "auto", stop: threading.Event | None = None,
    limits: Limits | None = None, signing: Path | None = None, *, stay: bool = False, hold: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Orchestrate ``job`` on the fleet behind ``broker`` until it is done; return the result as plain JSON values.

    Args:
        job: what to do; checked first.
        state: the directory that remembers the run; called again with the same one, an interrupted run goes on.
        broker: a URL, or ``managed``, ``embedded``, ``auto`` for a broker that is started here and stopped at the end.
        stop: set it to leave early; the result then says ``"done": False``.
        limits: what one device may take of the orchestrator, if not the defaults (``mas_edge.orchestrator.limits``).
        stay: go on when the job is done, until ``stop`` is set: for rollouts, and devices that come back later.
        hold: a new run waits until an operator says ``start`` (``mas-edge job``, or the API).
        signing: a signing repository (``mas-edge sign``): devices that were handed its root take no other plans.

    Raises:
        JobError, BrokerError, ServerError: see ``Orchestrator``.
    """
    directory = Path(state)
    with open_broker(broker, directory) as there:
        Orchestrator(job, directory, there.url, limits, signing, stay=stay, hold=hold).run(stop or threading.Event())
    result = result_of(view.read(directory))
    return {**result, "deployment": result["deployment"] or rolled_out_of(remembered(directory))}
