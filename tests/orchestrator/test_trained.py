"""Taking trained weights out of a run's state or a file, while somebody else may work there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mas_edge.federation.flow import JobState
from mas_edge.learning.network import build, layout_of
from mas_edge.orchestrator.store import Store
from mas_edge.orchestrator.trained import of_checkpoint, of_run
from mas_edge.protocol.errors import JobError, ServerError, WeightsError
from mas_edge.protocol.weights import Entry, Layout, gather, pack, unpack
from tests.export.small_run import GROUPS, JOB, TASKS, weights_of, write_run
from tests.learning.jobs import KINDS, series_job


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_after_a_split_a_run_gives_every_group_with_its_weights(tmp_path: Path) -> None:
    merged = unpack(write_run(tmp_path))
    found = {group.group: group for group in of_run(tmp_path)}
    assert {name: list(group.tasks) for name, group in found.items()} == GROUPS
    for name, tasks in GROUPS.items():
        assert np.array_equal(found[name].vector, gather(layout_of(build(JOB, tasks)), merged))


def test_before_the_split_it_gives_the_merged_network(tmp_path: Path) -> None:
    write_run(tmp_path, phase="merge", split=False)
    [merged] = of_run(tmp_path)
    assert (merged.group, list(merged.tasks)) == ("merged", TASKS)


def test_one_group_can_be_chosen_also_the_merged_one(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert [group.group for group in of_run(tmp_path, "merged")] == ["merged"]
    with pytest.raises(JobError, match="has no group 'group-9'; it has merged, group-0, group-1"):
        of_run(tmp_path, "group-9")


def test_the_folder_of_a_demo_is_one_above(tmp_path: Path) -> None:
    write_run(tmp_path / "state")
    assert len(of_run(tmp_path)) == len(of_run(tmp_path / "state")) == 2


def test_the_measurements_of_a_group_come_with_it_stage_by_stage(tmp_path: Path) -> None:
    write_run(tmp_path)
    first, second = of_run(tmp_path)
    assert list(first.measured) == GROUPS["group-0"]
    stages = [(m.stage, m.metric, m.samples, m.devices, m.lowest, m.highest) for m in second.measured["amount"]]
    assert stages == [
        ("untrained", 1.0, 16, 2, 0.5, 2.0), ("merged", 0.5, 16, 2, 0.25, 1.0), ("split", 0.25, 16, 2, 0.125, 0.5),
    ]  # fmt: skip
    assert (first.training.run, first.training.rounds, first.training.devices) == ("the run small-1", 2, 2)
    assert (second.training.rounds, second.training.seconds) == (1, 1.5)


def test_reading_disturbs_neither_the_orchestrator_nor_its_files(tmp_path: Path) -> None:
    write_run(tmp_path)
    working = Store(tmp_path)  # holds the directory's lock
    before = contents(tmp_path / "artifacts")
    assert len(of_run(tmp_path)) == 2
    assert contents(tmp_path / "artifacts") == before
    working.log("info", "goes on")
    working.close()


def test_damaged_weights_are_named_and_left_where_they_are(tmp_path: Path) -> None:
    write_run(tmp_path)
    for path in (tmp_path / "artifacts").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(ServerError, match=r"the weights of group-0 .* are damaged: restore"):
        of_run(tmp_path)
    assert set(contents(tmp_path / "artifacts").values()) == {b"damaged"}


def test_weights_that_are_gone_are_named(tmp_path: Path) -> None:
    write_run(tmp_path)
    for path in (tmp_path / "artifacts").iterdir():
        path.unlink()
    with pytest.raises(ServerError, match="are not there"):
        of_run(tmp_path)


def test_a_run_that_has_trained_nothing_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "fresh", phase="initial_evaluation", split=False)
    with pytest.raises(ServerError, match=r"nothing is trained yet .* the run is at initial evaluation"):
        of_run(tmp_path / "fresh")
    store = Store(tmp_path / "begun")
    with pytest.raises(ServerError, match="the orchestrator has not begun"):
        of_run(tmp_path / "begun")
    store.begin(JOB, JobState(run_id="small-1"))
    store.close()
    with pytest.raises(ServerError, match="the run is at prepare"):
        of_run(tmp_path / "begun")
    with pytest.raises(ServerError, match="no state in"):
        of_run(tmp_path / "nothing")


def test_a_checkpoint_is_read_with_its_job(tmp_path: Path) -> None:
    file = tmp_path / "model-7.safetensors"
    file.write_bytes(write_run(tmp_path / "run"))
    whole = of_checkpoint(file, JOB)
    assert (whole.group, list(whole.tasks), whole.training.run) == ("model-7", TASKS, "the file model-7.safetensors")
    assert np.array_equal(whole.vector, weights_of(JOB, TASKS))
    part = of_checkpoint(file, JOB, "mine", ["amount"])
    assert (part.group, part.tasks) == ("mine", ("amount",))
    assert np.array_equal(part.vector, gather(layout_of(build(JOB, ["amount"])), unpack(file.read_bytes())))


def test_what_is_no_checkpoint_of_the_job_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        of_checkpoint(file, JOB)
    file.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(WeightsError, match="is no safetensors file of weights"):
        of_checkpoint(file, JOB)
    file.write_bytes(pack(Layout([Entry("w", [2], "encoder")]), np.ones(2, np.float32)))
    with pytest.raises(JobError, match="it holds no head of a task of this job"):
        of_checkpoint(file, JOB)
    file.write_bytes(write_run(tmp_path / "run"))
    with pytest.raises(JobError, match="no head of 'gait'; it holds the heads of label, amount, down"):
        of_checkpoint(file, JOB, tasks=["gait"])
    wider = series_job([task for task in KINDS if task.name in TASKS])
    wider.network.encoder_args["width"] = 8
    with pytest.raises(WeightsError, match=r"not those of the job 'test': tensor 'encoder\..*' has shape"):
        of_checkpoint(file, wider)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    vector = weights_of(JOB, TASKS)
    vector[3] = np.nan
    (tmp_path / "w.safetensors").write_bytes(pack(layout_of(build(JOB, TASKS)), vector))
    with pytest.raises(WeightsError, match=r"1 of .* numbers that are not finite"):
        of_checkpoint(tmp_path / "w.safetensors", JOB)
