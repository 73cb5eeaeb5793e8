"""Who takes part in a round: fair first, then by lot; the same seed gives the same choice."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence

from mas_edge.job import Job
from mas_edge.protocol.memory import fitting_batch
from mas_edge.protocol.messages import Birth

Needs = Mapping[str, Mapping[int, int]]  # bytes that a program takes, by engine and batch size


def eligible(births: Mapping[str, Birth], job: Job, tasks: Collection[str], needs: Needs | None = None) -> list[str]:
    """The devices that can serve a group: same input shape, an engine, labels for one of its tasks, enough memory,
    and an owner whose rules allow it now.
    """
    return sorted(name for name, birth in births.items() if not why_not(birth, job, tasks, needs))


def deployable(births: Mapping[str, Birth], job: Job) -> list[str]:
    """The devices that can use the job's models: same input shape. Who has no labels needs a model's answers most."""
    return sorted(name for name, birth in births.items() if birth.input_shape == job.data.input_shape)


def why_not(birth: Birth, job: Job, tasks: Collection[str], needs: Needs | None = None) -> str:
    """Why this device cannot serve these tasks, in words for the operator; empty if it can.

    ``needs``: what the group's programs take; what is not known of an engine is no reason.
    """
    if birth.input_shape != job.data.input_shape:
        return f"its input has shape {birth.input_shape}, the job's {job.data.input_shape}"
    if birth.engine not in job.engines:
        return f"its engine is {birth.engine or 'not installed'}, the job's are {', '.join(job.engines)}"
    if not any(task in birth.tasks and birth.tasks[task].train > 0 for task in tasks):
        return f"it has no training labels for {', '.join(sorted(tasks))}; it has them for: {sorted(birth.tasks)}"
    needed = (needs or {}).get(birth.engine)
    if needed and fitting_batch(needed, birth.step_memory_bytes) is None:
        least = min(needed.values())
        return (
            f"a step on the smallest batch takes {_megabytes(least)} beside its process, it allows "
            f"{_megabytes(birth.step_memory_bytes)}: start it with more --memory, or with another engine"
        )
    return f"not now: {birth.ineligible}" if birth.ineligible else ""


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"


def told(goal: int, over_selection: float, idle: int, rounds: int) -> int:
    """How many devices to tell of a round that needs ``goal`` reports: ``over_selection`` times as many, rounded up.

    Never more than its share of the ``idle`` devices where ``rounds`` are to open side by side, for spare devices of
    one must not keep the next from opening.
    """
    wanted = math.ceil(round(goal * over_selection, 6))  # 10 * 1.1 is a little more than 11
    return max(goal, min(wanted, idle // max(rounds, 1)))


def select(candidates: Sequence[str], k: int, served: Mapping[str, int], seed: int, round_id: str) -> list[str]:
    """Choose up to ``k`` devices: those that served least so far, ties by a lot drawn from the seed and the round."""
    order = sorted(candidates)
    # Not for secrets: every orchestrator must draw the same lot from the same seed.
    random.Random(f"{seed}/{round_id}").shuffle(order)  # noqa: S311
    return sorted(sorted(order, key=lambda name: served.get(name, 0))[:k])
