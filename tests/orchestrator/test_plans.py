"""Plans: what each kind of round tells its devices, and the artifacts they may have to fetch."""

import pytest
from msgspec.structs import replace

from mas_edge.federation.schedule import learning_rate
from mas_edge.orchestrator.plans import SEEDS_PER_ROUND, artifacts_of, make_plan
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Plan, PlanKind, decode_from_orchestrator, encode
from tests.orchestrator.small_run import JOB, SENDER, group_state, thing, work

GROUP = group_state(
    "group-0",
    tasks=["a"],
    derive_from="ab" * 32,
    models={"onnx": thing("model"), "pte": thing("pte model")},
    golden=thing("golden"),
)


def a_plan(kind: PlanKind, group: str = "merged", index: int = 0, supply: str = "") -> Plan:
    state = group_state() if group == "merged" else GROUP
    supply = supply or ("onnx" if kind == "deploy" else "torch")
    return make_plan(JOB, "j-1", work(kind, group, index), state, supply, SENDER)


def test_a_training_round_says_everything_a_device_needs() -> None:
    plan = a_plan("train", index=3)
    training = plan.training
    assert training is not None
    assert (plan.job, plan.round_id, plan.group, plan.tasks) == ("j-1", "merged-0003", "merged", ["a", "b"])
    assert plan.deadline_s == JOB.federation.deadline_s
    assert training.learning_rate == learning_rate(JOB.optimizer, 3, JOB.federation.rounds)
    assert training.local_epochs == JOB.federation.local_epochs
    assert training.momentum == JOB.optimizer.momentum
    assert decode_from_orchestrator(encode(plan)) == plan


def test_affinity_is_measured_before_the_split_only() -> None:
    before, after = a_plan("train").training, a_plan("train", "group-0", 2).training
    assert before is not None
    assert after is not None
    assert (before.affinity_period, after.affinity_period) == (JOB.affinity.period, 0)


def test_no_two_rounds_draw_their_batches_from_the_same_seeds() -> None:
    drawn = set()
    for index in range(4):
        training = a_plan("train", index=index).training
        assert training is not None
        drawn |= {training.seed + epoch for epoch in range(SEEDS_PER_ROUND)}
    assert len(drawn) == 4 * SEEDS_PER_ROUND


def test_the_first_plan_of_a_group_names_what_its_weights_can_be_taken_out_of() -> None:
    weights = a_plan("train", "group-0").weights
    assert weights is not None
    assert (weights.manifest, weights.derive_from) == (thing("weights"), "ab" * 32)


ARTIFACTS: dict[PlanKind, list[tuple[str, str]]] = {
    "train": [("program", "program"), ("weights", "weights")],
    "evaluate": [("program", "program"), ("weights", "weights")],
    "deploy": [("model", "model"), ("golden", "golden")],
}


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_a_plan_names_the_artifacts_of_its_kind(kind: PlanKind) -> None:
    plan = a_plan(kind, "group-0")
    assert artifacts_of(plan) == [(name, thing(data)) for name, data in ARTIFACTS[kind]]
    assert (plan.training is None, plan.health is None) == (kind != "train", kind != "deploy")


def test_devices_are_sent_the_model_in_their_format_and_all_the_same_golden_samples() -> None:
    plans = {supply: a_plan("deploy", "group-0", supply=supply) for supply in ("onnx", "pte")}
    assert {plan.format: plan.program for plan in plans.values()} == GROUP.models
    assert plans["onnx"].health == plans["pte"].health


def test_microboards_are_held_to_the_answers_of_their_own_model_within_its_steps() -> None:
    own = replace(GROUP, models={**GROUP.models, "int8": thing("int8")}, goldens={"int8": thing("int8 answers")})
    board, other = (make_plan(JOB, "j-1", work("deploy", "group-0"), own, form, SENDER) for form in ("int8", "onnx"))
    assert board.health is not None
    assert other.health is not None
    assert (board.program, board.health.golden) == (thing("int8"), thing("int8 answers"))
    assert other.health.golden == thing("golden")
    assert board.health.tolerance > other.health.tolerance


def test_a_group_without_a_model_cannot_be_deployed() -> None:
    for lacking in (replace(GROUP, models={}), replace(GROUP, golden=None)):
        with pytest.raises(ServerError, match="group-0 has no inference model of format onnx"):
            make_plan(JOB, "j-1", work("deploy", "group-0"), lacking, "onnx", SENDER)
