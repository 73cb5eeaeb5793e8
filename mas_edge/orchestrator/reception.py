"""What devices say: births, acknowledgements, wants, offers and chunks, each answered with one clear word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.doubts import Doubts
from mas_edge.federation.registry import Registry
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.checks import check_counts
from mas_edge.orchestrator.collection import Collection
from mas_edge.orchestrator.filing import Clerk
from mas_edge.orchestrator.gate import Gate
from mas_edge.orchestrator.late_desk import LateRound
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.outbox import Outbox
from mas_edge.orchestrator.quarantine_desk import QuarantineDesk
from mas_edge.orchestrator.records import DeviceRecord
from mas_edge.orchestrator.roster import Roster
from mas_edge.orchestrator.rounds_desk import RoundsDesk
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import chunk_count, decode_chunk, from_ranges
from mas_edge.protocol.errors import DeviceError, MessageError, ProtocolError, TransferError
from mas_edge.protocol.messages import (
    Ack,
    Birth,
    Commit,
    FromDevice,
    Offer,
    Rebirth,
    Receipt,
    Refusal,
    Status,
    Verdict,
    Want,
    decode_from_device,
    round_name,
)
from mas_edge.protocol.topics import Topics

Intake = ActiveRound | LateRound  # what takes in a report
SILENCE_S = 5.0  # how often it is looked who has not been heard: what is noticed takes many minutes to happen
STRANGER = ""  # whoever speaks on a topic that is no device's


class Reception:
    """Takes in what arrives; decisions about rounds are the desk's.

    The ``clerk`` syncs what has arrived, and calls ``on_filed`` when there is something for the method of that name.
    """

    def __init__(
        self, desk: RoundsDesk, store: Store, artifacts: ArtifactStore, post: Outbox, topics: Topics,
        limits: Limits | None = None, clerk: Clerk | None = None, on_filed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.registry = Registry()
        self._warned: dict[str, tuple[str, str]] = {}  # by device: its life, and what was said of it
        self._desk = desk
        self._store = store
        self._artifacts = artifacts
        self._post = post
        self._topics = topics
        self._collection = Collection(artifacts, clerk, on_filed)
        self._roster = Roster(store, self._describe)
        self._gate = Gate(limits or Limits())
        self._quarantine = QuarantineDesk(store, limits or Limits(), desk.supply, desk.log)
        self._rounds: set[str] = set()  # that were open at the last look
        self._doubts = Doubts()
        self._look_for_silence = 0.0

    def on_arrived(self, topic: str, payload: bytes | memoryview, *, retained: bool, now: float) -> None:
        """Something came from a device; what is not as the contract says is ignored and logged, but not without end."""
        device = STRANGER
        try:
            device, leaf = self._topics.sender(topic)
            if leaf == "up":
                self._on_chunk(device, payload, len(topic), now)
            elif payload:  # an empty payload clears a retained message: the device was removed from the broker
                self._on_message(device, bytes(payload), len(topic), retained, now)
        except ProtocolError as error:  # whoever sent these bytes is at fault; the job goes on
            self._complain(device, f"ignored: {error}", now)

    def _complain(self, device: str, text: str, now: float, level: str = "warning") -> None:
        """Log a line about a device, unless it has caused so many that this one says nothing new."""
        if line := self._gate.line(device, text, now):
            self._desk.log(level, line, device=device)

    def _admits(self, device: str, answer: tuple[bool, str]) -> bool:
        """What the gate says; its text goes to the operator."""
        admitted, text = answer
        if text:
            self._desk.log("warning", text, device=device)
        return admitted

    def review(self) -> None:
        """What can be made for devices has changed: write down what each is told."""
        for birth in self.registry.births.values():
            self._roster.note(birth)
            if self.registry.is_online(birth.sender):
                self._warn(birth)

    def poll(self, now: float) -> None:
        """Ask for what is missing of the uploads, and whether those who are said to be gone are."""
        self.judge(now)
        self._collection.keep_rounds(self._rounds)
        if now >= self._look_for_silence:
            self._look_for_silence = now + SILENCE_S
            self._notice_silence(now)
        for device, artifact, ranges, round_id in self._collection.poll(now):
            want = Want(**self._post.sender(), artifact=artifact, ranges=ranges)
            self._desk.tell(device, want, round_id)
        self._roster.poll(now)
        for device in self._doubts.poll(now):
            self._desk.tell(device, Rebirth(**self._post.sender()), None)

    def judge(self, now: float) -> None:
        """Leave out whose reports were refused in too many rounds, and let back whose time is over."""
        if (rounds := self._desk.wanted_rounds()) != self._rounds:
            self._rounds = rounds
            self._gate.keep(self._rounds)
        self._shut_out(self._quarantine.poll(self._rounds, now))

    def _shut_out(self, devices: Sequence[str]) -> None:
        """These devices stand otherwise than before: who is in quarantine now, no round waits for."""
        for device in devices:
            if birth := self.registry.births.get(device):
                self._roster.note(birth)
            if why := self._quarantine.why(device):
                for active in self._desk.active.values():
                    active.on_refused(device, why)

    def _notice_silence(self, now: float) -> None:
        """Who said that it checks in, and did not for long, is away: a broker may have dropped its last will."""
        there = [name for name, birth in self.registry.online().items() if birth.checks_in]
        for device in self._desk.pace.silent(there, now):
            birth = self.registry.births[device]
            reason = "it has not checked in for long"
            gone = Status(sender=device, boot_id=birth.boot_id, seq=birth.seq, online=False, reason=reason)
            self._on_status(gone, now)

    def asks_everybody(self, now: float) -> bool:
        """Whether every device is to be asked for a birth: no round is open, and somebody may wait unheard."""
        return self._doubts.everybody(now, idle=not self._desk.active)

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return min(self._collection.next_poll, self._doubts.next_poll, self._roster.next_poll)

    def close(self) -> None:
        """Write down what is still to be written of the devices."""
        self._roster.flush()

    # ------------------------------------------------------------------ control

    def _on_message(self, device: str, payload: bytes, topic_bytes: int, retained: bool, now: float) -> None:
        if not self._admits(device, self._gate.message(device, now)):
            return
        try:
            message = decode_from_device(payload, device)
        except MessageError as error:
            self._doubts.lost(device, now)  # it may have been its birth
            self._on_undecodable(device, payload, error, now)
            return
        gone = isinstance(message, Status) and not message.online
        if not (gone or retained):
            self._desk.pace.on_heard(device, now)
        if device not in self.registry.births and not isinstance(message, Birth) and not gone:
            self._doubts.lost(device, now)  # a broker dropped its birth: who speaks is there
        active = self._desk.active.get(self._round_of(message))
        if active is not None:
            active.traffic.received_control += len(payload) + topic_bytes
        match message:
            case Birth() if self._admits(device, self._gate.birth(device, now)):
                self._on_birth(message, retained=retained, now=now)
            case Status():
                self._on_status(message, now)
            case Want():
                self._on_want(message, now)
            case Ack() if active is not None and message.job == self._desk.state.run_id:
                active.machine.on_ack(device)
            case Ack() if self._desk.rollouts and message.job == self._desk.state.run_id:
                self._desk.rollouts.on_ack(device, message.round_id, now)
            case Refusal() if message.job == self._desk.state.run_id:
                if intake := self._desk.intake(message.round_id, device):
                    intake.on_refused(device, message.reason)
                elif self._desk.rollouts:
                    self._desk.rollouts.on_refused(device, message.round_id, message.reason, now)
            case Offer() if self._desk.rollouts and (word := self._desk.rollouts.on_offer(message, now)):
                self._receipt(device, message.job, message.round_id, *word)
            case Offer():
                self._on_offer(message, self._desk.intake(message.round_id, device), now)
            case _:  # a commit, or a word on a round that is over: the chunks and receipts say it all
                pass

    def _round_of(self, message: FromDevice) -> str:
        match message:
            case Ack() | Refusal() | Offer() | Commit():
                return message.round_id
            case Want():
                return self._desk.distribution.round_of(message.artifact) or ""
        return ""

    def _on_undecodable(self, device: str, payload: bytes, error: MessageError, now: float) -> None:
        """Tell the sender why, if what it sent at least names a round; a NaN in a report arrives as null."""
        self._complain(device, f"message of {device} refused: {error}", now)
        named = round_name(payload)
        if named is None or named.job != self._desk.state.run_id:
            return
        self._receipt(device, named.job, named.round_id, "invalid", str(error))
        self._quarantine.refused(device, named.round_id, str(error))
        if intake := self._desk.intake(named.round_id, device):
            intake.on_refused(device, str(error))

    def _on_birth(self, birth: Birth, *, retained: bool, now: float) -> None:
        known = self.registry.births.get(birth.sender)
        if new_life := known is not None and known.boot_id != birth.boot_id:
            self._desk.on_new_life(birth.sender)
        came = self.registry.on_birth(birth, retained=retained)
        if not retained:
            self._doubts.found(birth.sender)
        self._roster.note(birth)
        if self._desk.rollouts and not retained:
            self._desk.rollouts.on_birth(birth, now, new_life=new_life)
        if retained or not came:
            return
        self._warn(birth)
        self._desk.on_back(birth.sender, now)

    def _warn(self, birth: Birth) -> None:
        """Say what keeps a device out, once each."""
        problem, no_model = self._why_not(birth), self._why_no_model(birth)
        text = f"cannot serve this job: {problem}" if problem else f"will get no model: {no_model}" if no_model else ""
        if text and self._warned.get(birth.sender) != (birth.boot_id, text):
            self._desk.log("warning", f"{birth.sender} {text}", device=birth.sender)
        self._warned[birth.sender] = (birth.boot_id, text)

    def _on_status(self, status: Status, now: float) -> None:
        known = self.registry.births.get(status.sender)
        if status.online and (known is None or known.boot_id != status.boot_id):
            self._doubts.lost(status.sender, now)  # its birth is on its way, or lost
        if not self.registry.on_status(status):
            return
        if birth := self.registry.births.get(status.sender):
            self._roster.note(birth)
        if not status.online:
            self._doubts.lost(status.sender, now)
            self._complain(status.sender, f"{status.sender} left: {status.reason or 'no reason given'}", now, "info")
            self._desk.on_lost(status.sender, now)

    def _describe(self, birth: Birth) -> DeviceRecord:
        name = birth.sender
        return DeviceRecord(
            name=name, online=self.registry.is_online(name), engine=birth.engine, machine=birth.machine,
            runtime=birth.runtime, last_seen=time.time(),
            tasks={task: count.train for task, count in birth.tasks.items()},
            problem=self._why_not(birth),
            no_model=self._why_no_model(birth), standing=self._quarantine.standing(name),
        )  # fmt: skip

    def _why_not(self, birth: Birth) -> str:
        return self._desk.supply.why_not(birth, self._desk.networks)

    def _why_no_model(self, birth: Birth) -> str:
        return self._desk.supply.why_no_model(birth, self._desk.state.groups)

    def _on_want(self, want: Want, now: float) -> None:
        distribution = self._desk.distribution
        if not self._admits(want.sender, self._may_have(want, now)):
            return
        for shipment in distribution.on_want(want.sender, want.artifact, want.ranges, want.broadcast, now):
            self._post.ship(shipment)

    def _may_have(self, want: Want, now: float) -> tuple[bool, str]:
        """Whether the gate lets a device have more of an artifact; one that is not handed out is refused elsewhere."""
        manifest = self._desk.distribution.manifest_of(want.artifact)
        if manifest is None or not want.ranges:
            return True, ""
        wanted = manifest.chunk_size * len(from_ranges(want.ranges, chunk_count(manifest)))
        return self._gate.sends(want.sender, manifest, wanted, now)

    # ------------------------------------------------------------------ updates

    def _on_offer(self, offer: Offer, intake: Intake | None, now: float) -> None:
        last_word = self._last_word(offer, intake)
        if last_word is not None or intake is None:
            self._receipt(offer.sender, offer.job, offer.round_id, *(last_word or ("invalid", "")))
            return
        manifest, most = offer.manifest, intake.max_update_bytes
        if manifest is not None and manifest.size > most:
            reason = f"update of {manifest.size} bytes; this round's network has {most} at most"
            self._refuse(intake, offer, "too_large", reason, now)
            return
        try:
            whole = manifest is None or self._collection.begin(offer, manifest, most)
        except ProtocolError as error:
            self._refuse(intake, offer, "invalid", str(error), now)
            return
        intake.on_offered(offer.sender, manifest.artifact if manifest else "")
        if whole:
            self._accept(intake, offer, now)

    def _last_word(self, offer: Offer, intake: Intake | None) -> tuple[Verdict, str] | None:
        """The verdict on an offer that is not to be taken in."""
        run_id = self._desk.state.run_id
        if offer.job != run_id:
            return "stale_round", f"this orchestrator works on run {run_id}, not on {offer.job}"
        if self._store.is_accepted(offer.round_id, offer.sender):
            return "duplicate", "this report was accepted before"
        if intake is None and self._store.is_known(offer.round_id):
            return "round_closed", f"round {offer.round_id} is closed"
        if intake is None:
            return "stale_round", f"there is no round {offer.round_id}"
        if isinstance(intake, ActiveRound) and intake.machine.stage_of(offer.sender) is None:
            return "not_selected", f"{offer.sender} was not selected for round {offer.round_id}"
        if why := self._quarantine.why(offer.sender):
            return "invalid", f"{offer.sender} is in quarantine: {why}"
        if self._gate.is_refused(offer.sender, offer.round_id):
            return "invalid", f"too many reports for round {offer.round_id} were refused"
        return None

    def _on_chunk(self, device: str, frame: bytes | memoryview, topic_bytes: int, now: float) -> None:
        chunk = decode_chunk(frame)
        offer = self._collection.offer_of(device, chunk)
        intake = self._desk.intake(offer.round_id, device) if offer else None
        if intake is None or offer is None:
            return  # the round is over, or the update is whole already
        intake.traffic.received_update += len(frame) + topic_bytes
        try:
            self._collection.on_chunk(device, chunk, now)
        except TransferError as error:
            if self._collection.offer_of(device, chunk):
                raise  # a damaged piece: it will be asked for again
            self._refuse(intake, offer, "bad_digest", str(error), now)
            return
        self.on_filed(now)

    def on_filed(self, now: float) -> None:
        """Uploads are whole, or turned out to be damaged."""
        if self._collection.has_filed:  # the clerk cannot finish what went with its round: that is no fault of the disk
            self._collection.keep_rounds(self._desk.wanted_rounds())
        for filed in self._collection.filed(now):
            for offer in filed.offers:
                intake = self._desk.intake(offer.round_id, offer.sender)
                if intake is None:
                    continue  # its round closed meanwhile
                if filed.problem is None:
                    self._accept(intake, offer, now)
                elif filed.again:
                    self._complain(offer.sender, f"ignored: {filed.problem}", now)
                else:
                    self._refuse(intake, offer, "bad_digest", str(filed.problem), now)

    def _accept(self, intake: Intake, offer: Offer, now: float) -> None:
        try:
            if birth := self.registry.births.get(offer.sender):
                check_counts(offer.report, intake.expected.kind, birth)
            self._fold(intake, offer)
        except (DeviceError, ProtocolError) as error:  # a DeviceError: the disk damaged what had just arrived
            self._refuse(intake, offer, "invalid", str(error), now, ours=isinstance(error, DeviceError))
            return
        self._store.accept(offer, intake.counts_in)
        intake.on_accepted(offer.sender, now)
        if self._quarantine.accepted(offer.sender, offer.round_id):
            self._shut_out([offer.sender])
        self._receipt(offer.sender, offer.job, offer.round_id, "accepted", "")

    def _fold(self, intake: Intake, offer: Offer) -> None:
        if offer.manifest is None:
            intake.fold(offer, None)
            return
        with self._artifacts.opened(offer.manifest.artifact) as update:
            intake.fold(offer, update)

    def _refuse(
        self, intake: Intake, offer: Offer, verdict: Verdict, reason: str, now: float, *, ours: bool = False
    ) -> None:  # fmt: skip
        self._complain(offer.sender, f"{offer.round_id}: report of {offer.sender} refused: {reason}", now)
        self._gate.refuse(offer.sender, offer.round_id)
        if not ours:
            self._quarantine.refused(offer.sender, offer.round_id, reason)
        intake.on_refused(offer.sender, reason)
        self._receipt(offer.sender, offer.job, offer.round_id, verdict, reason)

    def _receipt(self, device: str, job: str, round_id: str, verdict: Verdict, reason: str) -> None:
        """Speak the last word; ``job`` is the one the device named, so that it forgets exactly that offer."""
        receipt = Receipt(
            **self._post.sender(), job=job, round_id=round_id, verdict=verdict, reason=reason,
            next_checkin_s=self._desk.pace.next_checkin_s(),
        )  # fmt: skip
        self._desk.tell(device, receipt, round_id)
