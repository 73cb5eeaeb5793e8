"""What an open round takes in: good reports fold; hostile ones are refused and leave no trace."""

import json
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from mas_edge.federation.rounds import Round
from mas_edge.orchestrator.active import ActiveRound
from mas_edge.orchestrator.checks import MAX_COUNT, check_counts
from mas_edge.orchestrator.folding import Folding
from mas_edge.orchestrator.plans import make_plan
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.errors import WeightsError
from mas_edge.protocol.messages import Birth, Energy, PlanKind, SampleCount
from mas_edge.protocol.weights import ENCODER, Layout, pack, sent_layout
from tests.orchestrator.small_run import JOB, LAYOUT, REPORT, SENDER, group_state, numbers, offer, spec, thing, work

BOTH = {"a": 3, "b": 5}
COSTS = {"train_step": 100, "affinity": 70, "evaluate": 30}  # multiply-accumulates for one sample
PREVIOUS = numbers(seed=9)
GOOD = pack(LAYOUT, numbers())


def a_round(kind: PlanKind = "train") -> ActiveRound:
    group = group_state(models={"onnx": thing("model")}, golden=thing("golden"))
    supplies = ["onnx"] if kind == "deploy" else ["torch", "onnxruntime"]
    plans = {supply: make_plan(JOB, "j-1", work(kind), group, supply, SENDER) for supply in supplies}
    accumulator = Folding(LAYOUT) if kind == "train" else None
    return ActiveRound(work(kind), Round(spec(), 0.0), group, "merge", plans, LAYOUT, COSTS, accumulator)


def mean_of(active: ActiveRound) -> NDArray[np.float32]:
    assert active.accumulator is not None
    return active.accumulator.mean(PREVIOUS)


def update_for(samples: dict[str, int], seed: int = 0) -> bytes:
    sent = sent_layout(LAYOUT, samples)
    return pack(sent, numbers(sent, seed))


def with_number(place: int, value: float) -> bytes:
    vector = numbers()
    vector[place] = value
    return pack(LAYOUT, vector)


def reshaped() -> bytes:
    entries = [replace(entry, shape=[2, 4]) if entry.name == "encoder.w" else entry for entry in LAYOUT.entries]
    return pack(Layout(entries), numbers())


def extra_tensor() -> bytes:
    layout = Layout([*LAYOUT.entries, replace(LAYOUT.entries[0], name="backdoor")])
    return pack(layout, numbers(layout))


