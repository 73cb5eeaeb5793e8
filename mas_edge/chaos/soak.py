"""A soak test: the job again and again on a private broker, with kills and spoilt packets, until time is up."""

from __future__ import annotations

import random
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from mas_edge.chaos.fleet import Ground
from mas_edge.chaos.harness import Recovery, Run, kill_anywhere
from mas_edge.chaos.nursery import Nursery
from mas_edge.chaos.proxy import Faults
from mas_edge.protocol.errors import ServerError

KILLS = 5  # a run: enough that two of them often overlap
MOST = 0.02  # share of the packets that each kind of fault befalls at most: a bad mobile network, not a broken one
MOST_CUT = 0.004  # some 500 packets pass in a small job: a cut or two


def draw_faults(seed: int) -> Faults:
    """The faults of one run: each kind with a rate of its own."""
    draw = random.Random(f"faults {seed}")  # noqa: S311 - not for secrets
    drop, delay, duplicate, reorder, truncate, corrupt = (draw.random() * MOST for _ in range(6))
    return Faults(drop, delay, duplicate, reorder, truncate, corrupt, cut=draw.random() * MOST_CUT)


def soak(
    job_file: Path, data: Path, out: Path, minutes: float, seed: int, devices: Sequence[str] = (),
    told: Callable[[str], None] = lambda _: None,
) -> Iterator[Run]:  # fmt: skip
    """Run the job with faults for about ``minutes``, at least once; what it does is told line by line.

    Everything lies below ``out``; runs in which all held are removed.

    Raises:
        JobError, DataError: the job file or the data folders are wrong.
        DeviceError: the engine does not work here.
        ServerError: ``out`` exists, or a process ended by itself; its run's folder is kept.
        BrokerError: mosquitto is not installed.
    """
    ground = Ground(job_file, data, out / "prepared", devices)
    _make(out)
    told(f"{len(ground.folders)} devices train with {ground.engine}; trying that it works here, and one export")
    ground.prepare()
    with Nursery(job_file) as nursery:
        nursery.wait_ready()
        until = time.monotonic() + 60 * minutes
        for number in count(seed):
            directory = out / f"seed-{number}"
            told(f"seed {number}: the job begins")
            run = kill_anywhere(ground, nursery, directory, number, KILLS, draw_faults(number), told)
            told(run.line)
            if not run.verdict.problems:
                ground.keep_exports(directory)
                shutil.rmtree(directory)
            yield run
            if time.monotonic() >= until:
                return


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        message = f"{out} exists: choose another --out, or remove it"
        raise ServerError(message) from None
    except OSError as error:
        message = f"{out} cannot be made: {error.strerror}; choose another --out"
        raise ServerError(message) from None


def recovery_times(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """By kind of fault: how often it was recovered from, and the median in seconds; the time that came nearest to its
    bound, or is furthest above it, with that bound; and how many are above their own.
    """
    found: dict[str, list[Recovery]] = defaultdict(list)
    for recovery in (recovery for run in runs for recovery in run.recoveries):
        found[recovery.kind].append(recovery)
    return {kind: _times(each) for kind, each in sorted(found.items())}


def _times(found: Sequence[Recovery]) -> dict[str, float]:
    worst = max(found, key=lambda recovery: recovery.seconds / recovery.bound_s)
    return {
        "count": len(found),
        "median_s": statistics.median(recovery.seconds for recovery in found),
        "worst_s": worst.seconds,
        "bound_s": worst.bound_s,
        "above": sum(recovery.seconds > recovery.bound_s for recovery in found),
    }


def summary_of(runs: Sequence[Run]) -> dict[str, Any]:
    """The soak test as plain JSON values."""
    return {
        "held": not any(run.verdict.problems for run in runs),
        "recovery": recovery_times(runs),
        "runs": [
            {
                "seed": run.seed, "seconds": run.seconds, "kills": run.kills, "faults": run.faults,
                "problems": run.verdict.problems, "updates": run.verdict.updates,
                "rounds_folded_again": run.verdict.refolded, "trainings_repeated": run.verdict.retrained,
                "longest_round_s": run.verdict.longest_round_s,
            }
            for run in runs
        ],
    }  # fmt: skip
