"""What a person sees while runs are at work: bars on a terminal, a line for each beginning and end elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mas_edge.federation.methods import planned_rounds
from mas_edge.protocol.errors import ServerError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mas_edge.simulation.children import Failure, Watcher
    from mas_edge.simulation.plan import PlannedRun

REFRESH_S = 1.0  # how often a bar looks into a run's state


@contextmanager
def watching(out: Path, output: TextIO) -> Iterator[Watcher]:
    """Somebody who tells ``output`` how the runs below ``out`` get on."""
    if not output.isatty():
        yield Lines(output)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=output), transient=True, refresh_per_second=2) as progress:
        yield Bars(out, progress)


class Lines:
    """A line for each run that begins, ends or fails."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def planned(self, due: int, there: int) -> None:
        """Say how much there is to do."""
        self._say(_amount(due, there))

    def begun(self, run: PlannedRun) -> None:
        """Say so."""
        self._say(f"{run.method} seed {run.seed}: running")

    def working(self, run: PlannedRun) -> None:
        """Nothing to say."""

    def ended(self, run: PlannedRun, seconds: float, failure: Failure | None) -> None:
        """Say what came of it."""
        self._say(_ending(run, seconds, failure))

    def _say(self, text: str) -> None:
        print(text, file=self._output, flush=True)


def _amount(due: int, there: int) -> str:
    return f"{due} run{'' if due == 1 else 's'} to do" + (f", {there} finished before" if there else "")


def _ending(run: PlannedRun, seconds: float, failure: Failure | None) -> str:
    ended, why = ("done", "") if failure is None else ("failed", f": {failure.reason}")
    return f"{run.method} seed {run.seed}: {ended} after {seconds:.0f} s{why}"


class Bars:
    """A bar for each run that is at work, by its training rounds."""

    def __init__(self, out: Path, progress: Progress) -> None:
        self._states = out / "state"
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._looked: dict[str, float] = {}
        self._all = progress.add_task("all runs", total=None, visible=False)

    def planned(self, due: int, there: int) -> None:
        """Show a bar for all runs together."""
        self._progress.update(self._all, completed=there, total=due + there, visible=due > 1)

    def begun(self, run: PlannedRun) -> None:
        """Show a bar."""
        total = sum(planned_rounds(run.job))
        self._bars[run.name] = self._progress.add_task(f"{run.method} seed {run.seed}", total=total)
        self._looked[run.name] = 0.0

    def working(self, run: PlannedRun) -> None:
        """Look how far it is, once in a while."""
        from mas_edge.orchestrator import view

        if time.monotonic() - self._looked[run.name] < REFRESH_S:
            return
        self._looked[run.name] = time.monotonic()
        with suppress(ServerError):  # it has not begun to write yet
            snapshot = view.read(self._states / run.name, last_events=0)
            done = sum(record.kind == "train" and record.outcome != "abandoned" for record in snapshot.rounds)
            phase = snapshot.phase.replace("_", " ")
            bar, total = self._bars[run.name], max(done, sum(planned_rounds(run.job)))  # every-N: more than planned
            self._progress.update(
                bar, completed=done, total=total, description=f"{run.method} seed {run.seed}: {phase}"
            )  # fmt: skip

    def ended(self, run: PlannedRun, seconds: float, failure: Failure | None) -> None:
        """Leave a line in the bar's place."""
        self._progress.remove_task(self._bars.pop(run.name))
        self._progress.advance(self._all)
        self._progress.console.print(_ending(run, seconds, failure), markup=False, highlight=False)
