"""A run of two small groups as an orchestrator leaves it, and the data folder of one of its devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import GroupState, JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Card, Job
from mas_edge.learning.network import build, layout_of, vector_of
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Report
from mas_edge.protocol.weights import Vector, derive, pack
from tests.learning.jobs import KINDS, series_job

TASKS = ["label", "amount", "down"]
GROUPS = {"group-0": ["label", "down"], "group-1": ["amount"]}
JOB = replace(
    series_job([task for task in KINDS if task.name in TASKS]),
    name="small",
    card=Card(description="Made | up.", licence="CC0", units={"amount": "m/s"}),
)
STAGES = {"initial_evaluation": 1.0, "merged_evaluation": 0.5, "group_evaluation": 0.25}


def weights_of(job: Job, tasks: list[str]) -> Vector:
    """Weights that are not those a network begins with."""
    vector = vector_of(build(job, tasks))
    return vector + np.random.default_rng(5).normal(0, 0.05, vector.shape).astype(np.float32)


def write_run(directory: Path, *, phase: str = "done", split: bool = True) -> bytes:
    """Write the state; returns the merged weights."""
    store, artifacts = Store(directory), ArtifactStore(directory / "artifacts")
    merged = pack(layout_of(build(JOB, TASKS)), weights_of(JOB, TASKS))
    nothing = describe(b"program")

    def group(name: str, tasks: list[str]) -> GroupState:
        weights = artifacts.put(derive(merged, layout_of(build(JOB, tasks))))
        return GroupState(
            name=name, tasks=tasks, programs={"torch": nothing}, weights=weights, next_round=2, end_round=2
        )

    groups = [group(name, tasks) for name, tasks in GROUPS.items()] if split else []
    state = JobState(run_id="small-1", phase=phase, merged=group("merged", TASKS), groups=groups)  # type: ignore[arg-type]
    store.begin(JOB, state)
    for record in [*_evaluations(), *_training()] if split else []:
        spec = RoundSpec(
            record.round_id, record.kind, record.group, 0, ("a", "b"), 60.0, 1, {"a": "torch", "b": "torch"}
        )
        store.open_round(spec, record.phase)
        store.close_round(record, state)
    store.close()
    return merged


def _training() -> list[RoundRecord]:
    reports = {name: Report(samples={}, losses={}) for name in ("a", "b")}
    return [
        RoundRecord(
            round_id=f"{group}-0", kind="train", group=group, phase="merge", index=0, tasks=TASKS, outcome="complete",
            selected=["a", "b"], wall_seconds=1.5, reports=reports,
        )
        for group in ("merged", "group-0")
    ]  # fmt: skip


def _evaluations() -> list[RoundRecord]:
    found = []
    for phase, loss in STAGES.items():
        for group in GROUPS if phase == "group_evaluation" else ["merged"]:
            tasks = GROUPS.get(group, TASKS)
            reports = {
                device: Report(
                    samples=dict.fromkeys(tasks, 8),
                    losses=dict.fromkeys(tasks, loss),
                    metrics=dict.fromkeys(tasks, metric),
                )
                for device, metric in (("a", loss / 2), ("b", loss * 2))
            }
            found.append(
                RoundRecord(
                    round_id=f"{phase}-{group}", kind="evaluate", group=group, phase=phase, index=0, tasks=tasks,
                    outcome="complete", selected=["a", "b"], wall_seconds=1.0, losses=dict.fromkeys(tasks, loss),
                    metrics=dict.fromkeys(tasks, loss), samples=dict.fromkeys(tasks, 16), reports=reports,
                )
            )  # fmt: skip
    return found


def write_folder(directory: Path, samples: int = 40, shape: tuple[int, ...] = (2, 16)) -> Path:
    """A device folder of ``samples`` samples, one in four of them for testing."""
    directory.mkdir(parents=True)
    random = np.random.default_rng(3)
    tables = '[tasks.label]\nkind = "class"\nclasses = 3\n[tasks.amount]\nkind = "value"\n'
    (directory / "data.toml").write_text(f"format = 1\ninput_shape = {list(shape)}\n{tables}")
    arrays = {
        "x": random.normal(size=(samples, *shape)).astype(np.float32),
        "split": (np.arange(samples) % 4 == 3).astype(np.uint8),
        "label": random.integers(0, 3, samples),
        "amount": random.normal(size=samples).astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    return directory