def half_precision() -> bytes:
    header = json.dumps({"encoder.w": {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


NAN, INF = float("nan"), float("inf")
# What is changed in a good report, the update, and what the reason must name.
HOSTILE: dict[str, tuple[dict[str, Any], bytes | None, str]] = {
    "no weights": ({}, None, "without weights"),
    "no safetensors": ({}, b"nonsense", "weights file"),
    "cut short": ({}, GOOD[:-1], "does not fit the file"),
    "a tensor of another shape": ({}, reshaped(), "'encoder.w' has shape"),
    "half precision": ({}, half_precision(), "not a float32 tensor"),
    "an extra tensor": ({}, extra_tensor(), "backdoor"),
    "a head without samples of it": ({"samples": {"a": 3}, "losses": {"a": 1.0}}, GOOD, "not asked for: b.w"),
    "no head for its samples": ({}, update_for({"a": 3}), "lack the tensor 'b.w'"),
    "a NaN in the weights": ({}, with_number(0, NAN), "not finite"),
    "an infinity in the weights": ({}, with_number(12, -INF), "not finite"),
    "samples below zero": ({"samples": {"a": -1, "b": 5}}, GOOD, "-1"),
    "samples beyond any device": ({"samples": {"a": MAX_COUNT + 1, "b": 5}}, GOOD, "expected 0 to"),
    "samples that no float holds": ({"samples": {"a": 10**400, "b": 5}}, GOOD, "expected 0 to"),
    "no samples": ({"samples": {}}, GOOD, "counts no sample"),
    "samples of nothing": ({"samples": {"a": 0, "b": 0}}, GOOD, "counts no sample"),
    "samples of an unknown task": ({"samples": {**BOTH, "z": 1}}, GOOD, "samples of tasks .*: z"),
    "losses of an unknown task": ({"losses": {"a": 1.0, "b": 1.0, "z": 1.0}}, GOOD, "losses of tasks .*: z"),
    "metrics of an unknown task": ({"metrics": {"z": 1.0}}, GOOD, "metrics of tasks .*: z"),
    "no loss for its samples": ({"losses": {"a": 1.0}}, GOOD, "lacks a loss"),
    "a loss that is NaN": ({"losses": {"a": NAN, "b": 1.0}}, GOOD, "the number nan"),
    "a loss whose sum would overflow": ({"losses": {"a": 1e308, "b": 1.0}}, GOOD, r"1e\+308"),
    "a metric that is infinite": ({"metrics": {"a": INF}}, GOOD, "the number inf"),
    "an affinity that is NaN": ({"affinity": [[0.1, NAN], [0.1, 0.1]]}, GOOD, "the number nan"),
    "an affinity that is infinite": ({"affinity": [[0.1, 0.1], [-INF, 0.1]]}, GOOD, "the number -inf"),
    "an affinity of another shape": ({"affinity": [[0.1]]}, GOOD, "affinity is not 2 x 2"),
    "an affinity with a row too many": ({"affinity": [[0.1, 0.1]] * 3}, GOOD, "affinity is not 2 x 2"),
    "a ragged affinity": ({"affinity": [[0.1, 0.1], [0.1]]}, GOOD, "affinity is not 2 x 2"),
    "an affinity without rows": ({"affinity": []}, GOOD, "affinity is not 2 x 2"),
    "measurements below zero": ({"affinity_measurements": -1}, GOOD, "-1"),
    "seconds that are infinite": ({"seconds": {"train": INF}}, GOOD, "the number inf"),
    "seconds below zero": ({"seconds": {"train": -1.0}}, GOOD, "below zero"),
    "CPU seconds that are NaN": ({"cpu_seconds": NAN}, GOOD, "the number nan"),
    "joules below zero": (
        {"energy": Energy(quality="measured", joules={"train": -1.0})},
        GOOD,
        "expected numbers from 0",
    ),
    "joules of no device": ({"energy": Energy(quality="measured", joules={"train": 1e300})}, GOOD, "expected numbers"),
    "an idle power below zero": ({"energy": Energy(quality="measured", idle_watts=-5.0)}, GOOD, "idle -5"),
    "joules of too much": (
        {"energy": Energy(quality="measured", joules={str(n): 1.0 for n in range(17)})},
        GOOD,
        "16 activities",
    ),
    "a source with an escape sequence": (
        {"energy": Energy(quality="measured", source="ina\x1b[2J")},
        GOOD,
        "expected up to 500 printable",
    ),
    "bytes below zero": ({"received_bytes": -5}, GOOD, "-5"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_report_is_refused_and_nothing_is_folded_that_has(case: str) -> None:
    changes, update, reason = HOSTILE[case]
    active = a_round()
    active.fold(offer("pi-1"), GOOD)
    before = mean_of(active).tobytes()
    with pytest.raises(WeightsError, match=reason) as refused:
        active.fold(offer("pi-2", report=replace(REPORT, **changes)), update)
    assert len(str(refused.value)) < 500, "it travels in a receipt and stands in a log"
    assert mean_of(active).tobytes() == before
    assert (list(active.reports), active.accumulator and active.accumulator.count) == (["pi-1"], 1)


def test_good_reports_are_averaged_by_their_samples() -> None:
    active = a_round()
    active.fold(offer("pi-1"), GOOD)
    only_a = {"a": 9, "b": 0}
    second = replace(REPORT, samples=only_a, losses={"a": 1.5}, affinity=[[0.3, None], [None, None]])
    active.fold(offer("pi-2", report=second), update_for(only_a, seed=1))
    mean, first, other = mean_of(active), numbers(), numbers(sent_layout(LAYOUT, only_a), seed=1)
    np.testing.assert_allclose(mean[:8], (5 * first[:8] + 9 * other[:8]) / 14, rtol=1e-6)
    np.testing.assert_allclose(mean[8:11], (3 * first[8:11] + 9 * other[8:11]) / 12, rtol=1e-6)
    assert mean[11:].tobytes() == first[11:].tobytes()


def test_an_update_of_heads_only_counts_for_heads_and_is_no_task_in_the_record() -> None:
    active, only_a = a_round(), {"a": 3, "b": 0, ENCODER: 0}
    active.fold(offer("d1", report=replace(REPORT, samples=only_a)), update_for(only_a))
    kept = [place for entry, place in zip(LAYOUT.entries, LAYOUT.slices().values(), strict=True) if entry.part != "a"]
    assert all(np.array_equal(mean_of(active)[place], PREVIOUS[place]) for place in kept)
    record = active.record("complete", "", JOB.affinity, 0.0)
    assert record.samples == {"a": 3, "b": 0}
    assert record.multiply_accumulates == {}
    with pytest.raises(WeightsError, match="not in group"):
        active.fold(offer("d2", report=replace(REPORT, samples={"a": 3, ENCODER: 2})), update_for({"a": 3}))


def test_the_record_of_a_round_says_what_came_of_it() -> None:
    active = a_round()
    active.fold(offer("pi-1"), GOOD)
    only_a = {"a": 9, "b": 0}
    second = replace(REPORT, samples=only_a, losses={"a": 1.5}, affinity=[[0.3, None], [None, None]], cpu_seconds=0.5)
    active.fold(offer("pi-2", report=second), update_for(only_a, seed=1))
    made = active.record("complete", "ab" * 32, JOB.affinity, 1.0)
    assert made.samples == {"a": 12, "b": 5}
    assert made.losses == {"a": (3 * 0.5 + 9 * 1.5) / 12, "b": 0.25}
    assert made.affinity == [[pytest.approx(0.2), 0.2], [0.3, 0.4]]
    assert made.affinity_devices == [[2, 1], [1, 1]]
    assert (made.device_seconds, made.device_cpu_seconds) == ({"train": 3.0}, 0.5)
    assert (made.weights, made.selected, sorted(made.reports)) == ("ab" * 32, ["pi-1", "pi-2"], ["pi-1", "pi-2"])
    assert made.learning_rate == JOB.optimizer.learning_rate


def test_what_was_measured_and_what_was_estimated_are_summed_apart() -> None:
    active = a_round()
    said = [
        Energy(quality="measured", joules={"train": 3.0, "other": 1.0}, source="ina3221 VDD_IN"),
        Energy(quality="estimated", joules={"train": 20.0}, source="CPU seconds", error=0.5),
        Energy(quality="measured", joules={"train": 4.0}, source="Pi 5 PMIC"),
        Energy(quality="none", problem="the sensor is gone"),
        None,
    ]
    for number, energy in enumerate(said):
        active.fold(offer(f"pi-{number}", report=replace(REPORT, energy=energy)), GOOD)
    joules = active.record("complete", "", JOB.affinity, 1.0).joules
    assert joules == {"measured": {"train": 7.0, "other": 1.0}, "estimated": {"train": 20.0}}


def test_multiply_accumulates_are_counted_from_what_each_device_ran() -> None:
    active = a_round()
    report = replace(REPORT, steps=6, batch_size=8, affinity_measurements=2, cpu_seconds=2.0, affinity_cpu_seconds=0.5)
    active.fold(offer("pi-1", report=report), GOOD)
    active.fold(offer("pi-2", report=replace(report, steps=3, batch_size=4, affinity_measurements=0)), GOOD)
    made = active.record("complete", "", JOB.affinity, 1.0)
    assert made.multiply_accumulates == {"train_step": 100 * (6 * 8 + 3 * 4), "affinity": 70 * 2 * 8}
    assert (made.device_cpu_seconds, made.affinity_cpu_seconds) == (4.0, 1.0)


def test_the_largest_numbers_a_report_may_hold_still_make_a_record_that_can_be_read() -> None:
    active, most = a_round(), float(np.finfo(np.float32).max)
    huge = replace(
        REPORT, samples={"a": MAX_COUNT, "b": MAX_COUNT}, losses={"a": most, "b": -most}, seconds={"train": most},
        affinity=[[most, most], [most, most]],
    )  # fmt: skip
    for device in ("pi-1", "pi-2"):
        active.fold(offer(device, report=huge), GOOD)
    made = active.record("complete", "", JOB.affinity, 1.0)
    assert msgspec.json.decode(msgspec.json.encode(made), type=RoundRecord) == made
    np.testing.assert_allclose(mean_of(active), numbers(), rtol=1e-6)


def test_an_evaluation_needs_no_weights_but_a_metric_for_every_task_it_counts() -> None:
    active = a_round("evaluate")
    metrics = {"a": 0.9, "b": 0.8}
    active.fold(offer("pi-1", report=replace(REPORT, affinity=None, metrics=metrics)), None)
    with pytest.raises(WeightsError, match="lacks a loss or metric"):
        active.fold(offer("pi-2", report=replace(REPORT, affinity=None, metrics={"a": 0.9})), None)
    made = active.record("complete", "", JOB.affinity, 1.0)
    assert (made.metrics, made.affinity, made.learning_rate) == (metrics, None, 0.0)


def test_a_deployment_needs_no_samples() -> None:
    active = a_round("deploy")
    active.fold(offer("pi-1", report=replace(REPORT, samples={}, losses={}, affinity=None, healthy=True)), None)
    assert active.record("complete", "", JOB.affinity, 1.0).reports["pi-1"].healthy is True


BIRTH = Birth(
    sender="pi-1", boot_id="b", seq=1, runtime="0", python="3.11", machine="aarch64", cores=4, memory_bytes=1,
    engine="torch", engines=["torch"], input_shape=[3],
    tasks={"a": SampleCount(train=3, test=1), "b": SampleCount(train=5, test=2)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "samples", "fine"),
    [
        ("train", {"a": 3, "b": 5}, True),
        ("train", {"a": 4, "b": 5}, False),
        ("train", {"a": 3, "c": 1}, False),
        ("evaluate", {"a": 1, "b": 2}, True),
        ("evaluate", {"a": 3, "b": 2}, False),
        ("deploy", {}, True),
    ],
)
def test_a_device_cannot_count_more_samples_than_it_was_born_with(
    kind: PlanKind, samples: dict[str, int], fine: bool
) -> None:
    report = replace(REPORT, samples=samples)
    if fine:
        check_counts(report, kind, BIRTH)
    else:
        with pytest.raises(WeightsError, match=r"counts \d samples of [ac]; the device has \d by its birth"):
            check_counts(report, kind, BIRTH)


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 2.5, "b": 1.0}, {"a": 1, "b": 1, "c": 1}])
def test_task_weights_that_balancing_cannot_give_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(WeightsError, match="expected one above 0, up to 2, for every task"):
        a_round().fold(offer("pi-1", report=replace(REPORT, task_weights=weights)), GOOD)
