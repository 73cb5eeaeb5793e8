"""A whole job, unattended, on each broker: what must hold at its end."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.cli import main
from mas_edge.federation.flow import PHASES
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.result import result_of
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.messages import Plan
from mas_edge.protocol.weights import unpack
from tests.brokers import Running
from tests.e2e.fleet import INPUT_SHAPE, TASKS, Fleet, job_text
from tests.e2e.tap import Tap

pytestmark = pytest.mark.every_broker
onnxruntime: Any = importlib.import_module("onnxruntime")

# Three devices a round: with three devices the groups train one after another, with six there are enough for both.
PER_ROUND = 3
DEVICES = {
    "managed": ["ada", "bob", "eve"],
    "embedded": ["ada", "bob", "cyd", "dan", "eve", "fay"],
    "amqtt": ["ada", "bob", "eve"],
}
UNLABELLED = "eve"  # holds no labels of the task ``way``


@dataclass
class Finished:
    """A job that is done, and what was heard of it."""

    fleet: Fleet
    tap: Tap
    devices: list[str]
    snapshot: Snapshot
    result: dict[str, Any]

    def training(self, phase: str) -> list[RoundRecord]:
        return [record for record in self.snapshot.rounds if record.phase == phase]

    def first_plan(self, round_prefix: str) -> Plan:
        return next(plan for _, plan in self.tap.plans() if plan.round_id.startswith(round_prefix))

    def artifact(self, digest: str) -> bytes:
        """An artifact out of the store of any device that holds it."""
        stores = [ArtifactStore(self.fleet.device_state(device) / "artifacts") for device in self.devices]
        return next(store.read(digest) for store in stores if store.has(digest))


@pytest.fixture(scope="module")
def job(running_broker: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    devices = DEVICES[running_broker.mode]
    text = job_text(per_round=PER_ROUND, min_devices=len(devices))
    directory = tmp_path_factory.mktemp(running_broker.mode)
    anew = running_broker.mode == "managed"  # what is exported does not depend on the broker
    with Fleet(running_broker.url, directory, text, anew=anew) as fleet, Tap(fleet.url, fleet.job.fleet) as tap:
        fleet.device_process(devices[0], engine="onnxruntime")
        for name in devices[1:]:
            fleet.device(name, TASKS[:2] if name == UNLABELLED else TASKS)
        assert fleet.orchestrate().join() is True
        snapshot = fleet.snapshot()
        yield Finished(fleet, tap, devices, snapshot, result_of(snapshot))


def test_every_phase_is_done_in_order(job: Finished) -> None:
    assert job.result["done"]
    of_other_methods = ("probe", "probe_evaluation", "regroup")
    assert list(job.result["phases"]) == [
        phase for phase in PHASES if phase not in ("prepare", "split", "export", "done", *of_other_methods)
    ]
    assert [record.outcome for record in job.snapshot.rounds] == ["complete"] * len(job.snapshot.rounds)


def test_the_split_has_exactly_two_groups_that_partition_the_tasks(job: Finished) -> None:
    groups = job.result["split"]["groups"]
    assert len(groups) == 2
    assert sorted(task for group in groups for task in group) == sorted(TASKS)


def test_every_task_is_better_at_the_end_than_at_the_beginning(job: Finished) -> None:
    before, after = job.result["evaluation"]["initial"], job.result["evaluation"]["split"]
    assert {task: after[task]["loss"] < before[task]["loss"] for task in TASKS} == dict.fromkeys(TASKS, True)


def test_each_group_starts_from_the_merged_weights_bit_for_bit(job: Finished) -> None:
    merged_state = job.training("merge")[-1].weights
    for group in ("group-0", "group-1"):
        plan = job.first_plan(group)
        assert plan.weights is not None
        assert plan.weights.derive_from == merged_state
        inherited = unpack(job.artifact(plan.weights.manifest.artifact))
        merged = unpack(job.artifact(merged_state))
        assert {name.split(".")[1] for name in inherited if name.startswith("heads.")} == set(plan.tasks)
        assert {name for name in inherited if name.startswith("encoder.")} == {
            name for name in merged if name.startswith("encoder.")
        }
        for name, tensor in inherited.items():
            assert tensor.tobytes() == merged[name].tobytes()


def test_the_split_push_carries_graphs_and_no_weights(job: Finished) -> None:
    assert job.result["split_push"]["weights_bytes"] == 0
    assert job.result["split_push"]["program_bytes"] > 0


def test_devices_of_two_engines_train_the_same_network(job: Finished) -> None:
    trained = [record for record in job.snapshot.rounds if record.kind == "train"]
    assert {report.engine for record in trained for report in record.reports.values()} == {"torch", "onnxruntime"}


def test_traffic_and_seconds_of_the_rounds_add_up_to_the_phases(job: Finished) -> None:
    for key in ("sent_bytes", "received_bytes", "wall_seconds"):
        for name, phase in job.result["phases"].items():
            rounds = [record for record in job.result["rounds"] if record["phase"] == name]
            assert phase[key] == pytest.approx(sum(record[key] for record in rounds))
            assert phase[key] > 0
            assert phase["rounds"] == len(rounds)


def test_multiply_accumulates_and_the_time_of_affinity_are_told_by_every_device(job: Finished) -> None:
    for record in job.training("merge") + job.training("groups"):
        assert record.multiply_accumulates["train_step"] > 0
        measured = record.phase == "merge"
        assert ("affinity" in record.multiply_accumulates) == measured
        assert (record.affinity_cpu_seconds > 0) == measured
        assert record.affinity_cpu_seconds < record.device_cpu_seconds


def test_every_report_tells_its_joules_with_source_and_quality(job: Finished) -> None:
    energy = job.result["energy"]
    assert energy["silent"] == 0
    assert {device for source in energy["sources"].values() for device in source["devices"]} == set(job.devices)
    assert set(energy["groups"]) == {record["group"] for record in job.result["rounds"]}
    for quality, activities in energy["phases"]["merge"].items():
        assert quality in ("measured", "estimated")
        assert activities["train"] > 0
        assert activities["affinity"] > 0
    assert all(source["error"] > 0 for source in energy["sources"].values() if source["quality"] == "estimated")


def test_every_chunk_on_the_broker_is_accounted_to_a_round(job: Finished) -> None:
    traffic = [record.traffic for record in job.snapshot.rounds]
    accounted = sum(t.sent_program + t.sent_weights + t.sent_model + t.sent_golden for t in traffic)
    assert job.tap.chunk_bytes() == accounted


def test_the_weights_of_a_round_are_sent_about_once_for_all_its_devices(job: Finished) -> None:
    size = len(job.artifact(job.training("merge")[-1].weights))
    fresh = [r for r in job.snapshot.rounds if r.round_id in ("merged-0001", "evaluate-merged")]
    sent = {record.round_id: record.traffic.sent_weights / size for record in fresh}
    assert min(sent.values()) < 1.3
    # A device that speaks up late is served alone: one or two of them, not each.
    assert all(times < len(r.selected) for times, r in zip(sent.values(), fresh, strict=True)), sent


def test_a_head_is_the_mean_over_the_devices_that_hold_labels_for_it(job: Finished) -> None:
    record = next(r for r in reversed(job.training("merge")) if UNLABELLED in r.selected)
    assert set(record.reports) == set(record.selected)
    updates = {name: unpack(job.tap.update(name, job.tap.offers(name)[record.round_id])) for name in record.selected}
    assert not [name for name in updates[UNLABELLED] if name.startswith("heads.way")]
    after = unpack(job.artifact(record.weights))
    for tensor, got in after.items():
        counts = {name: _counts(tensor, record.reports[name].samples) for name in record.selected}
        total = sum(updates[n][tensor].astype(np.float64) * count for n, count in counts.items() if count)
        np.testing.assert_allclose(got, total / sum(counts.values()), rtol=1e-6, atol=1e-7)
    pairs = record.affinity_devices
    assert pairs is not None
    way = record.tasks.index("way")
    assert pairs[way][way] == len(record.selected) - 1
    assert pairs[0][0] == len(record.selected)


def _counts(tensor: str, samples: dict[str, int]) -> int:
    """How much a device counts for a tensor: heads by the task's labels, the encoder by its samples."""
    return samples.get(tensor.split(".")[1], 0) if tensor.startswith("heads.") else max(samples.values())


