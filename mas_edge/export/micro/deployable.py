"""What an orchestrator deploys to microboards: an int8 model, and golden samples that hold what it answers itself.

LiteRT's converter does not go together with the packages of a server, so it may live in an environment of its own: the
one whose Python the variable MAS_EDGE_LITERT_PYTHON names makes the model then, out of a folder, and answers into it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mas_edge.export.litert.conversion import TIMEOUT_S
from mas_edge.export.quality import open_samples
from mas_edge.export.targets import TARGETS, require_installed
from mas_edge.job import Job
from mas_edge.protocol import errors
from mas_edge.protocol.errors import DataError, EdgeError, JobError, ServerError
from mas_edge.protocol.weights import Entry, Layout, Vector, pack

VARIABLE = "MAS_EDGE_LITERT_PYTHON"
GOLDEN_SAMPLES = 4  # as many as of other formats; a board holds them in memory while it checks a model
REASON = 300  # characters of what a process wrote that are shown when it ended without a reason


class Deployable(NamedTuple):
    """The .tflite, and the safetensors of ``x`` and ``out.<task>``."""

    model: bytes
    golden: bytes


def make_deployable(job: Job, tasks: Sequence[str], vector: Vector) -> Deployable:
    """The model of ``tasks`` with the weights ``vector``, shape (P,), calibrated by the job's ``data.calibration``.

    Raises:
        JobError: the job names no samples, or samples that cannot be used; or the network cannot be int8.
        ServerError: the converter is neither here nor where VARIABLE says.
    """
    python = os.environ.get(VARIABLE, "")
    if not python:
        _require_converter()
    samples = _samples(job)
    return _elsewhere(python, job, tasks, vector, samples) if python else _here(job, tasks, vector, samples)


def _require_converter() -> None:
    try:
        require_installed(TARGETS["micro"])
    except ServerError as error:
        message = f"{error}, and set {VARIABLE} to its python"
        raise ServerError(message) from None


def _samples(job: Job) -> NDArray[np.float32]:
    if not job.data.calibration:
        message = "int8 needs real samples to set its ranges by: name a device folder in data.calibration of the job"
        raise JobError(message)
    try:
        found = open_samples([Path(job.data.calibration)], job.data.input_shape)
    except DataError as error:
        message = f"data.calibration: {error}"
        raise JobError(message) from None
    return found.calibration() if found else np.empty((0, *job.data.input_shape), np.float32)


def _here(job: Job, tasks: Sequence[str], vector: Vector, samples: NDArray[np.float32]) -> Deployable:
    from mas_edge.export.micro.board import answers_of  # like what follows, of the converter's environment
    from mas_edge.export.micro.export import export_micro

    made = export_micro(job, tasks, vector, samples)
    # Numbers like the samples: no sample of anybody leaves this machine.
    drawn = np.random.default_rng(job.seed).normal(samples.mean(), samples.std(), (GOLDEN_SAMPLES, *samples.shape[1:]))
    x = drawn.astype(np.float32)
    answers = answers_of(made.model, made.inputs[0], made.outputs, made.report.arena_bytes, x)
    tensors = {"x": x, **{f"out.{task}": answers[task] for task in tasks}}
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
    flat = np.concatenate([tensor.ravel() for tensor in tensors.values()])
    return Deployable(made.model, pack(layout, flat))


def _elsewhere(python: str, job: Job, tasks: Sequence[str], vector: Vector, samples: NDArray[np.float32]) -> Deployable:
    with tempfile.TemporaryDirectory(prefix="mas-edge-int8-") as made:
        room = Path(made)
        (room / "job.json").write_bytes(msgspec.json.encode([job, list(tasks)]))
        np.save(room / "vector.npy", vector)
        np.save(room / "samples.npy", samples)
        _run([python, "-m", "mas_edge.export.micro.deployable", made], room / "output")
        if (room / "error").exists():
            name, message = json.loads((room / "error").read_text())
            raise getattr(errors, name)(message)
        try:
            return Deployable((room / "model").read_bytes(), (room / "golden").read_bytes())
        except OSError:
            said = (room / "output").read_text(errors="replace").strip()[-REASON:]
            message = f"{python} of {VARIABLE} made no int8 model; is mas-edge installed there? It said: {said}"
            raise ServerError(message) from None


def _run(command: list[str], output: Path) -> None:
    try:
        with output.open("wb") as file:
            subprocess.run(  # noqa: S603 - the interpreter that the operator names, a module of ours
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=TIMEOUT_S, check=False
            )
    except OSError as error:
        message = f"{command[0]} of {VARIABLE} does not start: {error.strerror}; name a python of a LiteRT environment"
        raise ServerError(message) from None
    except subprocess.TimeoutExpired:
        message = f"{command[0]} of {VARIABLE} did not make an int8 model within {TIMEOUT_S} s"
        raise ServerError(message) from None


def main(room: Path) -> None:
    """In the other environment: ``python -m mas_edge.export.micro.deployable FOLDER``."""
    job, tasks = msgspec.json.decode((room / "job.json").read_bytes(), type=tuple[Job, list[str]])
    try:
        _require_converter()
        made = _here(job, tasks, np.load(room / "vector.npy"), np.load(room / "samples.npy"))
    except EdgeError as error:
        (room / "error").write_text(json.dumps([type(error).__name__, str(error)]))
        return
    (room / "model").write_bytes(made.model)
    (room / "golden").write_bytes(made.golden)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
