"""``result.json``: every number is one of the records', and abandoned rounds cost but do not count."""

import json
from typing import get_args

import pytest
from msgspec.structs import replace
from rich.console import Console

from mas_edge.cli.status import energy_lines
from mas_edge.demo.summary import print_summary
from mas_edge.orchestrator.records import ArtifactKind, CandidateRecord, DeviceRecord, RoundRecord, SplitRecord, Traffic
from mas_edge.orchestrator.result import deployment_of, energy_of, evaluations_of, phases_of, result_of, split_push_of
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.messages import Energy, Report
from tests.orchestrator.small_run import JOB, record

LOSSES, METRICS, SAMPLES = {"a": 2.0, "b": 1.0}, {"a": 0.1, "b": 0.2}, {"a": 4, "b": 6}


def evaluation(phase: str, group: str = "merged", **changes: object) -> RoundRecord:
    made = record(
        f"evaluate-{phase}-{group}", kind="evaluate", phase=phase, group=group, losses=LOSSES, metrics=METRICS,
        samples=SAMPLES,
    )  # fmt: skip
    return replace(made, **changes)


def health(group: str, reports: dict[str, Report], refused: dict[str, str] | None = None) -> RoundRecord:
    return record(
        f"deploy-{group}", kind="deploy", phase="deploy", group=group, selected=["pi-1", "pi-2", "pi-3"],
        reports=reports, refused=refused or {},
    )  # fmt: skip


def fine(latency_s: float = 0.1) -> Report:
    return Report(samples={}, losses={}, healthy=True, latency_s=latency_s)


TRAINED = record(
    traffic=Traffic(sent_control=10, sent_program=1000, sent_weights=500, received_control=20, received_update=400),
    wall_seconds=2.0, device_seconds={"train": 3.0, "load": 1.0}, device_cpu_seconds=2.5,
)  # fmt: skip
ABANDONED = record(
    "merged-0001", outcome="abandoned", wall_seconds=1.0, traffic=Traffic(sent_control=5),
    device_seconds={"train": 0.5},
)  # fmt: skip
FIRST, SECOND = (
    record(f"group-0-000{n}", phase="groups", group="group-0", traffic=Traffic(sent_program=700, sent_weights=w))
    for n, w in ((2, 0), (3, 500))
)
SPLIT = SplitRecord(
    tasks=["a", "b"], affinity=[[0.1, 0.2], [0.3, 0.4]], affinity_devices=[[2, 1], [1, 2]], value=0.5,
    groups=[["a"], ["b"]], serves=[["a"], ["b"]], runner_up=[["a", "b"]], runner_up_value=0.4, bound=0.5,
    reason="two pay", candidates=[CandidateRecord(groups=2, value=0.5, gain=0.1, noise=0.0, cost=1.5, chosen=True)],
    affinity_spread=[[None, 0.1], [0.1, None]],
)  # fmt: skip


def snapshot(*rounds: RoundRecord, split: SplitRecord | None = None, finished: float | None = None) -> Snapshot:
    devices = [
        DeviceRecord(name="pi-1", online=True), DeviceRecord(name="pi-2", online=True),
        DeviceRecord(name="pi-3", online=False), DeviceRecord(name="odd", online=True, problem="its input differs"),
    ]  # fmt: skip
    return Snapshot(
        run="j-1", job=JOB, phase="done" if finished else "merge", started=100.0, finished=finished, devices=devices,
        open_rounds=[], rounds=list(rounds), split=split, events=[],
    )  # fmt: skip


METERED = Report(samples={}, losses={}, energy=Energy(quality="measured", joules={"train": 2.0}, source="PMIC"))
GUESSED = Report(
    samples={}, losses={}, energy=Energy(quality="estimated", joules={"train": 9.0}, source="CPU seconds", error=0.4)
)
JOULES = [
    record(joules={"measured": {"train": 2.0, "affinity": 1.0}}, reports={"pi-1": METERED}),
    record("merged-0001", joules={"measured": {"train": 5.0}, "estimated": {"train": 9.0}},
           reports={"pi-1": METERED, "pi-2": GUESSED, "pi-3": fine()}),
    record("group-0-0002", phase="groups", group="group-0", joules={"measured": {"train": 4.0}},
           reports={"pi-2": METERED}),
]  # fmt: skip


