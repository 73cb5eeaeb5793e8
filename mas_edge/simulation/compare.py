"""A job by several methods from several seeds, each run a process of its own; the table and the pictures of it.

Below the folder of a comparison:

    ledger.json         the job, the data's digest, wall times, machines
    runs/M-S.json       the result of method M from seed S; what is there is not run again
    state/M-S/          an unfinished run, which is gone on with
    logs/M-S.log        what the process of a run said
    table.md .csv .json, and pictures (mas_edge.simulation.plots)
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from device_runtime.edge.lock import lock_directory
from mas_edge.datasets.constant import constant_losses
from mas_edge.job import Job, load_job
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.simulation.children import Children, Failure, Orders, Watcher
from mas_edge.simulation.fleet import device_folders
from mas_edge.simulation.ledger import Ledger, open_ledger, save_ledger, this_machine
from mas_edge.simulation.outcome import Outcome
from mas_edge.simulation.pairs import Row, Summary, rows_of, summaries_of
from mas_edge.simulation.plan import Places, Plan, PlannedRun, plan_runs
from mas_edge.simulation.ranks import Ranking, SplitRank, ranking_of, split_ranks

Result = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """What to compare, where, and how."""

    job: Path
    data: Path
    out: Path
    methods: Sequence[str]
    seeds: Sequence[int]
    reference: str = ""
    workers: int = 1
    device: str = "cpu"
    exhaustive: bool = False
    command: str = ""  # as it was typed: for the table


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the table says; as JSON the whole of it."""

    command: str
    date: str
    machines: list[str]
    job: Job
    data: str  # the digest of all data folders
    device: str
    methods: list[str]
    seeds: list[int]
    reference: str
    missing: dict[str, str]  # runs that are not there, and why
    wall_seconds: (
        float  # of all runs, those that rank splits too; more than passed where runs were at work side by side
    )
    summaries: list[Summary]
    rows: list[Row]
    ranks: list[SplitRank]
    rankings: list[Ranking]


@dataclass(frozen=True)
class Compared:
    """The comparison, the results it is made of, and the runs that failed."""

    comparison: Comparison
    results: dict[tuple[str, int], Result]  # by method and seed
    failures: list[Failure]


def compare(choice: Choice, watcher: Watcher) -> Compared:
    """Run whatever is not there yet; go through all runs even if one fails, and say in the end which are missing.

    Raises:
        JobError: the job, a method or the reference is wrong, or the folder holds runs of something else.
        DataError: a data folder cannot be opened.
        ServerError: the folder cannot be used, or a process cannot be started.
        KeyboardInterrupt: all processes have ended; the same call goes on.
    """
    job = load_job(choice.job)
    plan = plan_runs(job, choice.methods, choice.seeds, choice.reference, choice.exhaustive)
    if choice.workers < 1:
        message = f"--workers is {choice.workers}; allowed: 1 or more"
        raise JobError(message)
    folders, places = device_folders(choice.data), Places(choice.out)
    with _locked(choice.out):
        ledger = open_ledger(choice.out, job, folders, choice.device)
        results = _finished(plan, places, job, folders)
        due = [run for run in plan.longest_first if (run.method, run.seed) not in results]
        watcher.planned(len(due), len(results))
        failures = _carry_out(choice, due, places, ledger, watcher) if due else []
        failed = {failure.run for failure in failures}
        for run in due:
            if run not in failed:
                results[run.method, run.seed] = _read(places.result(run))
        return Compared(_comparison(choice, plan, ledger, results, failures), results, failures)


class _locked:  # noqa: N801 - reads as a word of the with statement
    """The folder, for this process alone."""

    def __init__(self, out: Path) -> None:
        try:
            self._lock = lock_directory(out)
        except BlockingIOError:
            message = f"another mas-edge compare is at work in {out}; wait for it, or choose another --out"
            raise ServerError(message) from None
        except OSError as error:
            message = f"--out {out} cannot be used: {error}"
            raise ServerError(message) from None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _carry_out(
    choice: Choice, due: Sequence[PlannedRun], places: Places, ledger: Ledger, watcher: Watcher
) -> list[Failure]:
    machine = this_machine(choice.device)
    if machine not in ledger.machines:
        ledger.machines.append(machine)
    save_ledger(choice.out, ledger)
    orders = Orders(choice.job, choice.data, choice.device, places)
    with Children(orders, _Clerk(choice.out, ledger, places, watcher)) as children:
        return children.carry_out(due, choice.workers)


