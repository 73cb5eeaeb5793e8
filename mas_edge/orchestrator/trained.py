"""Where trained weights come from: the state of a run, also while its orchestrator works, or a file of weights."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mas_edge.export.card import Measured, TrainingCard
from mas_edge.export.describe import Trained
from mas_edge.federation.flow import GroupState, JobState
from mas_edge.job import Job
from mas_edge.learning.network import build, layout_of
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import decode, open_database, read_rounds
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import EdgeError, JobError, ServerError, WeightsError
from mas_edge.protocol.weights import Vector, gather, require_finite, unpack

STAGES = {"initial_evaluation": "untrained", "merged_evaluation": "merged", "group_evaluation": "split"}
ATTEMPTS = 3  # an orchestrator at work may prune a round's weights between our look at the state and at the file


def of_run(directory: Path, group: str = "") -> list[Trained]:
    """The trained groups of the run in ``directory``: those of the split, before it the merged one; or just ``group``.

    ``directory`` is a ``--state`` of ``mas-edge serve`` or an ``--out`` of ``mas-edge demo``; nothing in it is changed.

    Raises:
        ServerError: there is no run there, nothing is trained yet, or its state is damaged.
        JobError: there is no group of that name.
    """
    state_dir = directory / "state" if (directory / "state" / "state.db").is_file() else directory
    for attempt in range(ATTEMPTS):
        job, state, records = _read(state_dir)
        try:
            return [_trained(state_dir, job, state, found, records) for found in _chosen(state, group, state_dir)]
        except FileNotFoundError as error:
            if attempt == ATTEMPTS - 1:
                message = (
                    f"the weights {Path(error.filename).name[:12]} of the run in {state_dir} are not there: "
                    "restore them from a copy"
                )
                raise ServerError(message) from None
    raise AssertionError  # the loop ends in one of the two ways above


def of_checkpoint(file: Path, job: Job, group: str = "", tasks: Sequence[str] = ()) -> Trained:
    """The weights in the safetensors ``file`` as a group of ``tasks``, by default all whose heads are in it.

    Raises:
        WeightsError: it is no such file, or its tensors are not those of the job's network.
        JobError: a task is none of the job, or its head is not in the file.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        message = f"{file} cannot be read: {error.strerror}; expected a run's directory or a file of weights"
        raise WeightsError(message) from None
    try:
        tensors = unpack(data)
    except WeightsError as error:
        message = f"{file} is no safetensors file of weights: {error}"
        raise WeightsError(message) from None
    held = [task.name for task in job.tasks if any(name.startswith(f"heads.{task.name}.") for name in tensors)]
    unknown = [name for name in tasks if name not in held]
    if unknown or not held:
        there = f"it holds the heads of {', '.join(held)}" if held else "it holds no head of a task of this job"
        message = f"{file}: {f'no head of {unknown[0]!r}; ' if unknown else ''}{there}; give the job it was trained by"
        raise JobError(message)
    chosen = tuple(dict.fromkeys(tasks)) or tuple(held)
    vector = _vector(job, chosen, tensors, str(file))
    return Trained(job, group or file.stem, chosen, vector, TrainingCard(run=f"the file {file.name}"))


def _read(state_dir: Path) -> tuple[Job, JobState, list[RoundRecord]]:
    try:
        db = open_database(state_dir)
        try:
            row = db.execute("SELECT job, state FROM job").fetchone()
            records = read_rounds(db)
        finally:
            db.close()
    except sqlite3.Error as error:
        message = f"state in {state_dir} cannot be read: {error}; restore it from a copy"
        raise ServerError(message) from None
    if row is None:
        message = f"no run in {state_dir} yet: the orchestrator has not begun"
        raise ServerError(message)
    return decode(row[0], Job), decode(row[1], JobState), records


def _chosen(state: JobState, group: str, state_dir: Path) -> list[GroupState]:
    everything = {each.name: each for each in state.networks}
    if not everything or state.phase in ("prepare", "initial_evaluation"):
        message = f"nothing is trained yet in {state_dir}: the run is at {state.phase.replace('_', ' ')}"
        raise ServerError(message)
    if not group:
        return state.groups or list(everything.values())
    if group not in everything:
        message = f"the run in {state_dir} has no group {group!r}; it has {', '.join(everything)}"
        raise JobError(message)
    return [everything[group]]


def _trained(state_dir: Path, job: Job, state: JobState, group: GroupState, records: Sequence[RoundRecord]) -> Trained:
    path = state_dir / "artifacts" / group.weights.artifact
    data = path.read_bytes()
    if digest_of(data) != group.weights.artifact:
        message = f"the weights of {group.name} in {path} are damaged: restore them from a copy"
        raise ServerError(message)
    where = f"the weights of {group.name} of run {state.run_id}"
    vector = _vector(job, group.tasks, unpack(data), where)
    names = (MERGED, group.name)
    trained = [r for r in records if r.kind == "train" and r.outcome != "abandoned" and r.group in names]
    devices = {device for record in trained for device in record.reports}
    training = TrainingCard(
        run=f"the run {state.run_id}", rounds=len(trained), devices=len(devices),
        seconds=round(sum(record.wall_seconds for record in trained), 3),
    )  # fmt: skip
    return Trained(job, group.name, tuple(group.tasks), vector, training, _measured(records, group))


def _vector(job: Job, tasks: Sequence[str], tensors: Mapping[str, NDArray[Any]], where: str) -> Vector:
    layout = layout_of(build(job, tasks))
    try:
        vector = gather(layout, tensors)
        require_finite(vector, where)
    except EdgeError as error:
        message = f"{where} are not those of the job {job.name!r}: {error}"
        raise WeightsError(message) from None
    return vector


def _measured(records: Sequence[RoundRecord], group: GroupState) -> dict[str, list[Measured]]:
    """The evaluations that say something about this group's weights, by task in the order of the stages."""
    found: dict[str, list[Measured]] = {task: [] for task in group.tasks}
    for record in records:
        stage = STAGES.get(record.phase, "") if record.kind == "evaluate" and record.outcome != "abandoned" else ""
        if not stage or record.group not in (MERGED, group.name):
            continue
        for task in set(group.tasks) & set(record.losses):
            by_device = [r.metrics[task] for r in record.reports.values() if r.samples.get(task) and task in r.metrics]
            found[task].append(
                Measured(
                    stage=stage, loss=record.losses[task], metric=record.metrics[task], samples=record.samples[task],
                    devices=len(by_device), lowest=min(by_device, default=0.0), highest=max(by_device, default=0.0),
                )
            )  # fmt: skip
    return found
