"""A board in a job: the real MicroPython with a board's heap, a real broker, the real orchestrator, Python devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.protocol.weights import ENCODER
from tests.brokers import Running
from tests.e2e.fleet import INPUT_SHAPE, TASKS, Fleet, job_text, until
from tests.micro.board import Board, configure, needs_micropython

pytestmark = [pytest.mark.e2e, needs_micropython]
KINDS = {"sign": {"kind": "class", "classes": 2}, "mean": {"kind": "value"}, "way": {"kind": "direction"}}


def board_in(fleet: Fleet, name: str = "esp") -> Board:
    """A board of this fleet with labels for every task."""
    folder, tasks = fleet.directory / name, {task: KINDS[task] for task in TASKS}
    path = configure(
        folder, fleet.url, name, fleet.job.fleet, fleet.data(name), tasks=tasks, input_shape=list(INPUT_SHAPE)
    )
    return Board(path)


def test_a_board_takes_part_in_a_whole_job_with_python_devices(running_broker: Running, tmp_path: Path) -> None:
    text = 'engines = ["torch", "micro"]\n' + job_text(per_round=3, min_devices=3)
    with Fleet(running_broker.url, tmp_path, text) as fleet, board_in(fleet) as board:
        for name in ("ada", "bob"):
            fleet.device(name)
        fleet.serve()  # a process: it is in the middle of its work when this ends
        # What comes after are models for Python devices: no board takes part in it.
        until(lambda: fleet.snapshot().phase in ("export", "deploy", "done"), f"the rounds: {board.console}")
        snapshot = fleet.snapshot()
    trained = [record for record in snapshot.rounds if record.kind == "train"]
    assert [record.round_id for record in trained if "esp" not in record.reports] == []
    for record in trained:
        report = record.reports["esp"]
        assert report.engine == "micro"
        assert report.samples[ENCODER] == 0
        assert {task for task in record.tasks if report.samples[task] == 32} == set(record.tasks)
    evaluated = [record for record in snapshot.rounds if record.kind == "evaluate"]
    assert [record.round_id for record in evaluated if "esp" not in record.reports] == []
    assert evaluated[-1].reports["esp"].losses.keys() == set(evaluated[-1].tasks)
