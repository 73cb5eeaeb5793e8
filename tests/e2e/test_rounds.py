"""Whole jobs with spare, late and buffered devices over a real broker: every report counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.orchestrator.result import result_of
from tests.brokers import Running
from tests.e2e.fleet import Fleet, job_text

DEVICES = ["ada", "bob", "cyd", "gus"]
SLOW = 2000  # train samples: one of the devices is slower than the others
KEYS: dict[str, str] = {
    "spare devices whose late updates count": 'over_selection = 1.5\nlate_updates = "fold"',
    "a buffer": 'mode = "buffered"\nconcurrency = 3',
}


@pytest.mark.parametrize("case", KEYS)
def test_a_job_is_done_with(case: str, running_broker: Running, tmp_path: Path) -> None:
    text = job_text(rounds=4, merge_rounds=3, per_round=2, min_devices=len(DEVICES))
    text = text.replace("over_selection = 1.0", KEYS[case])
    with Fleet(running_broker.url, tmp_path, text) as fleet:
        fleet.data(DEVICES[0], train=SLOW)
        for name in DEVICES:
            fleet.device(name)
        assert fleet.orchestrate().join() is True
        snapshot = fleet.snapshot()
    trained = [record for record in snapshot.rounds if record.kind == "train"]
    assert len({record.round_id for record in trained}) == 3 + 2 * 1
    assert len(trained[0].selected) > 2
    counted = [(record.round_id, device) for record in trained for device in record.reports]
    counted += [(late.round_id, late.device) for record in trained for late in record.late]
    assert len(set(counted)) == len(counted)
    assert all(len(record.reports) + len(record.late) >= 2 for record in trained)
    assert result_of(snapshot)["deployment"]["share"] == 1.0
