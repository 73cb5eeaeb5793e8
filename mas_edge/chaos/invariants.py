"""What must hold when a job is done, whatever was done to its processes.

1. The job finished.
2. Every accepted update counted exactly once: the store's rows of a round are the reports in the round's record; those
   of late updates, where a job folds them, are the late reports in the record of the round that they count in.
3. Nothing that a device was told to be accepted is lost: every such word that was heard has its row in the store.
4. The weights are those of an undisturbed run with the same accepted updates, to the bit: what each round came to is
   folded again, in the order of the store, out of the updates themselves, each looked up by its digest; late ones and
   those of a buffer with the weight of their staleness.
5. Each update is what an undisturbed device would have sent: its training is done again from the weights, the program
   and the settings of its plan. This also holds a training that was resumed from a checkpoint to one that was not.
6. No round lasted longer than its deadline, counted from when the orchestrator opened it or took it up again.

``invariants_weights`` does what is done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mas_edge.chaos.fleet import MortalFleet
from mas_edge.chaos.invariants_weights import Verdict, do_again
from mas_edge.chaos.witness import Witness
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.messages import Offer

__all__ = ["Verdict", "check_run"]

CLOSING_S = 5.0  # after its deadline a round is aggregated and written down; a loaded disk takes seconds to sync


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
    do_again(fleet, snapshot.rounds, offers, witness.plans, verdict, retrain=retrain)
    return verdict


def _accepted(state: Path, records: Iterable[RoundRecord]) -> dict[str, list[Offer]]:
    """What counts, by the round that it counts in ("": in none yet, of jobs that fold late updates)."""
    store = Store(state)
    try:
        return {"": store.waiting(), **{record.round_id: store.accepted(record.round_id) for record in records}}
    finally:
        store.close()


def _count_once(records: Iterable[RoundRecord], offers: Mapping[str, list[Offer]], verdict: Verdict) -> None:
    seen: dict[str, RoundRecord] = {}
    for record in records:
        name, counted = record.round_id, offers[record.round_id]
        stored = sorted(offer.sender for offer in counted if offer.round_id == name)
        late = sorted((offer.round_id, offer.sender) for offer in counted if offer.round_id != name)
        verdict.updates += len(counted)
        verdict.late += len(late)
        if name in seen or stored != sorted(record.reports):
            verdict.problems.append(
                f"{name}: the store holds reports of {stored}, its record of {sorted(record.reports)}"
            )
        # Those of a round that was abandoned wait for the next one again; its record still names them.
        named = [] if record.outcome == "abandoned" else sorted((each.round_id, each.device) for each in record.late)
        if late != named:
            verdict.problems.append(f"{name}: the store holds late reports of {late}, its record of {named}")
        verdict.problems += [
            f"{name}: {each.device} is {each.staleness} rounds late in its record, and not so in those of the rounds"
            for each in record.late
            if each.round_id not in seen or each.staleness != record.index - seen[each.round_id].index
        ]
        if not set(stored) <= set(record.selected):
            verdict.problems.append(f"{name}: {stored} reported, {record.selected} were selected")
        seen[name] = record


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
