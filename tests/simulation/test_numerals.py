"""Numbers to sensible digits."""

from __future__ import annotations

import pytest

from mas_edge.simulation.numerals import CHANGE, GIGA, LOSS, MEGA, NONE, PLAIN, RATIO, SHARE, Form, shown, spread_shown
from mas_edge.simulation.pairs import spread


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (0.58123, LOSS, "0.5812"),
        (1234.5, LOSS, "1234"),
        (-0.0234, CHANGE, "−2.3 %"),
        (0.0234, CHANGE, "+2.3 %"),
        (-0.0002, CHANGE, "0.0 %"),  # no sign of nothing
        (0.0456, SHARE, "4.6 %"),
        (28_160_557_056, GIGA, "28.2"),
        (961_774, MEGA, "0.962"),
        (0.45678, RATIO, "0.46"),
        (123456.0, PLAIN, "123456"),
        (98.76, PLAIN, "98.8"),
        (0.000123, PLAIN, "0.000123"),
        (0.0, PLAIN, "0.00"),
        (None, PLAIN, NONE),
    ],
)
def test_a_number_has_the_digits_that_say_something(value: float | None, form: Form, text: str) -> None:
    assert shown(value, form) == text


@pytest.mark.parametrize(
    ("values", "form", "text"),
    [
        ([0.58, 0.6], LOSS, "0.5900 ± 0.0141"),
        ([-0.01, -0.03], CHANGE, "−2.0 % ± 1.4 %"),
        ([100.0, 104.0], PLAIN, "102 ± 3"),
        ([22_000_000, 22_000_012], MEGA, "22.0"),  # counts do not vary
        ([5.0], PLAIN, "5.00"),
    ],
)
def test_a_deviation_is_as_fine_as_its_mean(values: list[float], form: Form, text: str) -> None:
    assert spread_shown(spread(values), form) == text


def test_what_is_not_there_is_a_dash() -> None:
    assert spread_shown(None, PLAIN) == NONE