def test_joules_are_summed_by_group_and_activity_measured_and_estimated_apart() -> None:
    assert energy_of(JOULES) == {
        "phases": {
            "merge": {"measured": {"train": 7.0, "affinity": 1.0}, "estimated": {"train": 9.0}},
            "groups": {"measured": {"train": 4.0}},
        },
        "groups": {
            "merged": {"measured": {"train": 7.0, "affinity": 1.0}, "estimated": {"train": 9.0}},
            "group-0": {"measured": {"train": 4.0}},
        },
        "sources": {
            "PMIC": {"quality": "measured", "error": 0.0, "devices": ["pi-1", "pi-2"]},
            "CPU seconds": {"quality": "estimated", "error": 0.4, "devices": ["pi-2"]},
        },
        "silent": 1,
    }


def test_the_status_tells_joules_with_their_source_and_error() -> None:
    assert energy_lines(snapshot(*JOULES)) == [
        "energy   merged: 8.0 J measured (train 7.0, affinity 1.0)",
        "energy   merged: 9.0 J estimated (train 9.0)",
        "energy   group-0: 4.0 J measured (train 4.0)",
        "         measured by PMIC: pi-1, pi-2",
        "         estimated by CPU seconds, 40% up or down: pi-2",
    ]
    assert energy_lines(snapshot(TRAINED)) == []


