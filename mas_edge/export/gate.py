"""The one way out for programs: emit for an engine, hold against eager, remember what passed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from mas_edge.export import heads
from mas_edge.export.cache import ExportCache, Verified, key_of
from mas_edge.export.cost import with_costs
from mas_edge.export.targets import emitter_of
from mas_edge.export.verify import verify
from mas_edge.job import Job
from mas_edge.learning.network import build
from mas_edge.protocol import program as program_format
from mas_edge.protocol.program import Program

Step = Callable[[str], AbstractContextManager[None]]


def silent(_what: str) -> AbstractContextManager[None]:
    """Show nothing while a step runs."""
    return nullcontext()


def released(traced: Program, engine: str, job: Job, cache: ExportCache | None, step: Step = silent) -> Verified:
    """Return ``traced`` as a verified program for ``engine``, out of ``cache`` if it was made before.

    Raises:
        JobError: it holds an operator that the engine cannot run.
        ServerError: the emitted program does not do what the network does.
    """
    key = key_of(traced, engine)
    if cache is not None and (held := cache.get(key)) is not None:
        with step(f"training program for {engine}: kept from before, verified then"):
            renamed = msgspec.structs.replace(program_format.load(held.program), group=traced.group)
            return Verified(program_format.dump(renamed), held.comparisons)
    with step(f"training program for {engine}: emit"):
        program = heads.emit(traced, job) if engine == heads.MICRO else with_costs(emitter_of(engine)(traced), traced)
    with step(f"training program for {engine}: verify every method against eager"):
        found = Verified(program_format.dump(program), verify(program, build(job, traced.tasks), job))
    if cache is not None:
        cache.put(key, found)
    return found
