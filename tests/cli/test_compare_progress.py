"""What is shown while runs are at work."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from mas_edge.cli.compare_progress import Bars, Lines, watching
from mas_edge.job import load_job
from mas_edge.simulation.children import Failure
from mas_edge.simulation.plan import PlannedRun, plan_runs
from mas_edge.simulation.run import Simulation
from tests.simulation.tiny import write_data, write_job


def planned(tmp_path: Path) -> PlannedRun:
    return plan_runs(load_job(write_job(tmp_path)), ["mas-2"], [3]).runs[0]


def test_a_file_gets_a_line_for_each_beginning_and_end(tmp_path: Path) -> None:
    output, run = io.StringIO(), planned(tmp_path)
    with watching(tmp_path, output) as watcher:
        assert isinstance(watcher, Lines)
        watcher.planned(1, 2)
        watcher.begun(run)
        watcher.working(run)
        watcher.ended(run, 12.4, None)
        watcher.ended(run, 1.0, Failure(run, 3, "no split fits"))
    assert output.getvalue().splitlines() == [
        "1 run to do, 2 finished before",
        "mas-2 seed 3: running",
        "mas-2 seed 3: done after 12 s",
        "mas-2 seed 3: failed after 1 s: no split fits",
    ]


def test_a_terminal_gets_bars_that_follow_the_rounds_of_a_run(tmp_path: Path) -> None:
    run = planned(tmp_path)
    Simulation(run.job, write_data(tmp_path / "data"), tmp_path / "state" / run.name).run()
    progress = Progress(console=Console(file=io.StringIO(), force_terminal=True, width=200))
    bars = Bars(tmp_path, progress)
    bars.planned(2, 1)
    bars.begun(run)
    bars.working(run)
    everything, own = progress.tasks
    assert (everything.completed, everything.total) == (1, 3)
    assert (own.completed, own.total) == (3, 3)  # a merged round, and one of each group
    assert own.description == "mas-2 seed 3: export"
    bars.ended(run, 1.0, None)
    assert [task.completed for task in progress.tasks] == [2]


def test_a_run_that_has_not_begun_to_write_has_a_bar_at_nothing(tmp_path: Path) -> None:
    progress, run = Progress(console=Console(file=io.StringIO())), planned(tmp_path)
    bars = Bars(tmp_path, progress)
    bars.begun(run)
    bars.working(run)
    assert progress.tasks[1].completed == 0
