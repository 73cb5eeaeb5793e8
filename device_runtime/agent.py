"""The device's life as a state machine: messages, chunks and the time go in, effects come out.

A plan becomes an *errand*: fetch what is missing, carry it out (one at a time, in order of arrival), offer the result,
send the chunks that are wanted, and forget it when the receipt comes. No sockets, no threads and no clock in here; the
disk is touched only through the artifact store and the pending offers, both of which survive a power cut.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import asdict, replace

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.effects import Effect, Fetch, Interrupt, Listen, SendChunks, Start, Tell
from device_runtime.errands import Download, Errand, Pending, named
from device_runtime.pending import Finished, PendingOffers
from device_runtime.trust.seals import SIGNED_ONLY, Seals
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import Buffer, check_digest, check_manifest, chunk_count, decode_chunk, digest_of
from mas_edge.protocol.errors import DamagedChunksError, DeviceError, EdgeError, TransferError, WeightsError
from mas_edge.protocol.layout import derive
from mas_edge.protocol.messages import (
    Ack,
    Birth,
    Cancel,
    Commit,
    FromOrchestrator,
    Manifest,
    Offer,
    OrchestratorState,
    Plan,
    PlanKind,
    Rebirth,
    Receipt,
    Refusal,
    Report,
    SignedPlan,
    Want,
    round_name,
)
from mas_edge.protocol.transfer import Incoming, Outgoing

# What a device accepts to hold as one artifact; a larger one is refused before a byte is fetched.
MAX_ARTIFACT_BYTES = 1024**3
# An offer is repeated until its receipt comes: the first repeat soon, later ones rarely (the orchestrator may be away).
OFFER_REPEAT_S, OFFER_REPEAT_MAX_S = 2.0, 30.0
# However often an orchestrator asks for it: to wake a radio costs more than a plan that comes a little later.
MIN_CHECKIN_S = 10.0
# An update that the orchestrator has not taken by then is made safe from a power cut. Most are taken sooner, and need
# no sync: on an SD card one takes as long as the upload.
SYNC_AFTER_S = 1.0
# Plans of a job that wait to be carried out, and finished ones on which the orchestrator has not spoken its last word:
# it sends one a round and group, and answers each; more is a mistake or an attack. Beyond it a plan is refused; what
# was begun, or is finished, is never given up for a new one.
MAX_ERRANDS = 64


@dataclass
class Agent:
    """One device. ``birth`` makes the birth message: it is called with (boot_id, seq) each time one is due.

    ``unwilling`` says why the owner's rules forbid a plan of a kind now; empty if they do not. ``seals`` opens plans.
    """

    name: str
    boot_id: str
    birth: Callable[[str, int], Birth]
    store: ArtifactStore
    offers: PendingOffers
    chunk_size: Callable[[int], int | None] = lambda size: None  # of an update of this size; None = as its size asks
    unwilling: Callable[[PlanKind], str] = lambda _kind: ""
    seals: Seals = field(default_factory=Seals)
    elsewhere: bool = False  # whether there is another way than the broker's
    _seq: int = 0
    _number: int = 0
    _errands: dict[str, Errand] = field(default_factory=dict)
    _downloads: dict[str, Download] = field(default_factory=dict)
    _pending: dict[str, Pending] = field(default_factory=dict)
    _checkin_s: float = 0.0
    _next_checkin: float = math.inf
    _accepted: deque[tuple[str, str, str]] = field(default_factory=lambda: deque(maxlen=MAX_ERRANDS))

    def __post_init__(self) -> None:
        for finished in self.offers.load():
            if finished.manifest is None or self.store.has(finished.manifest.artifact):
                self._remember(finished)
            else:  # the power went before its update was safe: the plan comes again, and is carried out again
                self.offers.remove(finished.round_id)

    # ------------------------------------------------------------------ events

    def on_connected(self, now: float) -> list[Effect]:
        """The broker is there (again): say who we are, and take up every conversation."""
        for pending in self._pending.values():
            pending.next_send, pending.repeat = now, OFFER_REPEAT_S
        for download in self._downloads.values():
            download.incoming.restart()
        return [*self.introduce(), *self.poll(now)]

    def introduce(self) -> list[Effect]:
        """Say who we are and what we can do."""
        return [Tell(self.birth(*self._stamp()))]

    def on_message(self, message: FromOrchestrator, now: float) -> list[Effect]:
        """A control message arrived."""
        match message:
            case Plan() if self.seals.required:
                return self._refuse_strange(message.job, message.round_id, SIGNED_ONLY)
            case Plan():
                return self._on_plan(message, now)
            case SignedPlan():
                return self._on_signed(message, now)
            case Want():
                return self._on_want(message, now)
            case Receipt():
                self._pace(message.next_checkin_s, now)
                self._forget(message.job, message.round_id)
                if message.verdict in ("accepted", "duplicate"):
                    self._accepted.append((message.boot_id, message.job, message.round_id))
            case Cancel():
                self._pace(message.next_checkin_s, now)
                self._forget(message.job, message.round_id)
                return [*self._cancel(message), *self._next_work()]
            case Rebirth():
                return self.introduce()
            case OrchestratorState():  # told to all at the same moment
                self._pace(message.next_checkin_s * self._jitter(), now)
        return []

    def on_chunk(self, frame: Buffer, now: float) -> list[Effect]:
        """A piece of an artifact arrived. Raises TransferError if it is damaged; it will be asked for again."""
        chunk = decode_chunk(frame)
        download = next((d for a, d in self._downloads.items() if bytes.fromhex(a)[:16] == chunk.artifact_prefix), None)
        if download is None:
            return []  # a broadcast we no longer need
        data = download.incoming.on_chunk(chunk, now)
        if data is not None:
            try:
                download.part.write(chunk.index, data)
            except DeviceError as error:
                return [*self._abort(download, str(error)), *self._next_work()]
            for errand in self._errands_waiting_for(download.manifest.artifact):
                errand.received_bytes += len(data)
        return [*self._complete(download, now), *self._ask(download, now)]

    def on_trust_renewed(self, now: float) -> list[Effect]:
        """Newer signing metadata came on another way: those that plans wait for are not needed any more."""
        effects = [effect for signed in self.seals.freed_all() for effect in self._on_signed(signed, now)]
        return [*effects, *self._release()]

    def on_finished(self, number: int, report: Report, update: bytes | None, now: float) -> list[Effect]:
        """The background work is done: keep its result until the orchestrator has it."""
        errand = self._take(number)
        if errand is None:
            return self._next_work()  # cancelled meanwhile
        plan, seconds = errand.plan, {**report.seconds, "fetch": errand.fetched}
        report = replace(report, received_bytes=errand.received_bytes, seconds=seconds)
        try:
            manifest = self._keep(update) if update is not None else None
            finished = Finished(job=plan.job, round_id=plan.round_id, report=report, manifest=manifest)
            self.offers.add(finished)
        except EdgeError as error:
            return [self._refuse(plan, str(error)), *self._next_work()]
        self._remember(finished)
        self._pending[plan.round_id].sync_at = now + SYNC_AFTER_S
        return [*self._offer(self._pending[plan.round_id], now), *self._next_work()]

    def _keep(self, update: bytes) -> Manifest:
        # Hashed once: its whole is checked where it arrives; on a small board a second pass takes as long as sending.
        return self.store.put(update, self.chunk_size(len(update)), durable=False, chunk_digests=False)

    def on_failed(self, number: int, reason: str) -> list[Effect]:
        """The background work cannot be done: say why, and go on with the next."""
        errand = self._take(number)
        return ([self._refuse(errand.plan, reason)] if errand else []) + self._next_work()

    def poll(self, now: float) -> list[Effect]:
        """What is due by the clock."""
        effects: list[Effect] = []
        for errand in [e for e in self._errands.values() if now >= e.deadline]:
            effects += self._drop(errand.plan.round_id)
        for pending in self._pending.values():
            if now >= pending.next_send:
                effects += self._offer(pending, now)
            if now >= pending.sync_at:
                self._sync(pending)
        for download in list(self._downloads.values()):
            effects += [*self._ask(download, now), *self._fetch_elsewhere(download, now)]
        if now >= self._next_checkin:
            self._next_checkin = now + self._checkin_s
            effects += self.introduce()
        return effects + self._next_work()

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something, if no event comes before."""
        times = [e.deadline for e in self._errands.values()]
        times += [min(p.next_send, p.sync_at) for p in self._pending.values()]
        times += [d.incoming.next_poll for d in self._downloads.values()]
        return min([*times, self._next_checkin])

    def in_use(self) -> set[str]:
        """The artifacts that must stay on disk."""
        used = {p.finished.manifest.artifact for p in self._pending.values() if p.finished.manifest}
        used |= {artifact for artifact in self._downloads if self.seals.waits_for(artifact)}
        for errand in self._errands.values():
            used |= {manifest.artifact for manifest in named(errand.plan)}
            if errand.plan.weights and errand.plan.weights.derive_from:
                used.add(errand.plan.weights.derive_from)
        return used

    # ------------------------------------------------------------------ plans

    def _on_signed(self, signed: SignedPlan, now: float) -> list[Effect]:
        effects: list[Effect] = []
        try:
            if metadata := self.seals.lacking(signed, self.store):
                effects = self._begin(metadata, now)
                if metadata.artifact in self._downloads:
                    self.seals.wait(signed)
                    return [*effects, *self._release()]
            plan = self.seals.open(signed, self.store)
        except EdgeError as error:
            said = round_name(bytes(signed.plan))
            return effects + (self._refuse_strange(said.job, said.round_id, str(error)) if said else [])
        return effects + (self._on_plan(plan, now) if plan else [])

    def _refuse_strange(self, job: str, round_id: str, reason: str) -> list[Effect]:
        """Refuse what is not to be trusted, unless it speaks of a round that we do trust in."""
        if round_id in self._errands or round_id in self._pending:
            return []
        return [Tell(Refusal(**self._sender(), job=job, round_id=round_id, reason=reason))]

    def _on_plan(self, plan: Plan, now: float) -> list[Effect]:
        if (plan.boot_id, plan.job, plan.round_id) in self._accepted:
            return []  # a broker may deliver a plan late: its work counted already in this life of the orchestrator
        if plan.round_id in self._pending and self._pending[plan.round_id].finished.job == plan.job:
            return self._offer(self._pending[plan.round_id], now)
        if plan.round_id in self._errands and self._errands[plan.round_id].plan.job == plan.job:
            return [self._ack(plan)]
        try:
            self._check(plan)
        except EdgeError as error:
            return [self._refuse(plan, str(error))]
        effects = self._leave_other_jobs(plan.job)
        self._number += 1
        self._errands[plan.round_id] = Errand(self._number, plan, now + plan.deadline_s, now)
        return [*effects, self._ack(plan), *self._fetch(self._errands[plan.round_id], now)]

    def _check(self, plan: Plan) -> None:
        if reason := self.unwilling(plan.kind):
            raise DeviceError(reason)
        waiting = sum(errand.plan.job == plan.job for errand in self._errands.values())
        finished = sum(pending.finished.job == plan.job for pending in self._pending.values())
        if waiting + finished >= MAX_ERRANDS:
            message = (
                f"this device already holds {waiting} plans, and {finished} finished rounds that nobody has taken; "
                f"{MAX_ERRANDS} are the most: answer its offers, or cancel rounds"
            )
            raise DeviceError(message)
        for manifest in named(plan):
            check_manifest(manifest, MAX_ARTIFACT_BYTES)
        if plan.weights and plan.weights.derive_from:
            check_digest(plan.weights.derive_from)
        if plan.kind in ("train", "evaluate") and plan.weights is None:
            message = f"plan {plan.round_id} ({plan.kind}) names no weights"
            raise TransferError(message)
        lacks_health = plan.kind == "deploy" and plan.health is None and not plan.undo
        if (plan.kind == "train" and plan.training is None) or lacks_health:
            message = f"plan {plan.round_id} ({plan.kind}) lacks its settings"
            raise TransferError(message)

    def _leave_other_jobs(self, job: str) -> list[Effect]:
        effects: list[Effect] = []
        for round_id in [r for r, errand in self._errands.items() if errand.plan.job != job]:
            effects += self._drop(round_id)
        for finished in [p.finished for p in self._pending.values() if p.finished.job != job]:
            self._forget(finished.job, finished.round_id)
        return effects

    def _fetch(self, errand: Errand, now: float) -> list[Effect]:
        """Begin to fetch what the plan needs and the store lacks; when nothing is lacking the errand is ready."""
        effects: list[Effect] = []
        waiting = False
        try:
            for manifest in self._needed(errand.plan):
                if not self.store.has(manifest.artifact):
                    effects += self._begin(manifest, now)
                    waiting = waiting or manifest.artifact in self._downloads
        except EdgeError as error:
            return [*effects, *self._give_up(errand, str(error))]
        if not waiting:
            errand.stage, errand.fetched = "ready", now - errand.began
            effects += self._next_work()
        return effects

    def _begin(self, manifest: Manifest, now: float) -> list[Effect]:
        """Begin to receive an artifact, or go on; it may lie on the disk whole and only lack its name."""
        if manifest.artifact in self._downloads:
            return []
        part = self.store.partial(manifest)
        incoming = Incoming(manifest, part.held, broadcast=True, verify=False)
        if incoming.complete:
            part.finish(durable=False)
            return []
        self._downloads[manifest.artifact] = download = Download(manifest, part, incoming)
        return [Listen(manifest.artifact, True), *self._ask(download, now)]

    def _needed(self, plan: Plan) -> Iterator[Manifest]:
        weights = plan.weights.manifest if plan.weights else None
        yield from (manifest for manifest in named(plan) if manifest != weights)
        if weights and not self._can_derive(plan):
            yield weights

    def _can_derive(self, plan: Plan) -> bool:
        """Take the weights out of an artifact we hold, once the program's layout is there; nothing is fetched."""
        weights = plan.weights
        if weights is None or not weights.derive_from or self.store.has(weights.manifest.artifact):
            return False
        if not self.store.has(weights.derive_from):
            return False
        if not self.store.has(plan.program.artifact):
            return True  # not yet: asked again when the program has come
        layout = program_format.load(self.store.read(plan.program.artifact)).layout
        try:
            derived = derive(self.store.read(weights.derive_from), layout)
        except (DeviceError, WeightsError):  # damaged on disk, or of another network: pull what the plan names
            return False
        if digest_of(derived) != weights.manifest.artifact:
            return False
        self.store.put(derived)
        return True

    def _errands_waiting_for(self, artifact: str) -> list[Errand]:
        waiting = [e for e in self._errands.values() if e.stage == "fetch"]
        return [e for e in waiting if artifact in {manifest.artifact for manifest in named(e.plan)}]

    def _complete(self, download: Download, now: float) -> list[Effect]:
        if not download.incoming.complete:
            return []
        artifact = download.manifest.artifact
        try:
            download.part.finish(durable=False)
        except DamagedChunksError as error:
            download.incoming.take_back(error.indices, now)
            raise
        except EdgeError as error:
            return [*self._abort(download, str(error)), *self._next_work()]
        del self._downloads[artifact]
        effects: list[Effect] = [Listen(artifact, False)]
        for signed in self.seals.freed(artifact):
            effects += self._on_signed(signed, now)
        for errand in self._errands_waiting_for(artifact):
            effects += self._fetch(errand, now)
        return effects

    def _abort(self, download: Download, reason: str) -> list[Effect]:
        """An artifact cannot be received: its errands are given up."""
        artifact = download.manifest.artifact
        waiting = self._errands_waiting_for(artifact)
        self.seals.freed(artifact)  # dropped: they are said again
        del self._downloads[artifact]
        effects: list[Effect] = [Listen(artifact, False)]
        return effects + [effect for errand in waiting for effect in self._give_up(errand, reason)]

    def _ask(self, download: Download, now: float) -> list[Effect]:
        if download.manifest.artifact not in self._downloads:
            return []
        ranges = download.incoming.poll(now)
        if not ranges:
            return []
        broadcast = download.incoming.asks_broadcast  # of the ask that was just made
        want = Want(**self._sender(), artifact=download.manifest.artifact, ranges=ranges, broadcast=broadcast)
        return [Tell(want, after_chunks=True)]

    def _fetch_elsewhere(self, download: Download, now: float) -> list[Effect]:
        missing = download.stalled(now) if self.elsewhere else ()
        metadata = self.seals.waits_for(download.manifest.artifact)
        return [Fetch(download.manifest, missing, metadata)] if missing else []

    def _next_work(self) -> list[Effect]:
        if any(errand.stage == "work" for errand in self._errands.values()):
            return []
        for errand in self._errands.values():
            if errand.stage == "ready":
                errand.stage = "work"
                return [Start(errand.number, errand.plan)]
        return []

    def _take(self, number: int) -> Errand | None:
        """End the errand of this number; None if it was dropped meanwhile."""
        errand = next((errand for errand in self._errands.values() if errand.number == number), None)
        return self._errands.pop(errand.plan.round_id) if errand else None

    def _cancel(self, cancel: Cancel) -> list[Effect]:
        errand = self._errands.get(cancel.round_id)
        return self._drop(cancel.round_id) if errand and errand.plan.job == cancel.job else []

    def _give_up(self, errand: Errand, reason: str) -> list[Effect]:
        return [*self._drop(errand.plan.round_id), self._refuse(errand.plan, reason)]

    def _drop(self, round_id: str) -> list[Effect]:
        errand = self._errands.pop(round_id, None)
        if errand is None:
            return []
        return [*([Interrupt(errand.number)] if errand.stage == "work" else []), *self._release()]

    def _release(self) -> list[Effect]:
        """Leave the downloads that nobody waits for; what has come stays on disk and is used if it is wanted again."""
        effects: list[Effect] = []
        for artifact in list(self._downloads):
            if self._errands_waiting_for(artifact) or self.seals.waits_for(artifact):
                continue
            del self._downloads[artifact]
            effects.append(Listen(artifact, False))
        return effects

    # ------------------------------------------------------------------ offers

    def _remember(self, finished: Finished) -> None:
        outgoing = Outgoing(finished.manifest) if finished.manifest else None
        self._pending[finished.round_id] = Pending(finished, outgoing, repeat=OFFER_REPEAT_S)

    def _sync(self, pending: Pending) -> None:
        """Make a finished round safe from a power cut; a disk that cannot has said so where it was written."""
        pending.sync_at = math.inf
        with contextlib.suppress(EdgeError):
            if pending.finished.manifest:
                self.store.sync(pending.finished.manifest.artifact)
            self.offers.sync(pending.finished.round_id)

    def _offer(self, pending: Pending, now: float) -> list[Effect]:
        pending.next_send = now + pending.repeat
        pending.repeat = min(2 * pending.repeat, OFFER_REPEAT_MAX_S)
        return [Tell(Offer(**self._sender(), **asdict(pending.finished)))]

    def _on_want(self, want: Want, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for pending in self._pending.values():
            done = pending.finished
            if pending.outgoing and done.manifest and done.manifest.artifact == want.artifact:
                pending.next_send, pending.repeat = now + OFFER_REPEAT_S, OFFER_REPEAT_S
                for send in pending.outgoing.on_want(want.sender, want.ranges, False, now):
                    effects.append(SendChunks(done.manifest, send.indices))
                if want.ranges and want.ranges[-1][1] == chunk_count(done.manifest):
                    commit = Commit(**self._sender(), job=done.job, round_id=done.round_id, artifact=want.artifact)
                    effects.append(Tell(commit, after_chunks=True))
        return effects

    def _forget(self, job: str, round_id: str) -> None:
        pending = self._pending.get(round_id)
        if pending and pending.finished.job == job:
            del self._pending[round_id]
            self.offers.remove(round_id)
            manifest = pending.finished.manifest
            if manifest and manifest.artifact not in self.in_use():
                self.store.discard(manifest.artifact)  # nobody will ever ask for it again

    # ------------------------------------------------------------------ words

    def _pace(self, seconds: float, now: float) -> None:
        """Introduce ourselves again in so many seconds, and so on until told otherwise; 0: nothing was said of it."""
        if seconds > 0:
            self._checkin_s = max(seconds, MIN_CHECKIN_S)
            self._next_checkin = now + self._checkin_s

    def _jitter(self) -> float:
        """A number of this device's own for this life, from 0.75 to 1.25."""
        return random.Random(f"{self.name}/{self.boot_id}").uniform(0.75, 1.25)  # noqa: S311 - not for secrets

    def _ack(self, plan: Plan) -> Tell:
        return Tell(Ack(**self._sender(), job=plan.job, round_id=plan.round_id))

    def _refuse(self, plan: Plan, reason: str) -> Tell:
        return Tell(Refusal(**self._sender(), job=plan.job, round_id=plan.round_id, reason=reason))

    def _stamp(self) -> tuple[str, int]:
        self._seq += 1
        return self.boot_id, self._seq

    def _sender(self) -> dict[str, Any]:
        boot_id, seq = self._stamp()
        return {"sender": self.name, "boot_id": boot_id, "seq": seq}
