"""What is read of a .tflite before native code is: here every engine's self-test brings a sound one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.engines.selftest import DATA
from device_runtime.engines.tflite_model import Contents, read_model
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.program import graph_output, load

PROGRAM = load((DATA / "litert.program").read_bytes())
METHOD = PROGRAM.methods["train_step"]
SOUND = PROGRAM.file


def test_a_sound_model_tells_its_signatures_and_operators() -> None:
    contents = read_model(SOUND, "it")
    signature = contents.signatures["train_step"]
    assert signature.inputs == [value.name for value in METHOD.inputs]
    assert sorted(signature.outputs) == sorted(graph_output(value.name) for value in METHOD.outputs)
    assert sum(contents.operators.values()) > 20


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no LiteRT model"),
        (b"<html>not found</html>", r"is no LiteRT model: expected b'TFL3' at byte 4, got b'l>no'"),
        (b"PK\x03\x04TF", "is no LiteRT model"),
        (b"\xff\xff\xff\xffTFL3" + bytes(40), "holds a damaged LiteRT model: byte 4294967295 lies behind"),
        (SOUND[:-20], "holds a damaged LiteRT model"),
        (SOUND[: len(SOUND) // 2], "holds a damaged LiteRT model"),
    ],
    ids=["nothing", "text", "an archive", "a table beyond the end", "cut at the end", "cut in half"],
)
def test_what_is_no_model_or_a_damaged_one_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProgramError, match=f"^the file {reason}"):
        read_model(data, "the file")


def test_no_beginning_of_a_model_is_a_model() -> None:
    for length in range(0, len(SOUND), 97):
        with pytest.raises(ProgramError):
            read_model(SOUND[:length], "it")


@settings(max_examples=300, deadline=None)
@given(places=st.dictionaries(st.integers(0, len(SOUND) - 1), st.integers(0, 255), min_size=1, max_size=4))
def test_any_damage_is_refused_or_harmless(places: dict[int, int]) -> None:
    data = bytearray(SOUND)
    for place, byte in places.items():
        data[place] = byte
    try:
        assert isinstance(read_model(bytes(data), "it"), Contents)
    except ProgramError as error:
        assert "\n" not in str(error)
