"""Runs small enough to write out, in a state directory as an orchestrator leaves it."""

from __future__ import annotations

import json
from pathlib import Path

from msgspec.structs import replace

from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Job
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, SplitRecord, Traffic
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.messages import Energy, Report
from tests.orchestrator.small_run import JOB, STATE, record

SPLIT = SplitRecord(
    tasks=["a", "b"], affinity=[[0.5, 2e-4], [-1e-4, 0.5]], affinity_devices=[[2, 2], [2, 2]], value=0.25, bound=0.25,
    groups=[["b"], ["a"]], serves=[["b"], ["a"]], runner_up=[["a", "b"]], runner_up_value=0.1,
    reason="two pay", affinity_spread=[[None, 0.1], [0.1, None]],
)  # fmt: skip
LOSSES = {"a": 0.5, "b": 0.25}
MEASURED = {"affinity": [[0.5, 0.0], [-1e-4, 0.5]], "affinity_devices": [[2, 0], [2, 2]]}


def report(device: str, joules: float) -> Report:
    energy = Energy(quality="measured", joules={"train": joules}, source="PMIC")
    return Report(samples={"a": 3, "b": 3}, losses=LOSSES, cpu_seconds=1.5, received_bytes=100, energy=energy)


def trained(index: int, group: str = "merged", **changes: object) -> RoundRecord:
    tasks = {"merged": ["a", "b"], "group-0": ["b"], "group-1": ["a"]}[group]
    made = record(
        f"{group}-{index:04d}", index=index, group=group, phase="merge" if group == "merged" else "groups",
        tasks=tasks, losses={task: LOSSES[task] / (index + 1) for task in tasks},
        joules={"measured": {"train": 3.0}}, traffic=Traffic(sent_weights=1000, received_update=400),
        reports={"pi-1": report("pi-1", 1.0), "pi-2": report("pi-2", 2.0)}, device_cpu_seconds=3.0,
    )  # fmt: skip
    return replace(made, **{**(MEASURED if group == "merged" else {}), **changes})


def evaluated(phase: str, group: str, index: int, loss: float) -> RoundRecord:
    tasks = {"merged": ["a", "b"], "group-0": ["b"], "group-1": ["a"]}[group]
    return record(
        f"evaluate-{phase}-{group}", kind="evaluate", phase=phase, group=group, tasks=tasks, index=index,
        losses=dict.fromkeys(tasks, loss), metrics=dict.fromkeys(tasks, 0.5), samples=dict.fromkeys(tasks, 8),
    )  # fmt: skip


MERGED = [evaluated("initial_evaluation", "merged", 0, 1.0), trained(0), trained(1)]
REST = [
    evaluated("merged_evaluation", "merged", 2, 0.5), trained(2, "group-0"), trained(2, "group-1"),
    trained(3, "group-0", outcome="abandoned", reports={}, refused={"pi-2": "too hot <b>"}, losses={}, joules={}),
    trained(3, "group-1"), evaluated("group_evaluation", "group-0", 4, 0.25),
    evaluated("group_evaluation", "group-1", 4, 0.2),
]  # fmt: skip


def write_run(state: Path, rounds: list[RoundRecord], phase: str = "done", job: Job = JOB) -> Path:
    """A run in ``state`` that stands in ``phase``, its rounds closed one after the other."""
    store = Store(state)
    begun = store.begin(job, STATE)
    add_rounds(store, begun, rounds)
    store.save(replace(begun, phase=phase), SPLIT if phase in ("groups", "done") else None)
    store.save_devices([
        DeviceRecord(name="pi-1", online=True, engine="torch", machine="aarch64", tasks={"a": 5, "b": 5}),
        DeviceRecord(name="pi-2", online=False, engine="onnxruntime", problem="its input differs", tasks={"a": 2}),
    ])  # fmt: skip
    store.close()
    return state


def add_rounds(store: Store, state: JobState, rounds: list[RoundRecord]) -> None:
    """Open and close rounds, with a line of the log for each, as the orchestrator does."""
    for each in rounds:
        spec = RoundSpec(each.round_id, each.kind, each.group, each.index, tuple(each.selected), 60.0, 1)
        store.open_round(spec, each.phase)
        store.close_round(each, state)
        store.log("warning" if each.refused else "info", f"{each.round_id}: {each.outcome} {dict(each.refused)}")


def write_result(out: Path, run: str, constant: float) -> None:
    """What a demo leaves beside its state."""
    (out / "result.json").write_text(json.dumps({"run": run, "constant_loss": {"a": constant}}))
