"""The learning rate: one course over all rounds."""

import pytest

from mas_edge.federation.schedule import learning_rate
from mas_edge.job import Optimizer


def test_the_polynomial_decays_from_the_given_rate_and_never_to_zero_within_the_rounds() -> None:
    optimizer = Optimizer(learning_rate=0.1, power=0.9)
    rates = [learning_rate(optimizer, index, 10) for index in range(10)]
    assert rates[0] == 0.1
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 10
    assert rates[5] == pytest.approx(0.1 * 0.5**0.9, rel=1e-12)
    assert rates[-1] == pytest.approx(0.1 * 0.1**0.9, rel=1e-12)


def test_power_one_is_a_straight_line() -> None:
    optimizer = Optimizer(learning_rate=1.0, power=1.0)
    assert [learning_rate(optimizer, index, 4) for index in range(4)] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("optimizer", [Optimizer(schedule="constant"), Optimizer(power=0.0)], ids=["named", "power 0"])
def test_a_constant_rate_stays(optimizer: Optimizer) -> None:
    assert {learning_rate(optimizer, index, 7) for index in range(7)} == {optimizer.learning_rate}
