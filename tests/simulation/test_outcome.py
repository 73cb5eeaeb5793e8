"""What a run came to, out of a result written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mas_edge.simulation.outcome import WATTS_PER_CORE, mean_change, outcome_of
from tests.simulation.outcomes import outcome


def phase(seconds: float, measuring: float = 0.0, **macs: int) -> dict[str, Any]:
    return {
        "device_cpu_seconds": seconds, "affinity_cpu_seconds": measuring, "multiply_accumulates": macs,
        "sent_bytes": 100, "received_bytes": 10,
        "device_seconds": {"train": 2 * seconds, "affinity": 2 * measuring, "load": 99.0},
    }  # fmt: skip


RESULT: dict[str, Any] = {
    "job": {"tasks": [{"name": "a", "unit": 1.0}, {"name": "b", "unit": 0.5}]},
    "constant_loss": {"a": 2.0, "b": 0.8},
    "evaluation": {
        "merged": {"a": {"loss": 9.0, "metric": 9.0, "samples": 1}},
        "split": {"a": {"loss": 1.0, "metric": 0.7, "samples": 6}, "b": {"loss": 0.6, "metric": 0.2, "samples": 6}},
    },
    "split": {"groups": [["a"], ["b"]]},
    "phases": {
        "initial_evaluation": phase(50.0, evaluate=10**9),
        "merge": phase(4.0, 1.0, train_step=200, affinity=30),
        "merged_evaluation": phase(50.0, evaluate=10**9),
        "groups": phase(6.0, train_step=100),
        "group_evaluation": phase(50.0, evaluate=10**9),
    },
}


def test_losses_are_told_as_trained_in_their_unit_and_as_a_share_of_the_constants() -> None:
    found = outcome_of(RESULT)
    assert {name: (task.loss, task.raw, task.metric) for name, task in found.tasks.items()} == {
        "a": (1.0, 1.0, 0.7), "b": (0.6, 0.3, 0.2),
    }  # fmt: skip
    assert [task.normalised for task in found.tasks.values()] == pytest.approx([0.5, 0.75])
    assert found.raw_total == pytest.approx(1.3)
    assert found.normalised_total == pytest.approx(0.625), "the mean over tasks"
    assert found.groups == [["a"], ["b"]]


def test_cost_is_that_of_training_and_affinity_and_leaves_evaluations_out() -> None:
    found = outcome_of(RESULT)
    assert (found.train_seconds, found.affinity_seconds, found.device_seconds) == (9.0, 1.0, 10.0)
    assert (found.multiply_accumulates, found.affinity_multiply_accumulates) == (330, 30)
    assert (found.bytes_down, found.bytes_up) == (200, 20)
    assert found.energy_joules == pytest.approx(10.0 * WATTS_PER_CORE)
    assert str(WATTS_PER_CORE) in found.energy_source
    assert found.energy_source.startswith("estimated: ")


def test_on_a_graphics_processor_time_is_by_the_wall_and_energy_is_not_known() -> None:
    """Here a step's wall time is twice its CPU time; ``train`` does not hold the affinity."""
    found = outcome_of(RESULT, "cuda")
    assert (found.train_seconds, found.affinity_seconds) == (20.0, 2.0)
    assert found.multiply_accumulates == outcome_of(RESULT).multiply_accumulates
    assert (found.energy_joules, found.energy_source.split(":")[0]) == (0.0, "not known")


def test_the_probes_of_a_method_are_paid_for() -> None:
    probed = {**RESULT, "phases": {"probe": phase(7.0, train_step=70), "probe_evaluation": phase(50.0)}}
    found = outcome_of(probed)
    assert (found.train_seconds, found.multiply_accumulates, found.bytes_up) == (7.0, 70, 10)


@pytest.mark.parametrize("constants", [None, {"a": 2.0}])
def test_a_task_without_a_constant_is_told_as_it_was_trained(constants: dict[str, float] | None) -> None:
    found = outcome_of({**RESULT, "constant_loss": constants})
    assert found.tasks["b"].normalised == found.tasks["b"].loss


def test_the_mean_change_weighs_every_task_alike() -> None:
    run, reference = outcome((1.1, 0.15)), outcome((1.0, 0.2))
    assert mean_change(run, reference) == pytest.approx((0.1 - 0.25) / 2)
    assert mean_change(reference, reference) == 0
