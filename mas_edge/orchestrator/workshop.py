"""Making artifacts: programs, first weights, inference models. The only module of the service that imports torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mas_edge.export.cache import ExportCache
from mas_edge.export.gate import released
from mas_edge.export.inference import golden_of
from mas_edge.export.targets import FP32, TARGETS, exporter_of, require_installed
from mas_edge.export.trace import trace_program
from mas_edge.federation.supply import halves
from mas_edge.job import Job
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.mas.limits import Costs
from mas_edge.mas.merge import MERGED
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.memory import memory_needed
from mas_edge.protocol.models import ENGINE_OF
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import ENCODER, gather, pack, unpack


def make_programs(job: Job, group: str, tasks: Sequence[str], kept: Path | None = None) -> dict[str, bytes]:
    """Trace the group's program once, emit it for every engine of the job, and hold each against eager.

    What the folder ``kept`` holds of the same graph was verified before, and is neither emitted nor verified again.

    Raises:
        JobError: the network cannot be traced, or holds an operator that an engine of the job cannot run.
        ServerError: a program does not do what the network does.
    """
    program = _traced(job, group, tasks)
    cache = None if kept is None else ExportCache(kept)
    return {engine: _released(program, engine, job, cache) for engine in job.engines}


def make_program(
    job: Job, group: str, tasks: Sequence[str], engine: str, batch: int, kept: Path | None = None
) -> bytes:
    """The program of a group for one engine and another batch size than the job's, held against eager as every other.

    Raises:
        JobError, ServerError: as ``make_programs``.
    """
    smaller = _with_batch(job, batch)
    cache = None if kept is None else ExportCache(kept)
    return _released(_traced(smaller, group, tasks), engine, smaller, cache)


def memory_by_batch(job: Job, group: str, tasks: Sequence[str]) -> dict[str, dict[int, int]]:
    """The bytes that a group's programs take, by engine and batch size: the job's and the halves it can be traced at.

    A network may not train on very small batches: a batch norm needs more than one number.
    """
    found: dict[str, dict[int, int]] = {engine: {} for engine in job.engines}
    for batch in halves(job.federation.batch_size):
        try:
            program = _traced(_with_batch(job, batch), group, tasks)
        except JobError:
            break
        for engine, needs in found.items():
            needs[batch] = memory_needed(msgspec.structs.replace(program, engine=engine))
    return found


def group_costs(job: Job) -> dict[str, Costs]:
    """What the network of a group costs by resource, as the sum of its encoder's and its heads' costs.

    Parameters are exact. Multiply-accumulates, of a train step on one sample, and bytes of memory, of a whole batch,
    are measured on the traced steps of each task alone and of all together.

    Raises:
        JobError: a network cannot be traced.
    """
    tasks = [task.name for task in job.tasks]
    merged = trace_program(job, MERGED, tasks, ["train_step"])
    alone = {task: trace_program(job, task, [task], ["train_step"]).methods["train_step"] for task in tasks}
    whole, batch = merged.methods["train_step"], job.federation.batch_size
    parts: Counter[str] = Counter()
    for entry in merged.layout.entries:
        parts[entry.part] += entry.size
    return {
        "parameters": Costs(parts[ENCODER], {task: float(parts[task]) for task in tasks}),
        "multiply_accumulates": _added_up(
            whole.multiply_accumulates / batch, {t: each.multiply_accumulates / batch for t, each in alone.items()}
        ),
        "memory_bytes": _added_up(whole.memory_bytes, {t: each.memory_bytes for t, each in alone.items()}),
    }


def _added_up(together: float, alone: Mapping[str, float]) -> Costs:
    """Encoder and heads out of what networks of one task and of all tasks cost.

    Alone, task i costs encoder + head i, and all together encoder + the sum of the heads: the encoder is what the
    single networks cost too much, n - 1 times.
    """
    encoder = (sum(alone.values()) - together) / (len(alone) - 1) if len(alone) > 1 else 0.0
    encoder = min(max(encoder, 0.0), *alone.values())
    return Costs(encoder, {task: cost - encoder for task, cost in alone.items()})


def _traced(job: Job, group: str, tasks: Sequence[str]) -> Program:
    # After the split nobody asks how tasks help each other: a smaller program to push and to load.
    methods = ("train_step", "evaluate", "affinity") if group == MERGED else ("train_step", "evaluate")
    return trace_program(job, group, tasks, methods)


def _with_batch(job: Job, batch: int) -> Job:
    return msgspec.structs.replace(job, federation=msgspec.structs.replace(job.federation, batch_size=batch))


def _released(program: Program, engine: str, job: Job, cache: ExportCache | None) -> bytes:
    try:
        return released(program, engine, job, cache).program
    except JobError as error:
        message = f"{error}; or leave {engine!r} out of `engines` in the job file, if no device needs it"
        raise JobError(message) from None


def first_weights(job: Job, tasks: Sequence[str]) -> bytes:
    """The initial weights drawn from the job's seed, as safetensors bytes."""
    network = build(job, tasks)
    return pack(layout_of(network), vector_of(network))


def make_model(job: Job, tasks: Sequence[str], weights: bytes, suffix: str) -> bytes:
    """The model of a trained group in the format ``suffix``, verified against eager.

    Raises:
        JobError: the network cannot be written in that format.
        ServerError: the model does not do what the network does, or the packages that make it are not installed.
    """
    target = next(each for each in TARGETS.values() if each.engine == ENGINE_OF[suffix] and FP32 in each.precisions)
    require_installed(target)
    vector = gather(layout_of(build(job, tasks)), unpack(weights))
    model: bytes = exporter_of(target).export_inference(job, tasks, vector)
    return model


def make_golden(job: Job, tasks: Sequence[str], weights: bytes) -> bytes:
    """Golden inputs with the outputs that the model of a trained group must give, in every format."""
    return golden_of(job, tasks, gather(layout_of(build(job, tasks)), unpack(weights)), seed=job.seed)


def make_int8(job: Job, tasks: Sequence[str], weights: bytes) -> tuple[bytes, bytes]:
    """The model of a trained group for microboards, and golden samples with what it answers itself.

    Raises:
        JobError: the job names no samples to calibrate with, or the network cannot be int8.
        ServerError: LiteRT's converter is not installed.
    """
    from mas_edge.export.micro.deployable import make_deployable

    return make_deployable(job, tasks, gather(layout_of(build(job, tasks)), unpack(weights)))
