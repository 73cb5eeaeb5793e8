"""The records of a run small enough to write out: a job of two tasks, its rounds, offers and states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mas_edge.federation.flow import GroupState, JobState, RoundWork
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Manifest, Offer, Report
from mas_edge.protocol.weights import ENCODER, Entry, Layout

JOB = Job(
    name="j",
    data=Data(input_shape=[3]),
    tasks=[Task(name="a", kind="value"), Task(name="b", kind="value")],
    federation=Federation(rounds=4, merge_rounds=2, deadline_s=60.0),
)
STATE = JobState(run_id="j-1")
LAYOUT = Layout([Entry("encoder.w", [4, 2], ENCODER), Entry("a.w", [3], "a"), Entry("b.w", [2], "b")])
SENDER: dict[str, Any] = {"sender": "orchestrator", "boot_id": "o", "seq": 1}
REPORT = Report(
    samples={"a": 3, "b": 5}, losses={"a": 0.5, "b": 0.25}, affinity=[[0.1, 0.2], [0.3, 0.4]],
    affinity_measurements=2, steps=4, seconds={"train": 1.5},
)  # fmt: skip


def thing(name: str) -> Manifest:
    return describe(name.encode())


def group_state(name: str = "merged", **changes: Any) -> GroupState:
    fields: dict[str, Any] = {
        "name": name, "tasks": ["a", "b"],
        "programs": {"torch": thing("program"), "onnxruntime": thing("onnx")},
        "weights": thing("weights"),
        "next_round": 0, "end_round": 2,
    }  # fmt: skip
    return GroupState(**{**fields, **changes})


def spec(round_id: str = "merged-0000", *selected: str) -> RoundSpec:
    return RoundSpec(
        round_id, "train", "merged", 0, selected or ("pi-1", "pi-2"), 60.0, 1, {"pi-1": "torch", "pi-2": "onnxruntime"}
    )


def work(kind: Any = "train", group: str = "merged", index: int = 0) -> RoundWork:
    return RoundWork(f"{group}-{index:04d}", kind, group, index, f"{group}-{index:04d}")


def offer(device: str = "pi-1", round_id: str = "merged-0000", **changes: Any) -> Offer:
    fields: dict[str, Any] = {"sender": device, "boot_id": "b", "seq": 1, "job": "j-1", "report": REPORT}
    return Offer(round_id=round_id, **{**fields, **changes})


def record(round_id: str = "merged-0000", **changes: Any) -> RoundRecord:
    fields: dict[str, Any] = {
        "kind": "train", "group": "merged", "phase": "merge", "index": 0, "tasks": ["a", "b"], "outcome": "complete",
        "selected": ["pi-1", "pi-2"], "wall_seconds": 1.0,
    }  # fmt: skip
    return RoundRecord(round_id=round_id, **{**fields, **changes})


def numbers(layout: Layout = LAYOUT, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(layout.size).astype(np.float32)
