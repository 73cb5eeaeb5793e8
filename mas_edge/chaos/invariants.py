"""What must hold when a job is done, whatever was done to its processes.

1. The job finished.
2. Every accepted update counted exactly once: the store's rows of a round are the reports in the round's record.
3. Nothing that a device was told to be accepted is lost: every such word that was heard has its row in the store.
4. The weights are those of an undisturbed run with the same accepted updates, to the bit: each round's mean is folded
   again, in the order of the store, out of the updates themselves. Devices keep what they sent (512 MB of it), so that
   the updates need not be believed: each is looked up by its digest.
5. Each update is what an undisturbed device would have sent: its training is done again from the weights, the program
   and the settings of its plan. This also holds a training that was resumed from a checkpoint to one that was not.
6. No round lasted longer than its deadline, counted from when the orchestrator opened it or took it up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_runtime.data import open_data
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.work import Bench, Programs
from mas_edge.chaos.fleet import MortalFleet
from mas_edge.chaos.witness import Witness
from mas_edge.federation.aggregate import Accumulator
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import Offer, Plan
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Vector, gather, pack, sent_layout, unpack

CLOSING_S = 5.0  # after its deadline a round is aggregated and written down; a loaded disk takes seconds to sync


@dataclass
class Verdict:
    """What was found: ``problems`` is empty if everything holds; the counts say how much was looked at."""

    problems: list[str] = field(default_factory=list)
    updates: int = 0
    refolded: int = 0  # rounds whose weights were folded again
    retrained: int = 0  # updates that were trained again
    longest_round_s: float = 0.0


def check_run(fleet: MortalFleet, witness: Witness, *, retrain: bool = True) -> Verdict:
    """Hold a run that has ended to the invariants; nobody may work in its directories any more."""
    verdict = Verdict()
    snapshot = fleet.snapshot()
    if snapshot is None or snapshot.phase != "done":
        verdict.problems.append(f"the job is not done: {snapshot.phase if snapshot else 'it never began'}")
        return verdict
    offers = _accepted(fleet.state, snapshot.rounds)
    _count_once(snapshot.rounds, offers, verdict)
    _nothing_lost(witness, offers, verdict)
    _in_time(snapshot, verdict)
    artifacts = _Artifacts(fleet)
    for record in snapshot.rounds:
        if record.kind == "train" and record.weights:
            _Round(fleet, record, offers[record.round_id], witness.plans, artifacts).check(verdict, retrain=retrain)
    return verdict


def _accepted(state: Path, records: Iterable[RoundRecord]) -> dict[str, list[Offer]]:
    """What counts, by the round that it counts in ("": in none yet, of jobs that fold late updates)."""
    store = Store(state)
    try:
        return {"": store.waiting(), **{record.round_id: store.accepted(record.round_id) for record in records}}
    finally:
        store.close()


def _count_once(records: Iterable[RoundRecord], offers: Mapping[str, list[Offer]], verdict: Verdict) -> None:
    seen: set[str] = set()
    for record in records:
        verdict.updates += len(offers[record.round_id])
        stored = sorted(offer.sender for offer in offers[record.round_id] if offer.round_id == record.round_id)
        late = any(offer.round_id != record.round_id for offer in offers[record.round_id])
        if record.round_id in seen or (stored != sorted(record.reports) and not late):
            verdict.problems.append(
                f"{record.round_id}: the store holds reports of {stored}, its record of {sorted(record.reports)}"
            )
        if not set(stored) <= set(record.selected):
            verdict.problems.append(f"{record.round_id}: {stored} reported, {record.selected} were selected")
        seen.add(record.round_id)


def _nothing_lost(witness: Witness, offers: Mapping[str, list[Offer]], verdict: Verdict) -> None:
    held = {(offer.round_id, offer.sender) for accepted in offers.values() for offer in accepted}
    for round_id, device in sorted(witness.accepted - held):
        verdict.problems.append(f"{round_id}: {device} was told that its report counts, and the store lacks it")


def _in_time(snapshot: Snapshot, verdict: Verdict) -> None:
    deadline = snapshot.job.federation.deadline_s
    verdict.longest_round_s = max((record.wall_seconds for record in snapshot.rounds), default=0.0)
    for record in snapshot.rounds:
        if record.wall_seconds > deadline + CLOSING_S:
            verdict.problems.append(
                f"{record.round_id}: lasted {record.wall_seconds:.1f} s with a deadline of {deadline:g} s"
            )


class _Artifacts:
    """Every artifact that the orchestrator or a device still holds, by digest."""

    def __init__(self, fleet: MortalFleet) -> None:
        self._fleet = fleet
        self._folders = [fleet.state / "artifacts"]
        self._folders += [fleet.device_state(name) / "artifacts" for name in fleet.ground.folders]
        self._programs = Programs(fleet.ground.engine)

    def read(self, digest: str) -> bytes | None:
        """Its bytes, whole and undamaged, or None if nobody has it."""
        for folder in self._folders:
            path = folder / digest
            if path.is_file() and digest_of(data := path.read_bytes()) == digest:
                return data
        return None

    def program(self, digest: str) -> Program | None:
        """A program, or None if nobody has it."""
        data = self.read(digest)
        return None if data is None else program_format.load(data)

    def trained(self, device: str, plan: Plan) -> bytes | None:
        """What a device sends that nothing happens to, carried out with its own artifacts and data."""
        state = self._fleet.device_state(device)
        store, data = ArtifactStore(state / "artifacts"), open_data(self._fleet.ground.folders[device])
        return Bench(data, store, self._programs, state / "deployed").carry_out(plan, lambda: False).update


class _Round:
    """One closed training round, done again."""

    def __init__(
        self, fleet: MortalFleet, record: RoundRecord, offers: list[Offer], plans: Mapping[tuple[str, str], Plan],
        artifacts: _Artifacts,
    ) -> None:  # fmt: skip
        self._fleet = fleet
        self._record = record
        self._offers = offers
        self._plans = {offer.sender: plans.get((record.round_id, offer.sender)) for offer in offers}
        self._artifacts = artifacts

    def check(self, verdict: Verdict, *, retrain: bool) -> None:
        """Fold the accepted updates again and, if asked, train each again."""
        if any(offer.round_id != self._record.round_id for offer in self._offers):
            return  # late updates count by their staleness, from the weights of another round
        try:
            self._refold(verdict)
            if retrain:
                self._retrain(verdict)
        except EdgeError as error:
            verdict.problems.append(f"{self._record.round_id} cannot be done again: {error}")

    def _refold(self, verdict: Verdict) -> None:
        start = self._start()
        if start is None:
            return  # the witness was cut off while this round was told: its start is not known
        program, previous = start
        accumulator = Accumulator(program.layout)
        for offer in self._offers:
            update = None if offer.manifest is None else self._artifacts.read(offer.manifest.artifact)
            if update is None:
                return  # a device's store has made room
            sent = sent_layout(program.layout, offer.report.samples)
            accumulator.fold(gather(sent, unpack(update)), offer.report.samples)
        verdict.refolded += 1
        if digest_of(pack(program.layout, accumulator.mean(previous))) != self._record.weights:
            verdict.problems.append(f"{self._record.round_id}: its weights are not the mean of its accepted updates")

    def _start(self) -> tuple[Program, Vector] | None:
        """The program and the weights that the round began with."""
        plan = next((plan for plan in self._plans.values() if plan is not None), None)
        if plan is None or plan.weights is None:
            return None
        program = self._artifacts.program(plan.program.artifact)
        weights = self._artifacts.read(plan.weights.manifest.artifact)
        return None if program is None or weights is None else (program, gather(program.layout, unpack(weights)))

    def _retrain(self, verdict: Verdict) -> None:
        for offer in self._offers:
            plan = self._plans[offer.sender]
            if plan is None or plan.weights is None or offer.manifest is None:
                continue
            if None in (self._artifacts.read(m.artifact) for m in (plan.program, plan.weights.manifest)):
                continue
            verdict.retrained += 1
            update = self._artifacts.trained(offer.sender, plan)
            if update is None or digest_of(update) != offer.manifest.artifact:
                verdict.problems.append(
                    f"{self._record.round_id}: {offer.sender} sent other weights than an undisturbed training gives"
                )