def test_groups_train_side_by_side_only_when_there_are_devices_for_both(job: Finished) -> None:
    first, second = (set(record.selected) for record in job.training("groups"))
    beginnings, ends = job.fleet.round_times("groups")
    if len(job.devices) < 2 * PER_ROUND:
        assert max(beginnings) >= min(ends)
    else:
        assert max(beginnings) < min(ends)
        assert not first & second


def test_every_device_holds_the_models_and_they_load_and_run(job: Finished) -> None:
    assert job.result["deployment"]["share"] == 1.0
    assert job.result["deployment"]["devices"] == len(job.devices)
    x = np.zeros((2, *INPUT_SHAPE), np.float32)
    for device in job.devices:
        for index, tasks in enumerate(job.result["split"]["groups"]):
            path = job.fleet.device_state(device) / "deployed" / f"group-{index}" / "active.onnx"
            assert path.read_bytes() == (job.fleet.state / "models" / f"group-{index}.onnx").read_bytes()
            session = onnxruntime.InferenceSession(path)
            assert [output.name for output in session.get_outputs()] == tasks
            assert all(len(output) == 2 for output in session.run(None, {"x": x}))


def test_status_of_a_job_that_is_done_says_so(job: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(job.fleet.state)]) == 0
    said = capsys.readouterr().out
    assert "phase    done" in said
    assert "2 of 2 merged, 2 of 2 after the split" in said
    assert main(["status", "--state", str(job.fleet.state), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["phase"], status["finished"] > status["started"]) == ("done", True)
    assert status["split"]["groups"] == job.result["split"]["groups"]


def test_the_result_is_plain_json_and_complete(job: Finished) -> None:
    again = json.loads(json.dumps(job.result, allow_nan=False))
    assert again == job.result
    assert set(again) >= {
        "run", "job", "phase", "done", "seconds", "devices", "phases", "evaluation", "affinity", "split", "split_push",
        "deployment", "rounds", "versions",
    }  # fmt: skip
    assert set(again["devices"]) == set(job.devices)
    assert np.array(again["affinity"]["matrix"]).shape == (len(TASKS), len(TASKS))
    assert set(again["evaluation"]) == {"initial", "merged", "split"}
    assert all(set(stage) == set(TASKS) for stage in again["evaluation"].values())
