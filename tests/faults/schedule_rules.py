"""What must hold after a schedule: held against the state on the disk, not against what anybody remembers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mas_edge.orchestrator import view
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.messages import Offer
from mas_edge.protocol.weights import ENCODER, Layout, derive, gather, part_weights, unpack
from tests.faults.schedule_disk import Home
from tests.faults.schedule_nodes import LAYOUT, samples_of, trained

TOLERANCE = 1e-6  # of a mean in float64 that is kept in float32


@dataclass(frozen=True)
class _Update:
    """A row of the store: a report that was accepted, and the round that it counts in ("": in none)."""

    round_id: str
    device: str
    counts_in: str


@dataclass
class Checked:
    """How much was looked at."""

    rounds: int
    late: int  # reports that counted in a later round


def check(home: Home, acknowledged: dict[tuple[str, str], int], artifacts: list[bytes]) -> Checked:
    """Hold a finished run to the rules. Raises AssertionError that names the rule.

    Args:
        home: the orchestrator's.
        acknowledged: (device, round) of every receipt that said a report is accepted, and how many rounds there were.
        artifacts: whatever the orchestrator ever made.
    """
    db = home.open()
    try:
        run, rows = view.read_database(db, Path("state")), db.execute("SELECT offer, counts_in FROM updates").fetchall()
    finally:
        if home.database is None:
            db.close()
    offers = [(msgspec.json.decode(offer, type=Offer), counts_in or "") for offer, counts_in in rows]
    updates = [_Update(offer.round_id, offer.sender, counts_in) for offer, counts_in in offers]
    _ended(run)
    _counted_once(run.rounds, updates)
    _nothing_lost(run.rounds, updates, acknowledged)
    late = _weights_are_the_mean_of_what_was_accepted(run, {digest_of(data): data for data in artifacts})
    return Checked(len(run.rounds), late)


def _ended(run: Snapshot) -> None:
    assert run.phase == "done", run.phase
    assert not run.open_rounds, "a round is open in a job that is done"
    names = [record.round_id for record in run.rounds]
    assert len(names) == len(set(names)), "a round closed twice"
    job, trains = run.job.federation, defaultdict(list)
    for record in run.rounds:
        if record.kind == "train" and record.outcome != "abandoned":
            trains[record.group].append(record.index)
    merged = list(range(job.most_merge_rounds))
    assert trains.pop("merged", []) == merged, "a merged round is missing, doubled or out of order"
    for group, indices in trains.items():
        assert indices == list(range(len(merged), job.rounds)), (
            f"a round of {group} is missing, doubled or out of order"
        )


def _counted_once(rounds: list[RoundRecord], updates: list[_Update]) -> None:
    own: dict[str, set[tuple[str, str]]] = defaultdict(set)
    late: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for each in updates:
        (own if each.round_id == each.counts_in else late)[each.counts_in].add((each.round_id, each.device))
    for record in rounds:
        name, abandoned = record.round_id, record.outcome == "abandoned"
        reported = {(name, device) for device in record.reports}
        folded = set() if abandoned else {(each.round_id, each.device) for each in record.late}
        assert reported == own[name], f"{name}: reports are not what was accepted"
        assert folded == late[name], f"{name}: late reports are not those that count in it"
        assert len(folded) == len(record.late) or abandoned, f"{name}: a late report stands in it twice"
        assert set(record.reports) <= set(record.selected), f"{name}: a report of a device not selected"
        for device, report in record.reports.items():
            if record.kind != "deploy":
                held = {task: n for task, n in samples_of(device).items() if task in record.tasks}
                assert report.samples == held, f"{name}: {device} counts {report.samples}"
        samples = {task: sum(r.samples.get(task, 0) for r in record.every_report) for task in record.samples}
        assert samples == record.samples, f"{name}: a report was counted twice or not at all"


def _nothing_lost(rounds: list[RoundRecord], updates: list[_Update], acknowledged: dict[tuple[str, str], int]) -> None:
    """What was acknowledged is there, and counts unless its network was never trained again."""
    numbers = {record.round_id: number for number, record in enumerate(rounds, 1)}
    there = {(each.device, each.round_id): each.counts_in for each in updates}
    for (device, round_id), opened in acknowledged.items():
        assert round_id in numbers, f"{round_id} was acknowledged and is not known"
        assert (device, round_id) in there, f"{round_id}: the report of {device} was acknowledged and is lost"
        group = rounds[numbers[round_id] - 1].group
        after = [
            record.round_id for record in rounds[opened:]
            if (record.kind, record.group) == ("train", group) and record.outcome != "abandoned"
        ]  # fmt: skip
        counted = there[device, round_id]
        assert counted or not after, (
            f"{round_id}: the report of {device} waits since before {after[:1]} and counts nowhere"
        )


Contribution = tuple[dict[str, np.ndarray[Any, Any]], dict[str, int], float]  # tensors, samples, how much it counts


def _weights_are_the_mean_of_what_was_accepted(run: Snapshot, made: dict[str, bytes]) -> int:
    """FedAvg by sample counts, written out once more; returns how many of the updates were late.

    theta = sum_k s_k n_k (now + theta_k - base_k) / sum_k s_k n_k, with s_k = (1 + rounds late)**-power. Of a round's
    own updates base_k is now, and s_k is 1.
    """
    current: dict[str, bytes] = {"merged": _first(made)}
    records, late, power = {r.round_id: r for r in run.rounds}, 0, run.job.federation.staleness_power
    for record in run.rounds:
        if record.kind != "train":
            continue
        layout = LAYOUT.of_parts({ENCODER, *record.tasks})
        before = current.get(record.group) or derive(current["merged"], layout)
        assert record.base == digest_of(before), f"{record.round_id}: it began from other weights than there were"
        if record.outcome == "abandoned":
            continue
        now = unpack(before)
        own = [_update(device, record, before, layout) for device in record.reports]
        contributions: list[Contribution] = [(update, samples, 1.0) for update, samples in own]
        for each in record.late:
            origin = records[each.round_id]
            assert each.staleness == record.index - origin.index >= 0, (
                f"{record.round_id}: {each.device} is not so late"
            )
            base = made[origin.base]
            update, samples = _update(each.device, origin, base, layout)
            start = unpack(base)
            moved = {name: values.astype(np.float64) + now[name] - start[name] for name, values in update.items()}
            contributions.append((moved, samples, (1 + each.staleness) ** -power))
            late += 1
        after = made[record.weights]
        _near(after, _mean(contributions, layout, before), layout, record.round_id)
        current[record.group] = after
    return late


def _update(device: str, record: RoundRecord, base: bytes, layout: Layout) -> tuple[dict[str, Any], dict[str, int]]:
    """What a device makes of a round, and its samples of the round's tasks."""
    samples = {task: count for task, count in samples_of(device).items() if task in record.tasks}
    return dict(unpack(trained(base, layout, device, record.round_id, record.tasks))), samples


def _mean(contributions: list[Contribution], layout: Layout, previous: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    result = gather(layout, unpack(previous)).astype(np.float64)
    for entry, place in zip(layout.entries, layout.slices().values(), strict=True):
        counted = [
            (scale * part_weights(samples).get(entry.part, 0), tensors[entry.name])
            for tensors, samples, scale in contributions if entry.name in tensors
        ]  # fmt: skip
        if total := sum(weight for weight, _ in counted):
            parts = [weight * values.astype(np.float64).reshape(-1) for weight, values in counted]
            result[place] = np.sum(parts, axis=0) / total
    return result


def _first(made: dict[str, bytes]) -> bytes:
    return next(data for data in made.values() if data[8:9] == b"{" and len(unpack(data)) == len(LAYOUT.entries))


def _near(weights: bytes, expected: np.ndarray, layout: Layout, round_id: str) -> None:
    found = gather(layout, unpack(weights))
    assert np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE), (
        f"{round_id}: its weights are not the mean of the updates that were accepted"
    )
