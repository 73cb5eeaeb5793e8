"""GradNorm on the device: the rule on cases worked by hand, and a course of training that follows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from device_runtime.balance import rebalanced
from device_runtime.data import DataFolder
from device_runtime.engines import open_engine
from device_runtime.session import train
from mas_edge.export.trace import trace_program
from mas_edge.job import Method
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.messages import Balance, Training
from mas_edge.protocol.program import Program
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = replace(tiny_job(), method=Method(balance="gradnorm"))
NAN = float("nan")

# Name: weights, norms, losses, first losses, alpha, and the weights after a step of rate 0.1, worked by hand.
BY_HAND: dict[str, tuple[list[float], list[float], list[float], list[float], float, list[float]]] = {
    # G = 3, 1, target mean(G) * r^alpha = 2, 2: the long gradient is made shorter, the short one longer.
    "equal progress": ([1, 1], [3, 1], [1, 1], [1, 1], 1.5, [0.9, 1.1]),
    # G = 1, 2, 6, target 3 each: up, up, down makes 3.1 in all, scaled back to 3.
    "the sum stays n": ([1, 1, 1], [1, 2, 6], [1, 1, 1], [1, 1, 1], 1.5, [3.3 / 3.1, 3.3 / 3.1, 2.7 / 3.1]),
    # Progress 1, 0.25, r = 1.6, 0.4, mean(G) = 1.5: with alpha 1 the target 2.4, 0.6 pulls the slow task up ...
    "a task that lags": ([1, 1], [2, 1], [1, 0.25], [1, 1], 1.0, [1.1, 0.9]),
    # ... which alpha 0 does not know of.
    "alpha 0": ([1, 1], [2, 1], [1, 0.25], [1, 1], 0.0, [0.9, 1.1]),
    # The first losses count: 4 of 8 and 1 of 1 is r = 2/3, 4/3; G = 2, 2, target 4/3, 8/3.
    "first losses": ([1, 1], [2, 2], [4, 1], [8, 1], 1.0, [0.9, 1.1]),
    # The weights count: G = 1.5 * 1, 0.5 * 2, target 1.25 each.
    "unequal weights": ([1.5, 0.5], [1, 2], [1, 1], [1, 1], 1.5, [1.35 * 2 / 1.9, 0.55 * 2 / 1.9]),
    # The second has no label in this batch: G = 3, 1 of the others, and its weight only follows the sum (3 -> 3).
    "no label in the batch": ([1, 1, 1], [3, 0, 1], [1, 0, 1], [1, 1, 1], 1.5, [0.9, 1.0, 1.1]),
    "no label so far": ([1, 1, 1], [3, 5, 1], [1, 1, 1], [1, NAN, 1], 1.5, [0.9, 1.0, 1.1]),
    "no label of any task": ([1, 1], [0, 0], [0, 0], [NAN, NAN], 1.5, [1, 1]),
    "a plan of another sum": ([2, 2], [3, 1], [1, 1], [1, 1], 1.5, [0.9, 1.1]),
    "one task": ([1], [3], [0.5], [1], 1.5, [1]),
    "weights of 0": ([0, 0], [3, 1], [1, 1], [1, 1], 1.5, [0, 0]),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_a_step_moves_the_weights_as_worked_by_hand(case: str) -> None:
    *numbers, alpha, expected = BY_HAND[case]
    weights, norms, losses, first = (np.array(each, np.float64) for each in numbers)
    given = weights.copy()
    moved = rebalanced(weights, norms, losses, first, Balance(alpha=alpha, rate=0.1))
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    np.testing.assert_array_equal(weights, given)


positive = st.floats(1e-6, 1e6)


@given(st.lists(st.tuples(positive, positive, positive, positive), min_size=1, max_size=6), st.floats(0, 10))
def test_weights_stay_positive_of_sum_n_and_move_by_little(
    numbers: list[tuple[float, float, float, float]], alpha: float
) -> None:
    weights, norms, losses, first = np.array(numbers).T
    weights = weights * len(weights) / weights.sum()
    moved = rebalanced(weights, norms, losses, first, Balance(alpha=alpha, rate=0.01))
    assert moved.sum() == pytest.approx(len(weights))
    assert (moved > 0).all()
    np.testing.assert_allclose(moved / weights, 1.0, atol=0.021)  # twice the rate: its own move, and the common factor


class Steps:
    """The torch engine's runner, and what went into and came out of every train step."""

    def __init__(self, program: Program) -> None:
        self.weights: list[NDArray[Any]] = []
        self.results: list[dict[str, NDArray[Any]]] = []
        self._runner = open_engine("torch").load(program)

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        results = self._runner.run(method, feeds)
        self.weights.append(feeds["task_weights"])
        self.results.append(results)
        return results


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def program() -> Program:
    return trace_program(JOB, "merged", TASKS, ["train_step"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return tiny_data(tmp_path_factory.mktemp("all"))


def start() -> NDArray[np.float32]:
    return vector_of(build(JOB, TASKS))


def training(balance: Balance | None, **task_weights: float) -> Training:
    return Training(
        learning_rate=0.05, momentum=0.9, weight_decay=0.01, local_epochs=2, seed=7, task_weights=task_weights,
        balance=balance,
    )  # fmt: skip


def never() -> bool:
    return False


def test_every_step_takes_the_weights_that_the_one_before_it_left(program: Program, data: DataFolder) -> None:
    balance, steps = Balance(alpha=1.5, rate=0.05), Steps(program)
    _, report = train(steps, program, start(), data, training(balance, sign=1.2, mean=0.8), stop=never)
    now, first = np.array([1.2, 0.8, 1.0]), steps.results[0]["losses"].astype(np.float64)
    for fed, results in zip(steps.weights, steps.results, strict=True):
        np.testing.assert_allclose(fed, now, rtol=1e-6)
        norms, losses = results["norms"].astype(np.float64), results["losses"].astype(np.float64)
        now = rebalanced(now, norms, losses, first, balance)
    assert report.task_weights == pytest.approx(dict(zip(TASKS, now, strict=True)))
    assert len(steps.weights) == report.steps == 6
    assert not np.allclose(now, [1.2, 0.8, 1.0], atol=0.02)


def test_the_first_losses_are_those_of_the_plan_where_it_gives_them(program: Program, data: DataFolder) -> None:
    steps = Steps(program)

    def reached(**initial: float) -> dict[str, float]:
        balance = Balance(alpha=1.5, rate=0.05, initial_losses=initial)
        return train(steps, program, start(), data, training(balance), stop=never)[1].task_weights

    own = reached()
    first = dict(zip(TASKS, steps.results[0]["losses"].tolist(), strict=True))
    assert reached(**first) == reached(mean=first["mean"]) == own
    slow = reached(**first | {"way": first["way"] / 100})
    assert slow["way"] > own["way"]  # it seems to have learnt nothing so far


def test_a_task_without_labels_keeps_its_share(program: Program, tmp_path: Path) -> None:
    folder = tiny_data(tmp_path, holds_way=False)
    _, report = train(Steps(program), program, start(), folder, training(Balance(alpha=1.5, rate=0.05)), stop=never)
    assert sum(report.task_weights.values()) == pytest.approx(3)
    assert report.task_weights["way"] == pytest.approx(1, abs=0.05)
    assert report.samples["way"] == 0


def test_without_balance_the_weights_stay_and_the_report_holds_none(program: Program, data: DataFolder) -> None:
    steps = Steps(program)
    _, report = train(steps, program, start(), data, training(None, mean=2.0), stop=never)
    assert report.task_weights == {}
    assert all(weights.tolist() == [1.0, 2.0, 1.0] for weights in steps.weights)


def test_a_program_without_gradient_norms_cannot_be_balanced(data: DataFolder) -> None:
    plain = trace_program(tiny_job(), "merged", TASKS, ["train_step"])
    with pytest.raises(ProgramError, match=r"'merged' by GradNorm, .* gives no gradient norms: .* method\.balance"):
        train(Steps(plain), plain, start(), data, training(Balance(alpha=1.5, rate=0.05)), stop=never)
