"""One simulated run from start to end: the job by its method, progress, the result."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from mas_edge.datasets.constant import constant_losses
from mas_edge.federation.methods import with_method
from mas_edge.job import Job, check
from mas_edge.orchestrator import view
from mas_edge.orchestrator.result import result_of
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting.following import event_files
from mas_edge.simulation.fleet import device_folders
from mas_edge.simulation.outcome import outcome_of
from mas_edge.simulation.run import Progress, Simulation
from mas_edge.whole_file import write_text


def simulated_job(job: Job, method: str = "", seed: int | None = None) -> Job:
    """The job as it is simulated: by ``method`` (empty: the job's own) and from ``seed`` (None: the job's own).

    A simulation runs one engine; its programs are the same graphs that every engine gets.

    Raises:
        JobError: there is no such method, or it does not fit the job.
    """
    chosen = with_method(job, method) if method else job
    one_engine = msgspec.structs.replace(chosen, engines=["torch"])
    return check(one_engine if seed is None else msgspec.structs.replace(one_engine, seed=seed))


def simulate_job(
    job: Job, data: Path, state: Path | None = None, device: str = "cpu", progress: Progress = lambda _: None,
    tensorboard: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train and evaluate ``job`` on a virtual device for each data folder below ``data``; the result as JSON values.

    ``state``: where the run is kept, and gone on with if it is there; None = nowhere. ``device``: ``cpu`` or ``cuda``.
    ``tensorboard``: where event files are written. The result is that of ``mas_edge.run_job`` with ``outcome`` (see
    ``mas_edge.simulation.outcome``) beside it.

    Raises:
        JobError, DataError, ServerError: see ``Simulation``.
        ServerError: there is no such ``device`` here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        message = (
            "--device cuda: PyTorch finds no CUDA graphics processor here; leave it out, "
            "or install a build of PyTorch for this machine's CUDA"
        )
        raise ServerError(message)
    with _kept(state) as directory, event_files(directory, tensorboard), _one_thread():
        Simulation(job, data, directory, f"torch:{device}").run(progress)
        result = result_of(view.read(directory), constant_losses(job, device_folders(data)))
    result["outcome"] = msgspec.to_builtins(outcome_of(result, device))
    return result


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: the same sums in the same order on every machine, and CPU seconds that are work, not waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _kept(state: Path | None) -> Iterator[Path]:
    if state is not None:
        yield state
        return
    with tempfile.TemporaryDirectory(prefix="mas-edge-") as directory:
        yield Path(directory)


def write_json(result: dict[str, Any], target: Path) -> None:
    """Write a result so that it is there whole or not at all. Raises ServerError if it cannot be written."""
    write_text(target, json.dumps(result, indent=2) + "\n")
