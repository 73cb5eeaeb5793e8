"""Late updates: who may go on when a round closes, and what becomes of what they bring; with the disk's part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import JobState, Phase
from mas_edge.federation.late import Latecomers, LateWork
from mas_edge.job import Job
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.checks import Expected
from mas_edge.orchestrator.folding import Origin
from mas_edge.orchestrator.records import RoundRecord, Traffic
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Offer
from mas_edge.protocol.weights import Layout, Vector, gather, unpack


class LateDesk:
    """The stragglers of one job. An update counts in the open round of its network, or waits for the next."""

    def __init__(self, job: Job, store: Store, artifacts: ArtifactStore) -> None:
        self.works = Latecomers()
        self._federation = job.federation
        self._store = store
        self._artifacts = artifacts
        self._waiting: set[str] = set()  # artifacts that updates which count nowhere yet will need
        self._offered: dict[tuple[str, str], str] = {}  # by round and device, the update that is on its way

    def restore(self, records: Sequence[RoundRecord], state: JobState, now: float) -> None:
        """Take up the late work of an earlier life; whoever lost it is waited for as long as it would be wanted."""
        if not self._federation.folds_late:
            return
        for record in records:
            if record.stragglers and record.phase == state.phase:
                missing = [d for d in record.stragglers if not self._store.is_accepted(record.round_id, d)]
                self.works.add(self._work(record, device, now) for device in missing)
        self.outdated(state, state.phase, now)
        self.refresh()

    def _work(self, record: RoundRecord, device: str, now: float) -> LateWork:
        until = now + self._federation.deadline_s * self._federation.max_staleness
        return LateWork(record.round_id, device, record.group, record.index, record.base, until)

    # ------------------------------------------------------------------ closing a round

    def may_go_on(self, active: ActiveRound, phase: Phase, state: JobState) -> list[str]:
        """The devices of a training round that ends well in ``phase``, and whose reports ``state`` will still want."""
        if not self._federation.folds_late or active.work.group not in _next_rounds(state, phase):
            return []
        return sorted(name for name, stage in active.machine.stages().items() if stage == "working")

    def close(self, record: RoundRecord, updates: Mapping[str, str], now: float) -> None:
        """A round closed; its stragglers go on. ``updates``: by device, what was offered, and may be on its way."""
        self.works.add(self._work(record, device, now) for device in record.stragglers)
        for device in record.stragglers:
            self.offered(record.round_id, device, updates.get(device, ""))

    def outdated(self, state: JobState, phase: Phase, now: float) -> list[LateWork]:
        """Take out what nobody wants any more: too late, or of a network that trains no longer."""
        return self.works.outdated(_next_rounds(state, phase), self._federation.max_staleness, now)

    # ------------------------------------------------------------------ taking in

    def fold(self, active: ActiveRound, offer: Offer, update: Buffer | None) -> None:
        """Fold a late update into the open round of its network.

        Raises:
            WeightsError: it is not what the network expects, or its round is not known.
            DeviceError: the disk has lost what it began from.
        """
        base = self._base_of(offer)
        origin = Origin(base.index, self._vector(active.layout, base.base), self._now(active), base.base)
        active.fold_late(offer, update, origin, self._federation.staleness_power)
        active.needed |= {base.base, *([offer.manifest.artifact] if offer.manifest else [])}

    def refresh(self) -> None:
        """Look up again what the updates need that count nowhere yet."""
        self._waiting = set()
        if self._federation.folds_late:
            for offer in self._store.waiting():
                self._waiting |= {self._base_of(offer).base, *([offer.manifest.artifact] if offer.manifest else [])}

    def offered(self, round_id: str, device: str, artifact: str) -> None:
        """A late update is on its way: what has come of it stays on the disk."""
        self._offered[round_id, device] = artifact

    def needed(self) -> set[str]:
        """The artifacts that must stay."""
        self._offered = {key: artifact for key, artifact in self._offered.items() if self.works.find(*key)}
        return self._waiting | self.works.bases() | set(self._offered.values())

    def _base_of(self, offer: Offer) -> RoundRecord:
        record = self._store.record(offer.round_id)
        if record is None or not record.base:
            message = f"a late report of round {offer.round_id}, of which it is not known what it began from"
            raise WeightsError(message)
        return record

    def _now(self, active: ActiveRound) -> Vector:
        return self._vector(active.layout, active.group.weights.artifact)

    def _vector(self, layout: Layout, artifact: str) -> Vector:
        return gather(layout, unpack(self._artifacts.read(artifact)))


@dataclass
class LateRound:
    """What the reception needs to know to take in a late update: as ``ActiveRound``, of a round that is closed."""

    desk: LateDesk
    work: LateWork
    expected: Expected
    max_update_bytes: int
    open: ActiveRound | None  # that the update will count in

    @property
    def counts_in(self) -> str | None:
        """The round that the update counts in; None: the next one of its network."""
        return self.open.work.round_id if self.open else None

    @property
    def traffic(self) -> Traffic:
        """Where its bytes are counted; while no round of the network is open, nowhere."""
        return self.open.traffic if self.open else Traffic()

    def on_offered(self, device: str, artifact: str) -> None:
        """The update is on its way."""
        self.desk.offered(self.work.round_id, device, artifact)

    def fold(self, offer: Offer, update: Buffer | None) -> None:
        """Check the update, and fold it if there is something to fold it into. Raises as ``LateDesk.fold``."""
        if self.open is not None:
            self.desk.fold(self.open, offer, update)
            return
        self.expected.check(offer.report)
        self.expected.vector(update, offer.report)

    def on_accepted(self, device: str, now: float) -> None:
        """It is in the store."""
        self.desk.works.end(self.work.round_id, device)
        if self.open is None:
            self.desk.refresh()

    def on_refused(self, device: str, reason: str) -> None:
        """The device cannot, or its update was refused for good."""
        self.desk.works.end(self.work.round_id, device)


def _next_rounds(state: JobState, phase: Phase) -> dict[str, int]:
    """The next round of each network that goes on to train in the phase that the job was in."""
    if state.phase != phase:
        return {}
    return {group.name: group.next_round for group in state.networks if group.next_round < group.end_round}
