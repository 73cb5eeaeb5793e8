"""Making programs for the engines of a job."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from msgspec.structs import replace
from torch import nn

from mas_edge.export import verify
from mas_edge.export.onnx_training import emitter
from mas_edge.job import Data, Federation, Job, Network, Task
from mas_edge.orchestrator.workshop import make_program, make_programs, memory_by_batch
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.memory import memory_needed


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


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the calls of the emitter and of the verification, both real: the interpreter says when one begins."""
    calls: Counter[str] = Counter()
    watched = {emitter.emit.__code__: "emit", verify.verify.__code__: "verify"}

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code in watched:
            calls[watched[frame.f_code]] += 1

    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(None)


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


def test_what_was_exported_before_is_neither_emitted_nor_verified_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = replace(JOB, network=Network(family="series"), tasks=[replace(JOB.tasks[0], head="")])
    job = replace(job, data=Data(input_shape=[3, 16]))
    with counting() as calls:
        first = make_programs(job, "group-0", ["a"], tmp_path)
        assert calls == {"emit": 1, "verify": 2}
        assert make_programs(job, "group-0", ["a"], tmp_path) == first
        assert calls == {"emit": 1, "verify": 2}
        make_programs(replace(job, federation=replace(job.federation, batch_size=8)), "group-0", ["a"], tmp_path)
        assert calls == {"emit": 2, "verify": 4}
        for entry in tmp_path.iterdir():
            entry.write_bytes(b"damaged")
        assert make_programs(job, "group-0", ["a"], tmp_path) == first
        assert calls == {"emit": 3, "verify": 6}
    assert "damaged" in caplog.text


def test_a_kept_program_serves_the_same_tasks_under_another_group_name(tmp_path: Path) -> None:
    job = replace(JOB, network=Network(family="series"), tasks=[replace(JOB.tasks[0], head="")])
    job = replace(job, data=Data(input_shape=[3, 16]))
    make_programs(job, "group-0", ["a"], tmp_path)
    with counting() as calls:
        again = make_programs(job, "group-1", ["a"], tmp_path)
    assert calls == {}
    assert {program_format.load(data).group for data in again.values()} == {"group-1"}
    assert again == make_programs(job, "group-1", ["a"])


SERIES = replace(
    JOB,
    network=Network(family="series"),
    tasks=[replace(JOB.tasks[0], head="")],
    data=Data(input_shape=[3, 16]),
    engines=["torch", "onnxruntime"],
)


@pytest.mark.parametrize("engine", SERIES.engines)
def test_a_smaller_program_is_the_same_network_with_a_smaller_batch(engine: str) -> None:
    whole = program_format.load(make_programs(SERIES, "merged", ["a"])[engine])
    small = program_format.load(make_program(SERIES, "merged", ["a"], engine, 2))
    assert (whole.batch_size, small.batch_size) == (4, 2)
    assert (small.engine, small.layout, small.targets, list(small.methods)) == (
        engine, whole.layout, whole.targets, list(whole.methods),
    )  # fmt: skip
    assert 0 < memory_needed(small) < memory_needed(whole)


def test_what_programs_take_is_known_for_each_engine_at_every_half_of_the_batch() -> None:
    found = memory_by_batch(SERIES, "merged", ["a"])
    assert {engine: list(needs) for engine, needs in found.items()} == {
        "torch": [4, 2, 1], "onnxruntime": [4, 2, 1],
    }  # fmt: skip
    for engine, needs in found.items():
        program = program_format.load(make_programs(SERIES, "merged", ["a"])[engine])
        assert needs[4] == memory_needed(program)
        assert needs[4] >= needs[2] >= needs[1] > 0


def normed(input_shape: tuple[int, ...]) -> nn.Module:
    """A batch norm over samples alone, which cannot train on one."""
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4))


def test_a_batch_on_which_the_network_cannot_train_is_left_out() -> None:
    job = replace(JOB, network=Network(encoder=f"{__name__}:normed"), engines=["torch"])
    assert list(memory_by_batch(job, "merged", ["a"])["torch"]) == [4, 2]