@dataclass(frozen=True)
class _Clerk:
    """Writes down the time that runs take, clears up behind those that are finished, and passes the word on."""

    out: Path
    ledger: Ledger
    places: Places
    watcher: Watcher

    def planned(self, due: int, there: int) -> None:
        self.watcher.planned(due, there)

    def begun(self, run: PlannedRun) -> None:
        self.watcher.begun(run)

    def working(self, run: PlannedRun) -> None:
        self.watcher.working(run)

    def ended(self, run: PlannedRun, seconds: float, failure: Failure | None) -> None:
        self.ledger.wall_seconds[run.name] = self.ledger.wall_seconds.get(run.name, 0.0) + seconds
        save_ledger(self.out, self.ledger)
        if failure is None:
            shutil.rmtree(self.places.state(run), ignore_errors=True)
        self.watcher.ended(run, seconds, failure)


def _finished(plan: Plan, places: Places, job: Job, folders: Sequence[Path]) -> dict[tuple[str, int], Result]:
    """The results that are there. Raises JobError if one is not that of the run which it is named after."""
    there = [run for run in plan.runs if places.result(run).exists()]
    constants = constant_losses(job, folders) if there else {}
    results = {}
    for run in there:
        path = places.result(run)
        result = _read(path)
        if problem := _foreign(result, run, constants, [folder.name for folder in folders]):
            message = f"{path} is {problem}: move it away, or choose another --out"
            raise JobError(message)
        shutil.rmtree(places.state(run), ignore_errors=True)  # we were killed before we could clear up
        results[run.method, run.seed] = result
    return results


def _read(path: Path) -> Result:
    """A result. Raises JobError if the file does not hold one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} is not a result of mas-edge simulate ({error}): move it away, or choose another --out"
        raise JobError(message) from None
    if not isinstance(found, dict) or "outcome" not in found:
        message = f"{path} is not a result of mas-edge simulate: move it away, or choose another --out"
        raise JobError(message)
    return found


def _foreign(result: Result, run: PlannedRun, constants: Mapping[str, float], devices: Sequence[str]) -> str:
    """Why it is not the result of that run; empty if it is."""
    try:
        job = msgspec.convert(result["job"], Job)  # keys that are newer than the result have their defaults
    except msgspec.ValidationError:
        return "a result of another version of mas-edge"
    if job != run.job:
        return f"not a result of this job by {run.method} from seed {run.seed}"
    if not _same(result["constant_loss"], constants) or sorted(result["devices"]) != sorted(devices):
        return "a result on other data"
    return ""


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Up to the order in which another machine sums."""
    return one.keys() == other.keys() and all(math.isclose(one[name], other[name], rel_tol=1e-6) for name in one)


def _comparison(
    choice: Choice, plan: Plan, ledger: Ledger, results: Mapping[tuple[str, int], Result], failures: Sequence[Failure]
) -> Comparison:
    table = {
        key: msgspec.convert(result["outcome"], Outcome) for key, result in results.items() if key[0] in plan.methods
    }
    walls = {(run.method, run.seed): ledger.wall_seconds.get(run.name) for run in plan.runs}
    rows = rows_of(table, plan.reference, {key: wall for key, wall in walls.items() if wall is not None})
    rows.sort(key=lambda row: (plan.methods.index(row.method), plan.seeds.index(row.seed)))
    rankings = [
        ranking_of(results[f"every-{number}", seed], number, seed)
        for number in plan.ranked
        for seed in plan.seeds
        if (f"every-{number}", seed) in results
    ]
    return Comparison(
        command=choice.command,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        machines=ledger.machines, job=ledger.job, data=ledger.data, device=ledger.device,
        methods=plan.methods, seeds=plan.seeds, reference=plan.reference,
        wall_seconds=sum(wall for wall in walls.values() if wall is not None),
        missing={failure.run.name: failure.reason for failure in failures},
        summaries=summaries_of(rows, plan.methods, plan.seeds), rows=rows,
        ranks=split_ranks(rows, rankings), rankings=rankings,
    )  # fmt: skip
