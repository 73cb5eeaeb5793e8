"""A board's own interpreter: LiteRT's answers bit by bit, in a board's memory, and a clear no where that is too small.

The models and answers in ``data`` were made by ``tests.export.micro.board_models`` with the kit's converter and
LiteRT's reference kernels; ``make test-litert`` holds them and other inputs against LiteRT anew.
"""

from __future__ import annotations

import math
import re
import subprocess
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.micro import ends as _ends
from device_runtime.micro import fixed as _fixed
from device_runtime.micro import int8 as _int8
from device_runtime.micro import tflite as _tflite
from device_runtime.micro.wire import Refused
from mas_edge.protocol.weights import unpack
from tests.micro.board import command, environment, needs_micropython, run_script
from tests.micro.desk import DATA, GOLDEN, MODEL

ends: Any = _ends  # written for MicroPython, which has no types
fixed: Any = _fixed
int8: Any = _int8
tflite: Any = _tflite
MODELS = ("series", "image", "layers")
# What the kit's own families need, and what it takes beside them to run most small networks.
NEEDED = {
    "series": {0, 3, 9, 18, 22, 34, 39, 40, 41, 76, 130},
    "image": {0, 3, 9, 18, 22, 34, 39, 40, 41, 76, 97, 130},
    "layers": {1, 3, 4, 9, 17, 25, 39},
}
floats = st.floats(2.0**-60, 2.0**20, width=32, exclude_min=True)


def outputs(path: Path) -> list[str]:
    graph = tflite.Graph(BytesIO(path.read_bytes()))
    return [f"task {number}" for number in range(len(graph.outputs))]


@needs_micropython
@pytest.mark.parametrize("name", MODELS)
def test_a_board_answers_bit_by_bit_as_litert_with_and_without_machine_code(name: str, tmp_path: Path) -> None:
    said = run_script("answers", str(DATA / f"{name}.model"), str(DATA / f"{name}.answers"), str(tmp_path))
    samples, refused = int(said.split()[0]), int(said.split()[2])
    assert samples == 3
    assert refused > 0  # of the damaged copies: the others differ in a weight or a name


@pytest.mark.parametrize("name", MODELS)
def test_the_models_have_the_operators_that_they_stand_for(name: str) -> None:
    graph = tflite.Graph(BytesIO((DATA / f"{name}.model").read_bytes()))
    assert NEEDED[name] <= {operator.code for operator in graph.operators()}


@pytest.mark.parametrize("cut", [0, 7, 8, 60, 2000])
def test_a_file_that_ends_too_early_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.model"
    path.write_bytes(MODEL[:cut])
    with pytest.raises(Refused, match=r"no \.tflite file"):
        int8.load(str(path), ["a", "b"])


def test_an_operator_that_it_has_not_and_another_number_of_tasks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "other.model"
    path.write_bytes(MODEL)
    with pytest.raises(Refused, match="2 outputs for 1 tasks"):
        int8.load(str(path), ["a"])
    graph = tflite.Graph(BytesIO(MODEL))
    table = next(iter(graph._model.tables(1)))
    changed = bytearray(MODEL)
    changed[table.place(3)] = 10  # HASHTABLE_LOOKUP
    changed[table.place(0)] = 10
    path.write_bytes(bytes(changed))
    with pytest.raises(Refused, match=r"needs operator 10, .*name a firmware's module in infer"):
        int8.load(str(path), ["a", "b"])


@needs_micropython
def test_a_model_that_does_not_fit_is_refused_with_the_numbers() -> None:
    program = (
        "from device_runtime.micro import int8\n"
        f"try: int8.load({str(DATA / 'image.model')!r}, ['a', 'b', 'c', 'd'])\n"
        "except int8.Refused as error: print(error)"
    )
    small = command("-c", program, heap="104k")
    said = subprocess.run(small, env=environment(), capture_output=True, text=True, timeout=60, check=True).stdout
    found = re.fullmatch(r"the model does not fit: (\d+) of its (\d+) operators fit into .* (\d+) bytes\n", said)
    assert found is not None, said
    fitting, operators, free = map(int, found.groups())
    assert 0 < fitting < operators
    assert 0 < free < 104 * 1024


def test_the_dense_model_answers_as_the_network_within_the_loss_of_int8() -> None:
    model, golden = int8.load(str(DATA / "dense.model"), ["a", "b"]), unpack(GOLDEN)
    answers = [model.run([float(value) for value in x.reshape(-1)]) for x in golden["x"]]
    for task in ("a", "b"):
        expected = golden[f"out.{task}"]
        gap = np.array([list(answer[task]) for answer in answers]) - expected
        assert np.linalg.norm(gap) < 0.02 * np.linalg.norm(expected)  # tflite-micro itself: 0.011 and 0.006


def pair(number: float) -> tuple[int, int]:
    made: tuple[int, int] = fixed.real(int(np.float32(number).view(np.uint32)))
    return made


def value(made: tuple[int, int]) -> float:
    return float(made[0]) * 2.0 ** made[1]


@given(floats, floats)
def test_products_and_quotients_round_as_the_processor_does(one: float, other: float) -> None:
    a, b = np.float32(one), np.float32(other)
    assert value(fixed.product(pair(one), pair(other), fixed.SINGLE)) == a * b
    assert value(fixed.quotient(pair(one), pair(other), fixed.SINGLE)) == a / b
    assert value(fixed.quotient(pair(one), pair(other), fixed.DOUBLE)) == one / other
    assert value(fixed.root(pair(one), fixed.SINGLE)) == np.sqrt(a)
    assert fixed.less(pair(one), pair(other)) is (one < other)


@given(st.integers(-(2**24), 2**24), st.floats(2.0**-20, 0.99))
def test_scaling_is_a_product_rounded_to_the_nearest(number: int, scale: float) -> None:
    factor, shift = fixed.multiplier(pair(scale))
    exact = number * float(np.float32(scale))
    assert abs(fixed.scaled(number, factor, shift) - exact) <= 1  # rounded twice, as LiteRT does


@given(st.integers(-(2**31), 2**31), st.floats(2.0**-20, 2.0))
def test_a_dense_layer_rounds_as_a_double_does(number: int, scale: float) -> None:
    mantissa, exponent = math.frexp(scale)
    made = fixed.times(number, int(mantissa * 2**53), exponent - 53)
    nearest = math.floor(Fraction(abs(number * scale)) + Fraction(1, 2))
    assert made == (nearest if number >= 0 else -nearest)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1), st.floats(2.0**-10, 1.0, width=32), st.integers(-128, 127))
def test_integers_are_the_nearest_to_what_they_stand_for(x: list[float], scale: float, zero: int) -> None:
    stored = ends.quantized(x, scale, zero)
    back = ends.real(stored, scale, zero)
    for number, integer, real in zip(x, stored, back, strict=True):
        if -128 < integer < 127:
            assert abs(number - real) <= scale * 0.5001
        else:
            assert (number >= real - scale / 2) if integer == 127 else (number <= real + scale / 2)
