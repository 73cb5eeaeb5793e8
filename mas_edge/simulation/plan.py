"""Which runs a comparison is made of, and where each of them lies below its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mas_edge.job import Job
from mas_edge.mas.controls import stirling
from mas_edge.protocol.errors import JobError
from mas_edge.simulation.single import simulated_job

REFERENCE = "one-by-one"  # the paper's: every task for itself
# Methods that take longer than the others, the longest first: begun last, one of them would run alone at the end.
LONG = ("every", "hoa", "tag", "one-by-one")


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One method from one seed; equal to nothing but itself."""

    method: str
    seed: int
    job: Job

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.method}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs: those of the table, then those that only rank its splits."""

    methods: list[str]
    seeds: list[int]
    reference: str
    ranked: list[int]  # numbers of groups of which all splits are ranked
    runs: list[PlannedRun]

    @property
    def longest_first(self) -> list[PlannedRun]:
        """The runs in the order in which they are begun."""
        return sorted(self.runs, key=_length)


def _length(run: PlannedRun) -> int:
    stem = run.method.rstrip("0123456789").rstrip("-")
    return LONG.index(stem) if stem in LONG else len(LONG)


def plan_runs(
    job: Job, methods: Sequence[str], seeds: Sequence[int], reference: str = "", exhaustive: bool = False
) -> Plan:
    """Return the runs of a comparison.

    ``reference`` empty: one-by-one if it is among the methods, else the first of them. ``exhaustive``: also train all
    groups of the splits into N for every mas-N, from the same seeds.

    Raises:
        JobError: a method does not exist or does not fit the job, one or a seed is named twice, or the reference is
            not among the methods.
    """
    _check_once(methods, "--methods")
    _check_once(list(map(str, seeds)), "--seeds")
    if every := [method for method in methods if method.startswith("every")]:
        message = f"{every[0]} trains all groups and is no method to compare: leave it to --exhaustive"
        raise JobError(message)
    chosen = reference or (REFERENCE if REFERENCE in methods else methods[0])
    if chosen not in methods:
        message = f"--reference {chosen} is not among the methods; expected one of {', '.join(methods)}"
        raise JobError(message)
    numbers = _ranked(job, methods) if exhaustive else []
    named = [*methods, *(f"every-{number}" for number in numbers)]
    runs = [PlannedRun(method, seed, simulated_job(job, method, seed)) for method in named for seed in seeds]
    return Plan(list(methods), list(seeds), chosen, numbers, runs)


def _check_once(words: Sequence[str], option: str) -> None:
    if not words:
        message = f"{option} is empty: expected at least one"
        raise JobError(message)
    if twice := [word for number, word in enumerate(words) if word in words[:number]]:
        message = f"{option} holds {twice[0]} twice: expected each once"
        raise JobError(message)


def _ranked(job: Job, methods: Sequence[str]) -> list[int]:
    """The numbers of groups of all mas-N; not those into which there is only one split."""
    jobs = [simulated_job(job, method) for method in methods]
    mas = [each for each in jobs if (each.method.name, each.method.split) == ("mas", "affinity")]
    numbers = {each.federation.groups for each in mas if each.method.start == "merged"}
    fixed = sorted(number for number in numbers if isinstance(number, int))
    return [number for number in fixed if stirling(len(job.tasks), number) > 1]


@dataclass(frozen=True)
class Places:
    """Where things lie below the folder of a comparison."""

    out: Path

    def result(self, run: PlannedRun) -> Path:
        """The run's result, there if it is finished."""
        return self.out / "runs" / f"{run.name}.json"

    def state(self, run: PlannedRun) -> Path:
        """What an unfinished run goes on from."""
        return self.out / "state" / run.name

    def log(self, run: PlannedRun) -> Path:
        """What its process said."""
        return self.out / "logs" / f"{run.name}.log"
