"""Program files: what is dumped is loaded, and nothing else is."""

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.program import (
    FORMAT,
    MAGIC,
    MAX_PROGRAM_BYTES,
    Constant,
    Method,
    Node,
    Program,
    TargetSpec,
    Value,
    dump,
    load,
)
from mas_edge.protocol.weights import ENCODER, Entry, Layout

INFER = Method(
    inputs=[Value("w", [2], "float32"), Value("x", [4, 2], "float32")],
    outputs=[Value("y", [4], "float32")],
    results=["sum"],
    nodes=[
        Node("mul", "aten.mul.Tensor", [{"ref": "w"}, {"ref": "x"}], module="encoder.linear"),
        Node("sum", "aten.sum.dim_IntList", [{"ref": "mul"}, [1]], {"dtype": {"dtype": "float32"}, "keepdim": False}),
    ],
    constants=[Constant("c", [1], "int64", bytes(range(8)))],
)
PROGRAM = Program(
    format=FORMAT,
    group="all",
    tasks=["a"],
    batch_size=4,
    input_shape=[2],
    targets={"a": TargetSpec([], "int64", [], classes=3)},
    layout=Layout([Entry("w", [2], ENCODER)]),
    methods={"evaluate": INFER},
)
DUMPED = dump(PROGRAM)


def test_a_program_comes_back_equal() -> None:
    assert load(DUMPED) == PROGRAM


def test_the_same_program_gives_the_same_bytes_in_whatever_order_it_was_made() -> None:
    forth = replace(PROGRAM, methods={"evaluate": INFER, "train_step": INFER})
    back = replace(PROGRAM, methods={"train_step": INFER, "evaluate": INFER})
    assert dump(forth) == dump(back)


def test_a_program_carries_no_weights_and_no_code() -> None:
    text = zlib.decompress(DUMPED[len(MAGIC) :])
    assert set(json.loads(text)) == set(Program.__struct_fields__)


def packed(text: bytes) -> bytes:
    return MAGIC + zlib.compress(text)


def with_args(args: bytes) -> bytes:
    text = zlib.decompress(DUMPED[len(MAGIC) :])
    spoiled = text.replace(b'"args":[{"ref":"w"},{"ref":"x"}]', b'"args":' + args)
    assert spoiled != text
    return packed(spoiled)


FAULTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not a program file"),
    "other magic": (b"MASEDGE0" + DUMPED[8:], "not a program file"),
    "a pickle": (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00", "not a program file"),
    "only the magic": (MAGIC, "truncated"),
    "cut short": (DUMPED[:-3], "truncated"),
    "a byte too many": (DUMPED + b"x", "extra bytes"),
    "not compressed": (MAGIC + b"{}", "damaged"),
    "a flipped bit in the checksum": (DUMPED[:-1] + bytes([DUMPED[-1] ^ 1]), "damaged"),
    "not JSON": (packed(b"nonsense"), "does not decode"),
    "not UTF-8": (packed(b'{"group":"\xff"}'), "does not decode"),
    "a list": (packed(b"[]"), "does not decode"),
    "fields missing": (packed(b'{"format":1}'), "does not decode: Object missing required field"),
    "arguments that are no list": (with_args(b'"x"'), "does not decode: Expected `array`"),
    "arguments nested without end": (with_args(b"[" * 100_000 + b"]" * 100_000), "does not decode"),
    "a bomb": (packed(b" " * (MAX_PROGRAM_BYTES + 1)), "over 67108864 bytes when unpacked"),
    "a newer format": (dump(replace(PROGRAM, format=FORMAT + 1)), "format 2, this runtime reads format 1: update"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_program_is_refused_by_name(fault: str) -> None:
    data, text = FAULTS[fault]
    with pytest.raises(ProgramError, match=text):
        load(data)


LAYOUT_FAULTS: dict[str, list[Entry]] = {
    "a negative size": [Entry("w", [-1], ENCODER)],
    "one name twice": [Entry("w", [2], ENCODER), Entry("w", [2], ENCODER)],
    "a trained tensor after a buffer": [Entry("mean", [1], ENCODER, trainable=False), Entry("w", [2], ENCODER)],
}


@pytest.mark.parametrize("fault", LAYOUT_FAULTS)
def test_a_layout_that_contradicts_itself_is_refused(fault: str) -> None:
    with pytest.raises(ProgramError):
        load(dump(replace(PROGRAM, layout=Layout(LAYOUT_FAULTS[fault]))))


TEXT = zlib.decompress(DUMPED[len(MAGIC) :])
damaged = st.builds(
    lambda place, junk, cut: packed(TEXT[:place] + junk + TEXT[place + cut :]),
    st.integers(0, len(TEXT)), st.binary(max_size=4), st.integers(0, 12),
)  # fmt: skip


@given(st.one_of(st.binary(max_size=50), st.binary(max_size=50).map(packed), damaged))
def test_whatever_is_received_gives_a_program_that_can_be_dumped_or_a_program_error(data: bytes) -> None:
    try:
        program = load(data)
    except ProgramError as error:
        assert len(str(error)) < 1000
        return
    assert load(dump(program)) == program
