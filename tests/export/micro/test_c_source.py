from __future__ import annotations

import re

import pytest

from mas_edge.export.micro.c_source import header_text, identifiers, source_text
from mas_edge.export.micro.tables import TensorSpec

X = TensorSpec("x", (1, 2, 3), 0.25, 3)


def test_the_array_holds_every_byte_in_order() -> None:
    model = bytes(range(256))
    body = source_text(model).partition("{")[2]
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", body)) == model


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["label", "next"], ["LABEL", "NEXT"]),
        (["a-b", "a_b", "3d"], ["A_B_0", "A_B_1", "3D"]),
        (["Way", "way"], ["WAY_0", "WAY_1"]),
    ],
)
def test_tasks_become_names_that_c_has_and_that_differ(names: list[str], expected: list[str]) -> None:
    assert identifiers(names) == expected


@pytest.mark.parametrize(("scale", "text"), [(1.0, "1.000000000e+00f"), (3e-9, "3.000000000e-09f")])
def test_numbers_are_constants_of_c(scale: float, text: str) -> None:
    header = header_text(10, 160, [X], [TensorSpec("t", (1,), scale, -128)])
    assert f"#define MAS_EDGE_OUTPUT_T_SCALE {text}\n#define MAS_EDGE_OUTPUT_T_ZERO_POINT (-128)\n" in header
