"""Making artifacts: programs, first weights, inference models. The only module of the service that imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mas_edge.export.cache import ExportCache
from mas_edge.export.gate import released
from mas_edge.export.inference import export_inference, golden_of
from mas_edge.export.trace import trace_program
from mas_edge.job import Job
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.mas.merge import MERGED
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import gather, pack, unpack


def make_programs(job: Job, group: str, tasks: Sequence[str], kept: Path | None = None) -> dict[str, bytes]:
    """Trace the group's program once, emit it for every engine of the job, and hold each against eager.

    What the folder ``kept`` holds of the same graph was verified before, and is neither emitted nor verified again.

    Raises:
        JobError: the network cannot be traced, or holds an operator that an engine of the job cannot run.
        ServerError: a program does not do what the network does.
    """
    # After the split nobody asks how tasks help each other: a smaller program to push and to load.
    methods = ("train_step", "evaluate", "affinity") if group == MERGED else ("train_step", "evaluate")
    program = trace_program(job, group, tasks, methods)
    cache = None if kept is None else ExportCache(kept)
    return {engine: _released(program, engine, job, cache) for engine in job.engines}


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


def make_inference(job: Job, tasks: Sequence[str], weights: bytes) -> tuple[bytes, bytes]:
    """The ONNX model of a trained group, and golden inputs with the outputs it must give."""
    vector = gather(layout_of(build(job, tasks)), unpack(weights))
    return export_inference(job, tasks, vector), golden_of(job, tasks, vector, seed=job.seed)
