"""Outcomes written by hand, and a comparison of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mas_edge.job import Data, Federation, Job, Task
from mas_edge.simulation.compare import Comparison
from mas_edge.simulation.outcome import Outcome, TaskOutcome
from mas_edge.simulation.pairs import rows_of, summaries_of

UNIT = 10.0  # of the second task; its constant predictor's loss is 2, that of the first is 1
TASKS = ("a", "b")


def outcome(losses: Sequence[float], seconds: float = 10.0, groups: Sequence[Sequence[str]] = (("a", "b"),)) -> Outcome:
    """The outcome of a run with the two tasks' losses; a tenth of its seconds was affinity."""
    a, b = losses
    tasks = {
        "a": TaskOutcome(loss=a, raw=a, normalised=a, metric=1 - a),
        "b": TaskOutcome(loss=b, raw=b * UNIT, normalised=b / 2, metric=b),
    }
    return Outcome(
        tasks=tasks, raw_total=a + UNIT * b, normalised_total=(a + b / 2) / 2, groups=[list(group) for group in groups],
        train_seconds=0.9 * seconds, affinity_seconds=0.1 * seconds, multiply_accumulates=int(seconds * 1e9),
        affinity_multiply_accumulates=0, bytes_down=1_500_000, bytes_up=25_000_000, energy_joules=0.9 * seconds,
        energy_source="by hand",
    )  # fmt: skip


def job() -> Job:
    return Job(
        name="hand", data=Data(input_shape=[2]), federation=Federation(rounds=2, merge_rounds=1),
        tasks=[Task(name="a", kind="class", classes=2), Task(name="b", kind="value", unit=UNIT)],
    )  # fmt: skip


def comparison(
    outcomes: Mapping[tuple[str, int], Outcome], reference: str = "one-by-one", missing: Mapping[str, str] | None = None
) -> Comparison:
    """A comparison of all methods and seeds that are named."""
    methods = list(dict.fromkeys(method for method, _ in outcomes))
    seeds = sorted({seed for _, seed in outcomes})
    rows = rows_of(outcomes, reference, dict.fromkeys(outcomes, 12.0))
    return Comparison(
        command="mas-edge compare job.toml", date="2026-01-01 00:00 UTC", machines=["a machine"], job=job(),
        data="0" * 64, device="cpu", methods=methods, seeds=seeds, reference=reference, missing=dict(missing or {}),
        wall_seconds=12.0 * len(rows), summaries=summaries_of(rows, methods, seeds), rows=rows, ranks=[], rankings=[],
    )  # fmt: skip