def test_the_demo_prints_the_joules_of_each_phase_with_their_source(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(Console(width=110), result_of(snapshot(*JOULES)))
    printed = capsys.readouterr().out
    assert "8.0 + ~9.0" in printed
    assert "joules above idle, measured by PMIC\n" in printed
    assert "joules above idle, estimated by CPU seconds (off by up to 40%)" in printed


def test_bytes_and_seconds_are_summed_per_phase_over_every_round_also_abandoned_ones() -> None:
    phases = phases_of([TRAINED, ABANDONED, FIRST])
    assert list(phases) == ["merge", "groups"]
    merge = phases["merge"]
    assert (merge["rounds"], merge["wall_seconds"]) == (2, 3.0)
    assert (merge["sent_bytes"], merge["received_bytes"]) == (1515, 420)
    assert merge["device_seconds"] == {"train": 3.5, "load": 1.0}
    assert merge["device_cpu_seconds"] == 2.5
    assert merge["traffic"]["sent_control"] == 15
    assert sum(merge["traffic"].values()) == merge["sent_bytes"] + merge["received_bytes"]


def test_every_kind_of_traffic_is_counted_in_one_direction() -> None:
    for kind in get_args(ArtifactKind):
        traffic = Traffic()
        traffic.add_sent(kind, 7)
        assert (traffic.sent, traffic.received, getattr(traffic, f"sent_{kind}")) == (7, 0, 7)


def test_the_evaluations_are_told_apart_by_their_stage() -> None:
    groups = [evaluation("group_evaluation", f"group-{i}", losses={t: i}) for i, t in enumerate("ab")]
    found = evaluations_of([evaluation("initial_evaluation"), evaluation("merged_evaluation"), *groups])
    assert found["initial"]["a"] == {"loss": 2.0, "metric": 0.1, "samples": 4}
    assert list(found) == ["initial", "merged", "split"]
    assert {task: row["loss"] for task, row in found["split"].items()} == {"a": 0, "b": 1}


def test_where_groups_overlap_a_task_counts_in_the_group_that_answers_for_it() -> None:
    first = evaluation("group_evaluation", "group-0", losses={"a": 1.0, "b": 2.0})
    second = evaluation("group_evaluation", "group-1", losses={"a": 3.0, "b": 4.0})
    overlapping = SplitRecord(tasks=["a", "b"], groups=[["a", "b"], ["a", "b"]], serves=[["b"], ["a"]])
    assert {t: row["loss"] for t, row in evaluations_of([first, second], overlapping)["split"].items()} == {
        "b": 2.0, "a": 3.0,
    }  # fmt: skip


def test_where_each_device_has_a_group_of_its_own_a_task_is_the_mean_over_all_samples() -> None:
    first = replace(evaluation("group_evaluation", "group-0", losses={"a": 1.0}), samples={"a": 1})
    second = replace(evaluation("group_evaluation", "group-1", losses={"a": 4.0}), samples={"a": 2})
    alone = SplitRecord(tasks=["a"], groups=[["a"], ["a"]], serves=[["a"], ["a"]])
    assert evaluations_of([first, second], alone)["split"]["a"]["loss"] == 3.0
    assert evaluations_of([first, second], alone)["split"]["a"]["samples"] == 3


def test_the_split_push_is_the_first_round_of_each_group() -> None:
    other = replace(FIRST, group="group-1", traffic=Traffic(sent_program=300, sent_weights=9))
    assert split_push_of([TRAINED, FIRST, SECOND, other]) == {"program_bytes": 1000, "weights_bytes": 9}
    assert split_push_of([TRAINED]) is None


def test_a_device_is_healthy_when_every_groups_model_is() -> None:
    bad = replace(fine(0.5), healthy=False, health_reason="outputs differ")
    rounds = [
        health("group-0", {"pi-1": fine(0.3), "pi-2": fine(0.1), "pi-3": fine(0.2)}),
        health("group-1", {"pi-1": fine(), "pi-2": bad}, refused={"pi-3": "it vanished"}),
    ]
    found = deployment_of(snapshot(), rounds)
    assert found is not None
    assert (found["devices"], found["healthy"], found["share"]) == (3, 1, pytest.approx(1 / 3))
    assert found["reasons"] == {"pi-2": "outputs differ", "pi-3": "it vanished"}
    assert found["median_latency_s"]["group-0"] == 0.2


def test_a_device_that_was_not_there_counts_unless_it_cannot_serve_the_job() -> None:
    deployed = replace(health("group-0", {"pi-1": fine(), "pi-2": fine()}), selected=["pi-1", "pi-2"])
    found = deployment_of(snapshot(), [deployed])
    assert found is not None
    assert (found["devices"], found["healthy"], found["reasons"]) == (3, 2, {"pi-3": "it was not there"})
    assert deployment_of(snapshot(), [TRAINED]) is None


def test_a_report_without_a_word_on_its_health_is_not_healthy() -> None:
    found = deployment_of(snapshot(), [health("group-0", {"pi-1": replace(fine(), healthy=None)})])
    assert found is not None
    assert found["healthy"] == 0
    assert found["reasons"]["pi-2"] == "it did not answer"


def test_the_result_is_plain_json_and_says_whether_the_job_is_done() -> None:
    rounds = [evaluation("initial_evaluation"), TRAINED, ABANDONED]
    done = result_of(snapshot(*rounds, split=SPLIT, finished=160.0), constant_losses={"a": 3.0, "b": 2.0})
    assert json.loads(json.dumps(done, allow_nan=False)) == done
    assert (done["done"], done["seconds"], done["constant_loss"]) == (True, 60.0, {"a": 3.0, "b": 2.0})
    assert done["split"]["groups"] == [["a"], ["b"]]
    assert done["affinity"]["matrix"] == SPLIT.affinity
    assert done["affinity"]["spread"] == SPLIT.affinity_spread
    assert (done["split"]["bound"], done["split"]["reason"]) == (0.5, "two pay")
    assert [(row["groups"], row["chosen"]) for row in done["split"]["candidates"]] == [(2, True)]
    assert [row["sent_bytes"] for row in done["rounds"]] == [0, 1510, 5]
    under_way = result_of(snapshot(*rounds))
    assert (under_way["done"], under_way["seconds"], under_way["split"], under_way["affinity"]) == (False,) + (
        None,
    ) * 3


def test_an_evaluation_that_was_abandoned_does_not_hide_the_one_that_followed() -> None:
    failed = evaluation("initial_evaluation", outcome="abandoned", losses={"a": 99.0})
    found = result_of(snapshot(failed, evaluation("initial_evaluation")))["evaluation"]
    assert found["initial"]["a"]["loss"] == 2.0
