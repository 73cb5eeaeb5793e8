"""The closed training rounds of a run, done again: every update trained anew, and every round's weights folded anew.

An update is looked for on every disk by its digest. Where it is gone (devices let go of what was accepted) it is the
one that is trained again, if that has the digest that was accepted. What a round needs lies beside each other in a
store of its own, so that it is folded as the orchestrator does it: in the order in which the updates were accepted, the
late ones from the weights that they began from, and with the weight of their staleness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from device_runtime.data import open_data
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.work import Bench, Programs
from mas_edge.chaos.fleet import MortalFleet
from mas_edge.federation.late import staleness_weight
from mas_edge.federation.robust import Rule
from mas_edge.job import Federation
from mas_edge.orchestrator.folding import Folding, Origin
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import Offer, Plan
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Layout, Vector, gather, pack, sent_layout, unpack

Plans = Mapping[tuple[str, str], Plan]  # by round and device


@dataclass
class Verdict:
    """What was found: ``problems`` is empty if everything holds; the counts say how much was looked at."""

    problems: list[str] = field(default_factory=list)
    updates: int = 0
    late: int = 0  # of them: those that counted in a later round
    refolded: int = 0  # rounds whose weights were folded again
    retrained: int = 0  # updates that were trained again
    longest_round_s: float = 0.0


class _Artifacts:
    """Every artifact that the orchestrator or a device still holds, and those that were made again in ``again``."""

    def __init__(self, fleet: MortalFleet, again: Path) -> None:
        self._fleet = fleet
        self.store = ArtifactStore(again)
        self._folders = [fleet.state / "artifacts"]
        self._folders += [fleet.device_state(name) / "artifacts" for name in fleet.ground.folders]
        self._programs = Programs(fleet.ground.engine)

    def have(self, digest: str) -> bool:
        """Put an artifact into the store, whole and undamaged; returns whether anybody has it."""
        if self.store.has(digest):
            return True
        for folder in self._folders:
            path = folder / digest
            if path.is_file() and digest_of(data := path.read_bytes()) == digest:
                self.store.put(data, durable=False)
                return True
        return False

    def vector(self, digest: str, layout: Layout) -> Vector:
        """Weights that are in the store, shape (layout.size,)."""
        return gather(layout, unpack(self.store.read(digest)))

    def program(self, digest: str) -> Program | None:
        """A program, or None if nobody has it."""
        return program_format.load(self.store.read(digest)) if self.have(digest) else None

    def train(self, device: str, plan: Plan) -> str | None:
        """What a device sends that nothing happens to: the digest of its update, which is in the store then.

        None if what the plan names is gone.
        """
        if plan.weights is None or not (self.have(plan.program.artifact) and self.have(plan.weights.manifest.artifact)):
            return None
        data = open_data(self._fleet.ground.folders[device])
        bench = Bench(data, self.store, self._programs, self._fleet.device_state(device) / "deployed")
        update = bench.carry_out(plan, lambda: False).update
        return None if update is None else self.store.put(update, durable=False).artifact


def do_again(
    fleet: MortalFleet, records: Sequence[RoundRecord], offers: Mapping[str, Sequence[Offer]], plans: Plans,
    verdict: Verdict, *, retrain: bool,
) -> None:  # fmt: skip
    """Hold every closed training round to what comes out when it is done again.

    Args:
        fleet: where everything lies; nobody works there any more. A folder ``again`` is made beside it.
        records: every closed round, oldest first.
        offers: by round, the reports that count in it, in the order in which they were accepted.
        plans: of the devices, as far as they were heard.
        verdict: takes what is found.
        retrain: train every update again as well.
    """
    federation = fleet.ground.job.federation
    rounds = _Rounds(federation, records, plans, _Artifacts(fleet, fleet.directory / "again"))
    for record in records:
        if record.kind != "train":
            continue
        counted = offers[record.round_id]
        try:
            if retrain:
                rounds.retrain(record, counted, verdict)
            if record.weights:
                rounds.refold(record, counted, verdict)
        except EdgeError as error:
            verdict.problems.append(f"{record.round_id} cannot be done again: {error}")


class _Rounds:
    """The training rounds of one run."""

    def __init__(
        self, federation: Federation, records: Sequence[RoundRecord], plans: Plans, artifacts: _Artifacts
    ) -> None:
        self._federation, self._plans, self._artifacts = federation, plans, artifacts
        self._records = {record.round_id: record for record in records}
        self._programs = {self._records[name].group: plan.program.artifact for name, plan in self._trainings()}

    def _trainings(self) -> Iterator[tuple[str, Plan]]:
        for (round_id, _), plan in self._plans.items():
            if plan.kind == "train" and round_id in self._records:
                yield round_id, plan

    def retrain(self, record: RoundRecord, offers: Sequence[Offer], verdict: Verdict) -> None:
        """Train every update that counts in a round again."""
        for offer in offers:
            plan = self._plans.get((offer.round_id, offer.sender))
            if plan is None or offer.manifest is None or (found := self._artifacts.train(offer.sender, plan)) is None:
                continue  # the witness was cut off while it was told, or a store has made room
            verdict.retrained += 1
            if found != offer.manifest.artifact:
                verdict.problems.append(
                    f"{offer.round_id}: {offer.sender} sent other weights than an undisturbed training gives"
                    + (f" (they count in {record.round_id})" if offer.round_id != record.round_id else "")
                )

    def refold(self, record: RoundRecord, offers: Sequence[Offer], verdict: Verdict) -> None:
        """Fold everything that counts in a round again, if all of it is still there."""
        artifacts = self._artifacts
        program = artifacts.program(self._programs.get(record.group, record.base))
        wanted = {record.base, *(offer.manifest.artifact for offer in offers if offer.manifest)}
        wanted |= {self._records[offer.round_id].base for offer in offers}
        if record.group not in self._programs or program is None or not all(artifacts.have(each) for each in wanted):
            return
        layout, now = program.layout, artifacts.vector(record.base, program.layout)
        folding = Folding(layout, Rule.of(self._federation), artifacts.store, record.base)
        for offer in offers:
            self._fold(folding, layout, record, offer, now)
        verdict.refolded += 1
        found = self._artifacts.store.put(pack(layout, folding.mean(now)), durable=False)  # a later round began from it
        if found.artifact != record.weights:
            verdict.problems.append(f"{record.round_id}: its weights are not the mean of its accepted updates")

    def _fold(self, folding: Folding, layout: Layout, record: RoundRecord, offer: Offer, now: Vector) -> None:
        assert offer.manifest is not None  # noqa: S101 - a training report without weights is never accepted
        artifact, samples = offer.manifest.artifact, offer.report.samples
        update = self._artifacts.vector(artifact, sent_layout(layout, samples))
        if offer.round_id == record.round_id:
            folding.fold(offer.sender, artifact, update, samples)
            return
        origin = self._records[offer.round_id]
        scale = staleness_weight(record.index - origin.index, self._federation.staleness_power)
        base = self._artifacts.vector(origin.base, layout)
        folding.fold_late(artifact, update, samples, Origin(origin.index, base, now, origin.base), scale)
