"""Making programs for the engines of a job."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from torch import nn

from mas_edge.job import Data, Federation, Job, Network, Task
from mas_edge.orchestrator.workshop import make_programs
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import JobError


def encoder(input_shape: tuple[int, ...]) -> nn.Module:
    """A network that forgets: its noise is drawn anew in every step."""
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Dropout(0.5))


def head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    return nn.Linear(feature_shape[0], task.classes)


JOB = Job(
    name="noisy",
    data=Data(input_shape=[3]),
    tasks=[Task(name="a", kind="class", classes=2, head=f"{__name__}:head")],
    network=Network(encoder=f"{__name__}:encoder"),
    federation=Federation(rounds=2, merge_rounds=1, groups=1, batch_size=4),
)


def test_a_network_that_one_engine_cannot_train_is_refused_with_the_way_out() -> None:
    with pytest.raises(JobError, match=r"encoder\.1.*dropout.*leave 'onnxruntime' out of `engines` in the job file"):
        make_programs(JOB, "merged", ["a"])


def test_a_program_is_made_for_each_engine_of_the_job_and_no_other() -> None:
    job = replace(JOB, network=Network(family="series"), tasks=[replace(JOB.tasks[0], head="")])
    job = replace(job, data=Data(input_shape=[3, 16]))
    programs = make_programs(job, "merged", ["a"])
    assert {engine: program_format.load(data).engine for engine, data in programs.items()} == {
        "torch": "torch", "onnxruntime": "onnxruntime",
    }  # fmt: skip
    assert list(make_programs(replace(job, engines=["onnxruntime"]), "merged", ["a"])) == ["onnxruntime"]
