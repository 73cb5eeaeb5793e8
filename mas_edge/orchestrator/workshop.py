"""Making artifacts: programs, first weights, inference models. The only module of the service that imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from mas_edge.export.inference import export_inference, golden_of
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import verify
from mas_edge.job import Job
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.mas.merge import MERGED
from mas_edge.protocol import program as program_format
from mas_edge.protocol.weights import gather, pack, unpack


def make_program(job: Job, group: str, tasks: Sequence[str]) -> bytes:
    """Trace the group's program and hold it against eager; a program that does not match raises ServerError."""
    # After the split nobody asks how tasks help each other: a smaller program to push and to load.
    methods = ("train_step", "evaluate", "affinity") if group == MERGED else ("train_step", "evaluate")
    program = trace_program(job, group, tasks, methods)
    verify(program, build(job, tasks), job)
    return program_format.dump(program)


def first_weights(job: Job, tasks: Sequence[str]) -> bytes:
    """The initial weights drawn from the job's seed, as safetensors bytes."""
    network = build(job, tasks)
    return pack(layout_of(network), vector_of(network))


def make_inference(job: Job, tasks: Sequence[str], weights: bytes) -> tuple[bytes, bytes]:
    """The ONNX model of a trained group, and golden inputs with the outputs it must give."""
    vector = gather(layout_of(build(job, tasks)), unpack(weights))
    return export_inference(job, tasks, vector), golden_of(job, tasks, vector, seed=job.seed)
