"""Formats of deployed models: who can run which, and how files are told apart."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.job import ENGINES
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.models import BOARD_ENGINE, BOARD_FORMAT, ENGINE_OF, format_for, format_of

CASES = [
    ("torch", ["torch", "onnxruntime"], "onnx"),
    ("onnxruntime", ["onnxruntime"], "onnx"),
    ("executorch", ["executorch"], "pte"),
    ("executorch", ["onnxruntime", "executorch"], "pte"),
    ("litert", ["litert", "onnxruntime"], "tflite"),
    ("torch", ["torch", "executorch", "litert"], "pte"),
    ("torch", ["torch", "litert"], "tflite"),
    ("torch", ["torch"], ""),
    ("", ["litert"], "tflite"),
    ("", [], ""),
    ("micro", ["micro"], "int8"),
]


@pytest.mark.parametrize(("engine", "engines", "expected"), CASES)
def test_a_device_gets_the_format_of_its_engine_or_else_the_first_it_can_run(
    engine: str, engines: list[str], expected: str
) -> None:
    assert format_for(engine, engines) == expected


@given(st.sampled_from(["", *ENGINES]), st.sets(st.sampled_from(ENGINES)))
def test_a_device_never_gets_a_format_that_it_cannot_run(engine: str, engines: set[str]) -> None:
    chosen = format_for(engine, engines)
    held = engines | {engine}
    runs = {**ENGINE_OF, BOARD_FORMAT: BOARD_ENGINE}
    assert (chosen == "") == held.isdisjoint(runs.values())
    assert chosen == "" or runs[chosen] in held


def test_the_order_in_which_engines_are_listed_does_not_matter() -> None:
    for engines in itertools.permutations(["torch", "executorch", "litert"]):
        assert format_for("torch", engines) == "pte"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x08\x08\x12\x00", "onnx"),
        (b"\x34\x00\x00\x00ET12\x00", "pte"),
        (b"\x08\x00\x00\x00ET12\x00", "pte"),  # a FlatBuffers file may begin with any number
        (b"\x20\x00\x00\x00TFL3\x00", "tflite"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(data: bytes, expected: str) -> None:
    assert format_of(data) == expected


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"ET12", b"MASEDGE1", b"\x00" * 16])
def test_a_file_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(ProgramError, match="is no onnx, pte, tflite"):
        format_of(data)
