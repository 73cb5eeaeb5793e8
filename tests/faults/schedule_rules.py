"""What must hold after a schedule: held against the state on the disk, not against what anybody remembers."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from mas_edge.orchestrator import view
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import ENCODER, Layout, derive, gather, unpack
from tests.faults.schedule_nodes import LAYOUT, mean, samples_of, trained

TOLERANCE = 1e-6  # of a mean in float64 that is kept in float32


def check(directory: Path, acknowledged: set[tuple[str, str]], artifacts: list[bytes]) -> int:
    """Hold a finished run to the rules; returns its rounds. Raises AssertionError that names the rule.

    Args:
        directory: the orchestrator's state.
        acknowledged: (device, round) of every receipt that said a report is accepted.
        artifacts: whatever the orchestrator ever made.
    """
    run = view.read(directory)
    store = Store(directory)
    try:
        counted = {
            record.round_id: {offer.sender for offer in store.accepted(record.round_id)} for record in run.rounds
        }
    finally:
        store.close()
    _ended(run)
    _counted_once(run.rounds, counted, acknowledged)
    _weights_are_the_mean_of_what_was_accepted(run, {digest_of(data): data for data in artifacts})
    return len(run.rounds)


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


def _counted_once(rounds: list[RoundRecord], counted: dict[str, set[str]], acknowledged: set[tuple[str, str]]) -> None:
    for record in rounds:
        assert set(record.reports) == counted[record.round_id], f"{record.round_id}: reports are not what was accepted"
        assert set(record.reports) <= set(record.selected), f"{record.round_id}: a report of a device not selected"
        for device, report in record.reports.items():
            if record.kind != "deploy":
                held = {task: n for task, n in samples_of(device).items() if task in record.tasks}
                assert report.samples == held, f"{record.round_id}: {device} counts {report.samples}"
        samples = {task: sum(r.samples.get(task, 0) for r in record.reports.values()) for task in record.samples}
        assert samples == record.samples, f"{record.round_id}: a report was counted twice or not at all"
    known = {record.round_id for record in rounds}
    for device, round_id in acknowledged:
        assert round_id in known, f"{round_id} was acknowledged and is not known"
        assert device in counted[round_id], f"{round_id}: the report of {device} was acknowledged and is lost"


def _weights_are_the_mean_of_what_was_accepted(run: Snapshot, made: dict[str, bytes]) -> None:
    current: dict[str, bytes] = {"merged": _first(made)}
    for record in run.rounds:
        if record.kind != "train" or record.outcome == "abandoned":
            continue
        layout = LAYOUT.of_parts({ENCODER, *record.tasks})
        before = current.get(record.group) or derive(current["merged"], layout)
        after = made[record.weights]
        updates = {device: trained(before, layout, device, record.round_id, record.tasks) for device in record.reports}
        _near(after, mean(updates, layout, before), layout, record.round_id)
        current[record.group] = after


def _first(made: dict[str, bytes]) -> bytes:
    return next(data for data in made.values() if data[8:9] == b"{" and len(unpack(data)) == len(LAYOUT.entries))


def _near(weights: bytes, expected: np.ndarray, layout: Layout, round_id: str) -> None:
    found = gather(layout, unpack(weights))
    assert np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE), (
        f"{round_id}: its weights are not the mean of the updates that were accepted"
    )
