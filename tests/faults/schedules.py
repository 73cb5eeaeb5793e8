"""Whole jobs on one seeded scheduler that owns the network, the clocks, the disks and every death.

    python -m tests.faults.schedules --count 1000            # seeds 0 to 999
    python -m tests.faults.schedules --seed 17 --trace       # one of them, told step by step
    python -m tests.faults.schedules --seed 17 --shrink      # which of its faults it takes to fail
    python -m tests.faults.schedules --seed 17 --disk        # on a real disk

A schedule draws its fleet, its job and its faults from its seed: what may go wrong stands in ``schedule_faults``. At
some moment the faults end, and the job has to end as well. What must hold then is in ``schedule_rules``. The same seed
gives the same schedule on every machine, and on a simulated disk the same as on a real one.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.faults.schedule_disk import on_simulated_disks
from tests.faults.schedule_faults import NO_FAULTS
from tests.faults.schedule_world import KINDS, Schedule, ScheduleError, Story


@contextmanager
def _wall_clock(schedule: Schedule) -> Iterator[None]:
    """While a schedule is played, what time it is on the wall is what its machines' clocks say."""
    before, time.time = time.time, schedule.wall
    try:
        yield
    finally:
        time.time = before


@contextmanager
def _memory_directory() -> Iterator[Path]:
    """An empty directory in memory where there is one."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="schedule-", dir=shm if os.access(shm, os.W_OK) else None) as directory:
        yield Path(directory)


@contextmanager
def ended(
    seed: int, trace: Callable[[str], None] | None = None, without: Collection[str] = (), *, disk: bool = False
) -> Iterator[tuple[Schedule, Story]]:
    """A schedule that was played to its end, while its disks are there. Raises AssertionError if a rule is broken."""
    with ExitStack() as stack:
        directory = stack.enter_context(_memory_directory()) if disk else None
        schedule = Schedule(seed, directory, trace, without)
        with on_simulated_disks(), _wall_clock(schedule):
            story = schedule.run()
        yield schedule, story


def play(
    seed: int, trace: Callable[[str], None] | None = None, without: Collection[str] = (), *, disk: bool = False
) -> Story:
    """Play one schedule, without some of its faults. Raises ScheduleError, with the seed, if a rule is broken."""
    try:
        with ended(seed, trace, without, disk=disk) as (_, story):
            return story
    except Exception as error:
        message = (
            f"schedule {seed} failed: {type(error).__name__}: {error}\n"
            f"see it again, step by step: python -m tests.faults.schedules --seed {seed} --trace"
        )
        raise ScheduleError(message) from error


def shrink(seed: int) -> list[str]:
    """The kinds of faults that a failing schedule needs to fail; it passes without any one of them."""
    needed = list(NO_FAULTS)
    for kind in NO_FAULTS:
        fewer = [each for each in needed if each != kind]
        try:
            play(seed, without=[each for each in NO_FAULTS if each not in fewer])
        except ScheduleError:
            needed = fewer
    return needed


def main() -> int:
    """Play schedules and tell how fast."""
    parser = argparse.ArgumentParser(description="Whole jobs on one seeded scheduler.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="tell every step")
    parser.add_argument("--shrink", action="store_true", help="tell which faults the seed needs to fail")
    parser.add_argument("--disk", action="store_true", help="on a real disk: slower, and without power cuts")
    args = parser.parse_args()
    if args.shrink:
        print(f"schedule {args.seed} fails with: {', '.join(shrink(args.seed))}")
        return 0
    logging.disable(logging.CRITICAL)
    gc.disable()  # a schedule leaves some cycles behind, and looking for them takes a tenth of its time
    failed, sums = [], Counter[str]()
    began, cpu = time.perf_counter(), time.process_time()
    for seed in range(args.seed, args.seed + args.count):
        if seed % 100 == 0:
            gc.collect()
        try:
            story = play(seed, print if args.trace else None, disk=args.disk)
        except ScheduleError as error:
            failed.append(seed)
            print(error, file=sys.stderr)
            continue
        sums += story.counts
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    counts = ", ".join(f"{sums[kind]} {kind}" for kind in KINDS)
    print(
        f"{args.count} schedules ({counts}): {60 * args.count / wall:.0f} a minute, "
        f"{60 * args.count / cpu:.0f} a minute of processor time"
    )
    if failed:
        print(f"FAILED: {' '.join(map(str, failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
