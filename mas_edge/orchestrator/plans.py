"""What a round tells its devices: a plan out of the job, the state and the round. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mas_edge.federation.flow import GroupState, RoundWork
from mas_edge.federation.methods import measures_affinity
from mas_edge.federation.rounds import RoundSpec
from mas_edge.federation.schedule import learning_rate
from mas_edge.job import Job
from mas_edge.mas.merge import MERGED
from mas_edge.orchestrator.records import ArtifactKind
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Balance, HealthCheck, Manifest, Plan, Training, Weights
from mas_edge.protocol.models import BOARD_FORMAT

# Every model must answer one sample within this, on the slowest board; a model that hangs must not become active.
MAX_LATENCY_S = 5.0
# float32 sums in another order on another engine differ by about 1e-5; a wrong operator differs by far more.
HEALTH_TOLERANCE = 1e-3
# Of int8 the answers are its own, in steps of 1/255 of an output's range: kernels may round a layer up where others
# round it down, a step or two at the end (measured: 0.012 by the board's own interpreter against tflite-micro).
INT8_TOLERANCE = 0.05
# Rounds draw their batches from seeds this far apart, so that no epoch of one round repeats an epoch of another.
SEEDS_PER_ROUND = 1000


def make_plan(job: Job, run_id: str, work: RoundWork, group: GroupState, supply: str, sender: dict[str, Any]) -> Plan:
    """The plan of one round, the same for every selected device that gets this program, or a model of this format.

    Raises:
        ServerError: the group has nothing to deploy.
    """
    base: dict[str, Any] = {
        **sender, "job": run_id, "round_id": work.round_id, "kind": work.kind, "group": group.name,
        "tasks": group.tasks, "deadline_s": _deadline_s(job, work),
    }  # fmt: skip
    if work.kind == "deploy":
        golden = group.golden_for(supply)
        if supply not in group.models or golden is None:
            message = f"group {group.name} has no inference model of format {supply} to deploy"
            raise ServerError(message)
        health = HealthCheck(golden=golden, tolerance=_tolerance(supply), max_latency_s=MAX_LATENCY_S)
        return Plan(**base, program=group.models[supply], health=health, format=supply)
    weights = Weights(manifest=group.weights, derive_from=group.derive_from)
    training = _training(job, work, group) if work.kind == "train" else None
    return Plan(**base, program=group.programs[supply], weights=weights, training=training)


def _tolerance(model_format: str) -> float:
    return INT8_TOLERANCE if model_format == BOARD_FORMAT else HEALTH_TOLERANCE


def _deadline_s(job: Job, work: RoundWork) -> float:
    """When the device may give up: where late reports count, as many rounds later as they may be late."""
    federation = job.federation
    rounds = 1 + federation.max_staleness if federation.folds_late and work.kind == "train" else 1
    return federation.deadline_s * rounds


def artifacts_of(plan: Plan) -> list[tuple[ArtifactKind, Manifest]]:
    """What the devices of a plan may have to fetch, by kind."""
    if plan.health:
        other = plan.health.all_in_one
        whole: list[tuple[ArtifactKind, Manifest]] = [("model", other.model), ("golden", other.golden)] if other else []
        return [("model", plan.program), ("golden", plan.health.golden), *whole]
    weights: list[tuple[ArtifactKind, Manifest]] = [("weights", plan.weights.manifest)] if plan.weights else []
    return [("program", plan.program), *weights]


def _balance(job: Job, group: GroupState) -> Balance | None:
    """How the device moves the task weights, if the method does."""
    method = job.method
    if method.balance == "none":
        return None
    return Balance(alpha=method.gradnorm_alpha, rate=method.gradnorm_rate, initial_losses=group.first_losses)


def _training(job: Job, work: RoundWork, group: GroupState) -> Training:
    optimizer = job.optimizer
    rounds, measured = group.schedule_rounds or job.federation.rounds, work.group == MERGED and measures_affinity(job)
    return Training(
        learning_rate=learning_rate(optimizer, work.index - group.schedule_start, rounds),
        momentum=optimizer.momentum, weight_decay=optimizer.weight_decay,
        local_epochs=job.federation.local_epochs, seed=job.seed + SEEDS_PER_ROUND * work.index,
        task_weights=group.task_weights,
        # Where nothing is decided by it, nobody asks how tasks help each other.
        affinity_period=job.affinity.period if measured else 0,
        proximal_mu=optimizer.proximal_mu, balance=_balance(job, group),
    )  # fmt: skip


def audiences(plans: Mapping[str, Plan], spec: RoundSpec) -> dict[Manifest, tuple[ArtifactKind, set[str]]]:
    """The artifacts of a round and who may need them: the weights are everybody's, a program is for some."""
    found: dict[Manifest, tuple[ArtifactKind, set[str]]] = {}
    for supply, plan in plans.items():
        devices = {device for device, gets in spec.supplies.items() if gets == supply}
        for kind, manifest in artifacts_of(plan):
            found.setdefault(manifest, (kind, set()))[1].update(devices)
    return found
